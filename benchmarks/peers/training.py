"""The form of a peer's training run: by our configuration, with the results that ours leaves."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlcls_jax import config as schema
from mlcls_jax.yaml_config import get_config


def main(train: Callable[[schema.Config, Path], None], about: str | None) -> None:
    """Train as --config says in the new folder --workdir; `about` is the module's docstring."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", required=True, type=Path)
    arguments = parser.parse_args()
    config = schema.parse(get_config(arguments.config))
    arguments.workdir.mkdir(parents=True)
    train(config, arguments.workdir)


def write(workdir: Path, rows: list[dict[str, Any]], images_per_s: float) -> None:
    """Write `metrics.jsonl` and `train_result.json`, as far as they are compared."""
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (workdir / "metrics.jsonl").write_text(lines, encoding="utf-8")
    speed = json.dumps({"images_per_s": images_per_s})
    (workdir / "train_result.json").write_text(speed + "\n", encoding="utf-8")
