"""`mlcls compare`: tables of runs from the files that they wrote."""

import json

import pytest

from mlcls_jax import config as schema
from mlcls_jax.commands.compare import run
from mlcls_jax.errors import WorkdirError
from mlcls_jax.workdir import CONFIG_FILE


def write_run(folder, *, score=None, by_label=None):
    """Write what a run leaves behind, as far as the command reads it."""
    folder.mkdir()
    config = schema.default()
    config.data.source = "digits"
    (folder / CONFIG_FILE).write_text(schema.to_yaml(schema.parse(config)))
    if score is not None:
        result = {"best_epoch": 2, "best_weights": "ema", "epochs": 3, "seconds": 12.34}
        (folder / "train_result.json").write_text(json.dumps(result))
        lines = [{"epoch": n, "step": n, "ema/MultiLabelMAP": score * n / 2} for n in (1, 2)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines))
    if by_label:
        judged = {"MultiLabelMAP": score, "average_precision": by_label}
        (folder / "evaluate_result.json").write_text(json.dumps(judged))
    return str(folder)


def rows_of(text):
    return {line[:16].strip(): line[16:].split() for line in text.splitlines() if line}


def test_metrics_stand_side_by_side_and_an_unfinished_run_has_none(tmp_path):
    done = write_run(tmp_path / "a", score=0.5)
    rows = rows_of(run([done, write_run(tmp_path / "b")]))
    assert rows["MultiLabelMAP"] == ["0.5000", "-"]
    assert rows["best epoch"] == ["2", "-"] and rows["seconds"] == ["12.3", "-"]


def test_labels_are_listed_from_the_best_change_to_the_worst(tmp_path):
    old = {"cat": 0.5, "dog": 0.5, "sun": 0.5, "ape": None, "old": 0.1}
    new = {"cat": 0.25, "dog": 0.75, "sun": 0.5, "ape": 0.3, "new": 0.2}
    first = write_run(tmp_path / "a", score=0.5, by_label=old)
    text = run([first, write_run(tmp_path / "b", score=0.5, by_label=new)])
    changes = [line.split() for line in text.splitlines() if line.endswith(("+0.2500", "-0.2500"))]
    assert [row[0] for row in changes] == ["dog", "cat"] and "sun" not in text
    assert text.endswith("3 labels are known to one of the two only.")


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(WorkdirError, match="is no run"):
        run([str(tmp_path)])
