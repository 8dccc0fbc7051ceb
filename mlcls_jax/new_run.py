"""A new run from a data set and a few words: what was found, what is chosen and why."""

import dataclasses
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlcls_jax import config as schema
from mlcls_jax import recipes
from mlcls_jax.config import Config
from mlcls_jax.data.convert import convert, doubts
from mlcls_jax.data.convert.parquet_tables import HUB
from mlcls_jax.data.detect import Form, Found, detect, on_hub
from mlcls_jax.data.lists import find_root
from mlcls_jax.data.save import copy_lists
from mlcls_jax.data.sources import open_split
from mlcls_jax.data.split import split
from mlcls_jax.errors import WeightsError, WorkdirError
from mlcls_jax.lock import locked
from mlcls_jax.models.registry import find_variant, split_name
from mlcls_jax.models.weights.sources import AUTO, NONE, weight_file
from mlcls_jax.paths import local_path
from mlcls_jax.recipe_choice import Choice, choose
from mlcls_jax.wishes import Wishes

RUNS = "runs"
_CLAIM = ".new_run"  # the lock of a folder that is being made
DIGITS = "digits"  # the embedded demo, in the place of a data set
# Which of a family's recipes fits a model.
_VARIANTS = {"B4": "_b4", "B5": "_b4", "B6": "_b6", "101": "_101", "152": "_152"}


class Numbers(NamedTuple):
    """What the choice of a recipe needs to know of a data set."""

    images: int  # to train on
    validation: int
    labels: int
    is_single: bool  # every image has exactly one label


@dataclass(frozen=True)
class NewRun:
    """A run that is about to begin; its folder is there."""

    recipe: str  # lcnet:small
    settings: dict[str, Any]  # that differ from the recipe's
    folder: Path
    device: str | None
    told: tuple[str, ...]  # what was found and chosen, in sentences

    @property
    def config(self) -> Config:
        """The configuration of the run."""
        return _config(self.recipe, self.settings)

    @property
    def flags(self) -> str:
        """The same run as the flags of a configuration file."""
        device = [f"--device={self.device}"] if self.device else []
        values = [f"--config.{key}={_text(value)}" for key, value in self.settings.items()]
        return shlex.join([f"--config={self.recipe}", f"--workdir={self.folder}", *device, *values])


def plan(
    data: str | Path,
    wishes: Wishes,
    settings: Mapping[str, Any],
    *,
    platform: str,
    suffix: str = "",
) -> NewRun:
    """Find out what the data is, fetch the weights, make the run's folder, and choose the rest.

    Data of other forms is converted into the run's folder, and divided there if it has no
    validation list; nothing is written beside the images.

    Args:
      data: a folder or file, or `digits`.
      wishes: what is not left to be chosen.
      settings: any other values of the configuration, by their keys.
      platform: of the devices: cpu, gpu or tpu.
      suffix: of the data's name, in the name of a folder that is not asked for.

    Raises:
      DataError: the data is not there, of no known form, of several, or malformed.
      WeightsError: the published weights cannot be fetched.
      ConfigError: a key or value is wrong.
      WorkdirError: `wishes.output` is in use.
    """
    asked = wishes.settings() | dict(settings)
    preparing = _config(None, {k: v for k, v in asked.items() if k.startswith(_PREPARE)})
    if str(data) == DIGITS and not Path(DIGITS).exists():
        with new_folder(wishes.output, DIGITS + suffix) as folder:
            return _finish("lcnet:demo", asked, folder, wishes, ("The demo: boards of digits.",))
    found = find(str(data), wishes.format)
    name = asked.get("model.name") or default_model(platform)
    weights = asked.get("model.weights", AUTO)
    check_weights(weights, name)
    with new_folder(wishes.output, found.name + suffix) as folder:
        prepared, told = prepare_data(found, folder, preparing)
        numbers = numbers_of(prepared)
        choice = choose(
            images=numbers.images,
            labels=numbers.labels,
            task="single" if numbers.is_single else "multilabel",
            has_weights=weights not in (None, NONE),
            platform=platform,
        )
        if choice.recipe == "single" and "model.name" not in asked:
            name, _ = split_name(name)
        chosen = choice.settings | {"model.name": name, "data.dir": prepared.dir}
        if prepared.source != "mlcls":
            chosen["data.source"] = prepared.source
        if "train.epochs" in asked:  # those of the recipe may be as many as these
            usual = _values(recipe_of(name, choice.recipe)).optimizer.warmup_epochs
            chosen["optimizer.warmup_epochs"] = min(usual, asked["train.epochs"] / 5)
        if not numbers.is_single:
            chosen["train.fit_thresholds"] = "always"
        told = (
            f"{data}: {found.told}: {numbers.images:,} images to train on,"
            f" {numbers.validation:,} to validate, {numbers.labels} labels"
            f"{', one an image' if numbers.is_single else ''}.",
            *told,
            f"{name}: {_why(asked, platform)}",
            *_reasons(choice, asked),
        )
        return _finish(recipe_of(name, choice.recipe), chosen | asked, folder, wishes, told)


