"""The working directory of a run: whose it is, and what is in it."""

import os
from pathlib import Path
from typing import Any

import yaml

from mlcls_jax import files
from mlcls_jax.config import Config, to_dict, to_yaml
from mlcls_jax.errors import WorkdirError

CONFIG_FILE = "config.yaml"
CHECKPOINTS = "checkpoints"

# What may change when a run goes on: it does not touch the training. A dot ends a section's name.
FREE = frozenset((
    "mode", "predict.", "export.", "thresholds.", "check_dataset.", "log.", "profile.",
    "parallel.", "evaluate.model_dir", "evaluate.batch_size", "evaluate.report",
    "evaluate.thresholds",
    "data.threads", "data.workers", "data.prefetch", "data.on_error", "train.resume",
    "train.save_epochs", "train.save_steps", "train.keep_checkpoints", "train.log_steps",
    "train.nonfinite", "train.max_nonfinite", "train.time_limit", "train.compile_cache",
))  # fmt: skip

HINT = "Choose another --workdir."


def open_workdir(workdir: Path) -> None:
    """Make the folder if need be.

    Raises:
      WorkdirError: it cannot be made or written to.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".write_test_{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise WorkdirError(f"{workdir}: cannot be written to: {error.strerror}", HINT) from error


def saved_step(workdir: Path) -> int | None:
    """The step of the newest checkpoint on disk; None if there is none."""
    return max(
        (int(path.name) for path in (workdir / CHECKPOINTS).glob("*") if path.name.isdecimal()),
        default=None,
    )


def check_owner(workdir: Path, config: Config) -> None:
    """See that the workdir is new, or of a run with the same configuration.

    Raises:
      WorkdirError: it belongs to a run of another configuration; names the differing keys.
    """
    path = workdir / CONFIG_FILE
    if not path.exists():
        return
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise WorkdirError(f"{path}: cannot be read: {error}", HINT) from error
    if not isinstance(before, dict):
        raise WorkdirError(f"{path}: is not a configuration", HINT)
    if differences := _differences(before, to_dict(config)):
        raise WorkdirError(
            f"{workdir}: belongs to a run of another configuration:\n" + "\n".join(differences),
            "Choose another --workdir, or go back to these values.",
        )


def claim(workdir: Path, config: Config) -> None:
    """Make the workdir this run's, by writing its configuration; see `check_owner`."""
    check_owner(workdir, config)
    files.write_text(workdir / CONFIG_FILE, to_yaml(config))


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    old = _flatten(to_dict(Config())) | _flatten(before)
    return [
        f"  {key}: was {old.get(key)}, now {value}"
        for key, value in _flatten(now).items()
        if not _is_free(key) and old.get(key) != value
    ]


def _is_free(key: str) -> bool:
    return key in FREE or f"{key.partition('.')[0]}." in FREE


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
