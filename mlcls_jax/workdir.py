"""The working directory of a run: whose it is, and what is in it."""

import os
from pathlib import Path
from typing import Any

import yaml

from mlcls_jax import files
from mlcls_jax.config import Config, flattened, to_dict, to_yaml
from mlcls_jax.data.fingerprint import data_differences
from mlcls_jax.errors import WorkdirError

CONFIG_FILE = "config.yaml"
DATA_FILE = "data.json"
CHECKPOINTS = "checkpoints"
BEST_MODEL = "best_model"
FEATURES = "features"  # of data.feature_views
LAST_MODEL = "last_model"  # where no evaluation could tell which is the best
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.png"  # the first validation images
EVALUATION = "evaluate_result.json"
AVERAGED = "average_result.json"  # what `mlcls average` found

# What may change when a run goes on: it does not touch the training. A dot ends a section's name.
FREE = frozenset((
    "mode", "predict.", "export.", "thresholds.", "check_dataset.", "log.", "profile.",
    "parallel.", "evaluate.model_dir", "evaluate.batch_size", "evaluate.report",
    "evaluate.thresholds",
    "data.threads", "data.workers", "data.prefetch", "data.on_error", "train.resume",
    "train.patience", "train.save_epochs", "train.save_steps", "train.keep_checkpoints",
    "train.keep_epochs", "train.log_steps", "train.nonfinite", "train.max_nonfinite",
    "train.time_limit", "train.compile_cache", "train.fit_thresholds", "model.initial",
    "loss.auto",
))  # fmt: skip

# Where the data lie may change as long as they stay the same; see `describe_data`.
PLACES = frozenset(("data.dir", "data.train_list", "data.val_list", "data.label_file"))

HINT = "Choose another --workdir."


def open_workdir(workdir: Path, hint: str = HINT) -> None:
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
        raise WorkdirError(f"{workdir}: cannot be written to: {error.strerror}", hint) from error


def epoch_model(epoch: int) -> str:
    """Return the name of an epoch's bundle; `paths.kept_epoch` understands it."""
    return f"epoch_{epoch}"


def saved_step(workdir: Path) -> int | None:
    """The step of the newest checkpoint on disk; None if there is none."""
    return max(
        (int(path.name) for path in (workdir / CHECKPOINTS).glob("*") if path.name.isdecimal()),
        default=None,
    )


def check_owner(workdir: Path, config: Config, data: dict[str, Any] | None = None) -> None:
    """See that the workdir is new, or of a run with the same configuration and the same data.

    A run that saved nothing lets go of it.

    Args:
      data: what describes the data now, if that is known yet; see `check_data`.

    Raises:
      WorkdirError: it belongs to another run; names the differing keys, or what has changed.
    """
    if config.mode == "train" and (workdir / AVERAGED).exists():
        raise WorkdirError(
            f"{workdir}: has the average of several runs, which training would replace",
            _way_on(workdir, "name one of those runs"),
        )
    path = workdir / CONFIG_FILE
    if not path.exists():
        return
    before = _read_mapping(path)
    is_ours = {"mode", "model", "train"} <= before.keys()  # never let go of a stranger's file
    if is_ours and not _holds_anything(workdir):
        return
    known = _read_mapping(workdir / DATA_FILE) if (workdir / DATA_FILE).exists() else None
    differences = _differences(before, to_dict(config), PLACES if known else frozenset())
    if differences:
        raise WorkdirError(
            f"{workdir}: belongs to a run of another configuration:\n" + "\n".join(differences),
            _way_on(workdir, "go back to these values"),
        )
    if known and data:
        check_data(workdir, known, data)


def check_data(workdir: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """See that a run goes on with the same labels, lists and preprocessing.

    Both are `describe_data`'s, and under "preprocessing" what makes the network's input of them.

    Raises:
      WorkdirError: tells what has changed.
    """
    lines = data_differences(before, now)
    old, new = (flattened(facts.get("preprocessing", {})) for facts in (before, now))
    lines += [
        f"preprocessing, {key}: was {old[key]}, now {new.get(key)}"
        for key in old
        if old[key] != new.get(key)
    ]
    if lines:
        told = "\n".join(f"  {line}" for line in lines)
        raise WorkdirError(
            f"{workdir}: belongs to a run on other data:\n{told}",
            _way_on(workdir, "put the data back"),
        )


def claim(workdir: Path, config: Config, data: dict[str, Any] | None = None) -> None:
    """Make the workdir this run's, by writing its configuration and data; see `check_owner`."""
    check_owner(workdir, config, data)
    files.write_text(workdir / CONFIG_FILE, to_yaml(config))
    if data:
        files.write_json(workdir / DATA_FILE, data)


def stored_section(workdir: Path, name: str) -> dict[str, Any] | None:
    """Return a section of the configuration of the run that has saved something in the workdir."""
    path = workdir / CONFIG_FILE
    if not path.exists() or not _holds_anything(workdir):
        return None
    section = _read_mapping(path).get(name)
    return section if isinstance(section, dict) else None


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(files.regular(path).read_text(encoding="utf-8"))  # JSON is YAML
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise WorkdirError(f"{path}: cannot be read: {error}", HINT) from error
    if not isinstance(values, dict):
        kind = "a configuration" if path.name == CONFIG_FILE else "a description of data"
        raise WorkdirError(f"{path}: is not {kind}", HINT)
    return values


def _holds_anything(workdir: Path) -> bool:
    """Return whether a run saved a checkpoint, damaged ones included, or a bundle."""
    kept = (path.name.split(".damaged")[0] for path in (workdir / CHECKPOINTS).glob("*"))
    bundles = (BEST_MODEL, f"{BEST_MODEL}.old", LAST_MODEL)
    return any(name.isdecimal() for name in kept) or any((workdir / b).exists() for b in bundles)


def _way_on(workdir: Path, way_back: str) -> str:
    best = workdir / BEST_MODEL
    if not best.exists():
        return f"Choose another --workdir, or {way_back}."
    return (
        f"To train its model further, choose another --workdir and --config.model.weights={best}."
        f" To go on with this run, {way_back}."
    )


def _differences(before: dict[str, Any], now: dict[str, Any], free: frozenset[str]) -> list[str]:
    old = flattened(to_dict(Config())) | flattened(before)
    return [
        f"  {key}: was {old.get(key)}, now {value}"
        for key, value in flattened(now).items()
        if not (is_free(key) or key in free) and old.get(key) != value
    ]


def is_free(key: str) -> bool:
    """Return whether an option may change when a run goes on."""
    return key in FREE or f"{key.partition('.')[0]}." in FREE
