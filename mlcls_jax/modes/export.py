"""mode=export: a bundle as files for other runtimes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcls_jax import config as schema
from mlcls_jax.inference import exports
from mlcls_jax.inference.bundle import model_folder


@dataclass(frozen=True)
class ExportResult:
    """The files that were written, by format."""

    model_dir: Path
    output: Path
    files: dict[str, exports.Exported]

    def to_json(self) -> dict[str, Any]:
        """Return the content of `export_result.json`."""
        return {
            "model_dir": str(self.model_dir),
            "output": str(self.output),
            "files": {
                name: file._asdict() | {"path": str(file.path)} for name, file in self.files.items()
            },
        }

    def summary(self, config: schema.Config, workdir: Path, command: str) -> list[str]:
        """Return each file with its size and the largest change of a score."""
        lines = [
            f"  {file.path}  {file.bytes / 1e6:,.1f} MB, scores within "
            f"{file.largest_difference:.1g} of JAX's"
            for file in self.files.values()
        ]
        return [
            *lines,
            f"and the bundle, in {self.output}; docs/export.md says how each is loaded",
        ]


def export(config: schema.Config, workdir: Path) -> ExportResult:
    """Export `export.model_dir`, or the best model of the workdir, in `export.formats`.

    Raises:
      WeightsError: the bundle is missing or damaged.
      InputError: there is no image at `export.images`.
      UserError: a format's runtime is not installed, or its scores are not JAX's.
    """
    options = config.export
    model_dir = model_folder(options.model_dir or workdir / "best_model")
    output = Path(options.output or workdir / "export")
    return ExportResult(
        model_dir, output, exports.export(model_dir, output, options.formats, options.images)
    )
