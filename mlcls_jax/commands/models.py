"""`mlcls models [PATTERN]`: the available models with their sizes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlcls_jax import usage
from mlcls_jax.config import add_arguments, from_arguments, option
from mlcls_jax.errors import ConfigError, nearest
from mlcls_jax.readable import table

if TYPE_CHECKING:  # imports JAX, which a help does without
    from mlcls_jax.models.counting import Summary
    from mlcls_jax.models.published import Source

TITLE = (
    "Models for 80 labels. GMACs: 10^9 multiply-accumulates of one image, which Paddle's"
    " papers call FLOPs. Weights: words of model.weights, which `mlcls weights` explains."
)
COLUMNS = ("name", "weights", "licence", "parameters", "GMACs", "feature map", "resolution")


@dataclass(frozen=True)
class Arguments:
    """The arguments."""

    pattern: str = option("*", "of names, such as 'PP-LCNet*_ML'", positional=True)


def run(argv: list[str]) -> str:
    """Return the table of the models that the arguments name."""
    parser = usage.parser("models", TITLE, "models 'PP-LCNet*_ML'")
    add_arguments(parser, Arguments)
    return list_models(from_arguments(Arguments, parser.parse_args(argv)).pattern)


def list_models(pattern: str = "*") -> str:
    """Return the table of models whose name matches a shell pattern, such as `PP-LCNet*_ML`.

    Raises:
      ConfigError: none does; names the pattern.
    """
    import jax

    from mlcls_jax.models import counting, registry
    from mlcls_jax.models.weights.sources import sources

    names = registry.list_models(pattern)
    if not names:
        close = nearest(pattern, registry.list_models())
        hint = f"Did you mean {close}?" if close else "A pattern looks like 'PP-LCNet*_ML'."
        raise ConfigError(f"no model matches {pattern!r}", hint)
    jax.config.update("jax_platforms", "cpu")  # shapes need no accelerator
    stored = counting.stored()
    rows = [_row(stored.get(n) or counting.summarize(n), sources(n)) for n in names]
    return "\n".join([TITLE, "", *table([COLUMNS, *rows], to_left=3)])


def _row(summary: "Summary", published: "tuple[Source, ...]") -> tuple[str, ...]:
    size = summary["image_size"]
    return (
        summary["name"],
        ", ".join(source.word for source in published) or "–",
        ", ".join(dict.fromkeys(source.licence for source in published)) or "–",
        f"{summary['parameters']:,}",
        f"{summary['gmacs']:.3f}",
        " x ".join(map(str, summary["feature_map"])),
        f"{size} x {size}",
    )
