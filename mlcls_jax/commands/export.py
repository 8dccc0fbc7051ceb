"""`mlcls export MODEL_DIR`: a bundle as files for other runtimes."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mlcls_jax import usage
from mlcls_jax.config import EXPORT_FORMATS, REQUIRED, Export, option
from mlcls_jax.errors import install_hint


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a bundle as files for other runtimes, each checked by its runtime."""

    model_dir: str = option(
        REQUIRED, "bundle, run, or hf://owner/name", path="model", positional=True
    )
    format: str | None = option(
        None,
        f"some of {','.join(EXPORT_FORMATS)}; None: {','.join(Export.formats)}, the latter"
        " if the extra onnx is installed",
    )
    output: str = option(REQUIRED, "folder for the files", path="local", metavar="DIR")
    images: str | None = option(
        None, "image or folder to compare scores on; None: parts of two photographs", path="local"
    )


def run(argv: list[str]) -> str:
    """Export as the arguments say, and return a line per file."""
    args = usage.arguments(
        Arguments, argv, "export runs/demo/best_model --format onnx --output exported"
    )
    told = []
    formats = (
        [name.strip() for name in args.format.split(",")] if args.format else [*Export.formats]
    )
    if not args.format and not find_spec("onnx"):
        formats.remove("onnx")
        told.append(f"No ONNX file without its package. {install_hint('onnx')}")
    output = Path(args.output)
    from mlcls_jax.inference import exports  # imports JAX, which a help does without

    exported = exports.export(args.model_dir, output, formats, args.images)
    lines = [f"{output / 'bundle'}: the bundle itself"]
    lines += [
        f"{file.path}: {file.bytes / 1e6:,.1f} MB,"
        f" scores differ from those of JAX by {file.largest_difference:.1g} at most"
        for file in exported.values()
    ]
    return "\n".join([*lines, *told])
