"""What a search tries: options with ranges or choices, by the names of usual ones or stated."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlcls_jax import config as schema
from mlcls_jax.config import Config
from mlcls_jax.config.field import base_type
from mlcls_jax.errors import ConfigError, unknown
from mlcls_jax.workdir import PLACES, is_free

HEAD_RATE = "head_rate"  # no option of its own: a factor in optimizer.lr_multipliers
FACTOR = 10.0  # by which rates may differ from the recipe's, up and down
SIDES = (5 / 7, 1, 9 / 7)  # of the recipe's: 160, 224 and 288
# Trials of which these differ are not measured alike.
_SETTLED = PLACES | {
    *("data.source", "data.tfds", "data.train_split", "data.val_split", "data.val_size"),
    *("model.task", "model.num_classes"),
}
AUGMENTS = ("()", "flip", "random_resized_crop,flip", "random_resized_crop,flip,randaugment_v4")


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """An option, or the head's rate, with the values to try: a range, or else choices.

    Choices are texts, as on the command line.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    choices: tuple[str, ...] = ()

    @property
    def values(self) -> tuple[Any, ...]:
        """The choices, or the ends of the range."""
        ends = (self.low, self.high)
        return self.choices or (tuple(map(round, ends)) if self.is_whole else ends)

    @property
    def is_whole(self) -> bool:
        """Whether the values of the range are whole numbers."""
        return self.name != HEAD_RATE and base_type(schema.options()[self.name]) is int

    def __str__(self) -> str:
        if self.choices:
            return f"{self.name}: {' / '.join(self.choices)}"
        return f"{self.name}: {self.low:g} to {self.high:g}{', by factors' if self.is_log else ''}"


def config_of(base: Config, values: Mapping[str, Any]) -> Config:
    """Return the configuration with other values, by the names of dimensions.

    Raises:
      ConfigError: it is a contradiction.
    """
    settings = {
        key: schema.value_of(key, value) if isinstance(value, str) else value
        for key, value in values.items()
        if key != HEAD_RATE
    }
    if HEAD_RATE in values:
        factor = f"^head/={values[HEAD_RATE]:.4g}"  # the first that matches counts
        settings["optimizer.lr_multipliers"] = (factor, *base.optimizer.lr_multipliers)
    return schema.changed(base, settings)


def start_of(space: Sequence[Dimension], base: Config) -> dict[str, Any]:
    """Return the values of the dimensions that make the run that `base` is, where they can."""
    start: dict[str, Any] = {}
    for dimension in space:
        if dimension.name == HEAD_RATE:
            start[HEAD_RATE] = 1.0
            continue
        value = schema.at(base, dimension.name)
        if not dimension.choices:
            if value is not None and dimension.low <= value <= dimension.high:
                start[dimension.name] = value
            continue
        for choice in dimension.choices:
            if config_of(base, {dimension.name: choice}) == base:
                start[dimension.name] = choice
    return start


def make_space(names: Sequence[str], base: Config, fixed: Collection[str]) -> list[Dimension]:
    """Return the dimensions of a search.

    Args:
      names: of usual ones (`rate`), or options with values: `train.batch_size=16/32/64` or
        `optimizer.weight_decay=1e-4:1e-1`; none: all usual ones that matter to this run.
      base: the run whose options they are.
      fixed: options that the user has set, which are left alone.

    Raises:
      ConfigError: there is no such option, or a value is wrong.
    """
    from mlcls_jax.data.augment import augmentations  # imports OpenCV, which a help does without

    space = []
    for name in names or USUAL:
        if "=" in name:
            found = [_stated(name)]
        elif name in USUAL:
            found = [d for d in USUAL[name](base) if _option(d.name) not in fixed]
        else:
            raise ConfigError(
                unknown(f"--space {name}", "name", name, USUAL),
                "Or an option with its values: KEY=LOW:HIGH or KEY=A/B/C.",
            )
        if names and not found:
            raise ConfigError(f"--space {name}: is set, or of no use to this run")
        if {d.name for d in found} & {d.name for d in space}:
            raise ConfigError(f"--space {name}: is there already")
        space += found
    for dimension in space:
        for value in dimension.values:
            augmentations(config_of(base, {dimension.name: value}).data.augment)
    if not space:
        raise ConfigError("there is nothing to search for: all options are set")
    return space


def _option(name: str) -> str:
    return "optimizer.lr_multipliers" if name == HEAD_RATE else name


def _stated(text: str) -> Dimension:
    key, _, values = text.partition("=")
    if key not in schema.options():
        raise ConfigError(f"--space {text}: {schema.unknown_key(key)}")
    if key in _SETTLED or is_free(key) or key.startswith("evaluate."):
        raise ConfigError(f"--space {text}: is the same for all runs, which are compared")
    low, colon, high = values.partition(":")
    if not colon:
        return Dimension(name=key, choices=tuple(values.split("/")))
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = 1.0, 0.0
    if ends[0] >= ends[1] or base_type(schema.options()[key]) not in (int, float):
        raise ConfigError(
            f"--space {text}: is no range of numbers", "KEY=LOW:HIGH, or KEY=A/B/C for choices."
        )
    return Dimension(name=key, low=ends[0], high=ends[1], is_log=0 < FACTOR * ends[0] <= ends[1])


def _rate(base: Config) -> Iterator[Dimension]:
    rate = base.optimizer.learning_rate
    if rate:
        yield Dimension(
            name="optimizer.learning_rate", low=rate / FACTOR, high=rate * FACTOR, is_log=True
        )


def _head_rate(base: Config) -> Iterator[Dimension]:
    if not base.train.frozen_backbone:  # with one it is the rate itself
        yield Dimension(name=HEAD_RATE, low=1 / FACTOR, high=FACTOR, is_log=True)


def _gammas(base: Config) -> Iterator[Dimension]:
    if base.loss.name == "asymmetric":
        yield Dimension(name="loss.gamma_neg", low=0.0, high=6.0)
        yield Dimension(name="loss.gamma_pos", low=0.0, high=2.0)


def _resolution(base: Config) -> Iterator[Dimension]:
    height, width = base.model.image_size
    from mlcls_jax.models.registry import stride  # imports JAX, which a help does without

    cell = stride(base.model.name)
    sizes = {
        tuple(max(cell, round(side * share / cell) * cell) for side in (height, width))
        for share in SIDES
        if share != 1
    }
    texts = [f"{h}" if h == w else f"({h}, {w})" for h, w in sorted({*sizes, (height, width)})]
    if len(texts) > 1:
        yield Dimension(name="model.image_size", choices=tuple(texts))


def _augment(base: Config) -> Iterator[Dimension]:
    own = ",".join(base.data.augment) or "()"
    yield Dimension(name="data.augment", choices=tuple(dict.fromkeys((own, *AUGMENTS))))


USUAL: dict[str, Callable[[Config], Iterator[Dimension]]] = {
    "rate": _rate,
    "head_rate": _head_rate,
    "gammas": _gammas,
    "resolution": _resolution,
    "augment": _augment,
}


def from_json(values: Sequence[dict[str, Any]]) -> list[Dimension]:
    """Return the dimensions that `dataclasses.asdict` made dictionaries."""
    return [Dimension(**{**v, "choices": tuple(v["choices"])}) for v in values]
