"""`mlcls export MODEL_DIR`: a bundle as files for other runtimes."""

from pathlib import Path

from mlcls_jax import config as schema
from mlcls_jax import usage
from mlcls_jax.inference import exports
from mlcls_jax.paths import local


def run(argv: list[str]) -> str:
    """Export as the arguments say; a line a file.

    Raises:
      UserError: as `export`.
      SystemExit: the arguments are wrong, or ask for help.
    """
    defaults = schema.Export()
    parser = usage.parser(
        "export",
        "Write a bundle as files for other runtimes, each checked by its runtime.",
        "export runs/demo/best_model --format onnx --output exported",
    )
    parser.add_argument(
        "model_dir",
        metavar="MODEL_DIR",
        type=local("MODEL_DIR"),
        help="bundle, best_model for instance",
    )
    parser.add_argument(
        "--format",
        default=",".join(defaults.formats),
        help=f"some of {','.join(schema.EXPORT_FORMATS)}",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        required=True,
        type=local("--output"),
        help="folder for the files",
    )
    parser.add_argument(
        "--images",
        type=local("--images"),
        help="image or folder to compare scores on; None: parts of two photographs",
    )
    args = parser.parse_args(argv)
    formats = [name.strip() for name in args.format.split(",")]
    output = Path(args.output)
    exported = exports.export(Path(args.model_dir), output, formats, args.images)
    lines = [f"{output / 'bundle'}: the bundle itself"]
    lines += [
        f"{file.path}: {file.bytes / 1e6:,.1f} MB,"
        f" scores differ from those of JAX by {file.largest_difference:.1g} at most"
        for file in exported.values()
    ]
    return "\n".join(lines)