def plan_check(
    data: str, form: Form | None, output: str | None, settings: Mapping[str, Any]
) -> tuple[Config, Path, tuple[str, ...]]:
    """Return what checks a data set, its folder, and what was found and done; see `plan`.

    Raises:
      DataError: the data is not there, of no known form, of several, or cannot be listed.
      ConfigError: a key or value is wrong.
      WorkdirError: `output` is in use.
    """
    found = find(data, form)
    asked = {"mode": "check_dataset", "data.dir": str(found.root), **settings}
    with new_folder(output, f"{found.name}-check") as folder:
        told: tuple[str, ...] = ()
        if found.form == "packed":
            asked["data.source"] = "packed"
        if found.convert:
            prepared, told = prepare_data(found, folder, _config(None, asked))
            asked["data.dir"] = prepared.dir
        return _config(None, asked), folder, (f"{data}: {found.told}.", *told)


def find(data: str, form: Form | None) -> Found:
    """Return what a data set is, of which the lists are fetched if it is on the hub."""
    return on_hub(data) if data.startswith(HUB) else detect(local_path("DATA", data), form)


_PREPARE = ("check_dataset.", "seed")


def default_model(platform: str) -> str:
    """Return the model that suits a machine."""
    return "PP-LCNet_x1_0_ML" if platform == "cpu" else "PP-HGNetV2-B4_ML"


def _why(asked: Mapping[str, Any], platform: str) -> str:
    if "model.name" in asked:
        return "as requested."
    return (
        "small enough for a CPU." if platform == "cpu" else f"accurate, and fast on a {platform}."
    )


