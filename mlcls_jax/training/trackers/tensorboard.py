"""TensorBoard's events, in `tensorboard/` of the workdir, with the configuration as text."""

from pathlib import Path

import yaml
from tensorboardX import SummaryWriter

from mlcls_jax.config import Config, to_dict


class Events:
    """The events of a run."""

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def open_run(workdir: Path, config: Config, start_step: int) -> Events:
    """Open the events; purging hides what a killed run had written after its last checkpoint."""
    writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=start_step + 1)
    text = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()), start_step)
    return Events(writer)