def _reasons(choice: Choice, asked: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasons of a choice without those of values that were asked for."""
    for reason in choice.reasons:
        is_steps = " epochs of " in reason and {"train.epochs", "train.batch_size"} & asked.keys()
        if not is_steps and not ("224 x 224" in reason and "model.image_size" in asked):
            yield reason


def check_weights(weights: str | None, name: str) -> None:
    """Fetch the weights that a run starts from, before anything else takes time.

    Raises:
      WeightsError: they cannot be had; says where they lie, and how to do without them.
      ConfigError: no such model.
    """
    find_variant(name)
    if weights in (None, NONE):
        return
    try:
        weight_file(weights, name)
    except WeightsError as error:
        way_out = "Or start from random weights with --weights none: expect a much lower mAP."
        raise WeightsError(error.message, f"{error.hint or ''}\n{way_out}".strip()) from error


def prepare_data(found: Found, folder: Path, config: Config) -> tuple[schema.Data, tuple[str, ...]]:
    """Return the data section of a data set, and what was done to it.

    Raises:
      ConvertFailedError, SplitFailedError, DataError: it is malformed.
    """
    data = schema.Data(source="mlcls", dir=str(found.root))
    if found.form == "packed":
        return dataclasses.replace(data, source="packed"), ()
    ours, told = folder / "data", []
    if options := found.convert:
        given = dataclasses.asdict(config.check_dataset.convert)
        kept = ("enable", "source_type", "train_annotations")
        options = dataclasses.replace(
            options, **{key: value for key, value in given.items() if key not in kept}
        )
        ours.mkdir()
        if "://" in str(options.train_annotations):
            data = dataclasses.replace(data, dir=str(ours))
        conversion = convert(data, options, ours)
        where = "the images stay where they are"
        if conversion.written:
            where = f"{conversion.written:,} images are written to {ours / 'images'}"
        told += [*conversion.told, f"Its lists are in {ours}, {where}."]
        told += doubts(conversion)
        has_validation = "val" in conversion.images
    else:
        root = find_root(found.root)
        has_validation = (root / data.val_list).exists()
        if has_validation:
            ours = root
        else:  # copies of the lists are divided
            ours.mkdir()
            copy_lists(root, ours, (data.label_file, data.train_list))
    data = dataclasses.replace(data, dir=str(ours))
    if not has_validation:
        result = split(data, config.check_dataset.split, seed=config.seed)
        told.append(
            f"There is no validation list: {result.images[data.val_list]:,} images, drawn with"
            f" seed={config.seed}, are set aside for it."
        )
    return data, tuple(told)


def numbers_of(data: schema.Data) -> Numbers:
    """Count the images and labels.

    Raises:
      DataError: a list is missing or malformed; tells every fault.
    """
    train, validation = open_split(data, "train"), open_split(data, "validation")
    targets = [getattr(source, "targets", None) for source in (train, validation)]
    is_single = len(train.labels) > 1 and all(map(_has_one_each, targets))
    return Numbers(len(train), len(validation), len(train.labels), is_single)


def _has_one_each(targets: np.ndarray | None) -> bool:
    """Return whether targets [N, K] are known, and each image has exactly one label."""
    return targets is not None and bool((targets >= 0).all() and (targets.sum(1) == 1).all())


def recipe_of(name: str, kind: str) -> str:
    """Return the recipe of this kind for a model, `hgnetv2:mlcls_b4` for instance."""
    family, name = find_variant(name)
    file = family.recipes
    variant = f"{file}:{kind}{next((end for part, end in _VARIANTS.items() if part in name), '')}"
    return variant if variant in recipes.names() else f"{file}:{kind}"  # one is for all


def _finish(
    recipe: str, settings: dict[str, Any], folder: Path, wishes: Wishes, told: tuple[str, ...]
) -> NewRun:
    """Return the run without values that are the recipe's own, once all are found right."""
    usual = _values(recipe)
    _config(recipe, settings)  # refuses what is wrong
    told = (*told, f"Everything is written to {folder}.")
    kept = {key: value for key, value in settings.items() if schema.at(usual, key) != value}
    return NewRun(recipe, kept, folder, wishes.device, told)


def _values(recipe: str | None) -> Any:
    return schema.default() if recipe is None else recipes.load(recipe)


def _config(recipe: str | None, settings: Mapping[str, Any]) -> Config:
    """Return the configuration of a recipe, or of nothing but defaults, with other values.

    Raises:
      ConfigError: a key or value is wrong; tells all of them.
    """
    values = _values(recipe)
    if recipe is None:
        values.data.dir = "."  # a source without a folder is refused
    return schema.changed(values, settings)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


@contextmanager
def new_folder(output: str | None, name: str) -> Iterator[Path]:
    """Make the folder `output`, or else `runs/NAME-1`, `-2`, …; after a fault it goes again.

    In the block no other process can make the same one.

    Raises:
      WorkdirError: `output` is in use.
    """
    if output:
        folder = Path(output)
        _check_is_free(folder)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        folder = _next_free(name)
    with locked(folder, _CLAIM):
        _check_is_free(folder)  # another process may have been quicker
        with removed_after_fault(folder):
            yield folder


@contextmanager
def removed_after_fault(folder: Path) -> Iterator[None]:
    """Remove the folder of a run that does not come about, as what the block does goes wrong."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder.resolve())
        if folder.is_symlink():  # the user's, to an empty folder
            folder.resolve().mkdir()
        raise


def _check_is_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(p.name != _CLAIM for p in folder.iterdir())):
        raise WorkdirError(
            f"--output {folder}: is in use",
            f"Give a new folder. An existing run is resumed by `mlcls train {folder}`,"
            f" an existing search by `mlcls tune {folder}`.",
        )


def _next_free(name: str) -> Path:
    for number in count(1):
        folder = Path(RUNS) / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        break
    return folder
