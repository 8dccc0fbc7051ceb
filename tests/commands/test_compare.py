"""`mlcls compare`: tables of runs from the files that they wrote."""

import json
from pathlib import Path

import numpy as np
import pytest

from mlcls_jax import config as schema
from mlcls_jax.commands.compare import run
from mlcls_jax.errors import WorkdirError
from mlcls_jax.reports.decisions_file import (
    differences,
    label_intervals,
    read_decisions,
    write_decisions,
)
from mlcls_jax.reports.mistakes import Decisions
from mlcls_jax.workdir import CONFIG_FILE
from tests.helpers.bundles import write_images, write_small
from tests.helpers.page import Page
from tests.helpers.studio import LABELS, write_dataset


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


def test_a_page_of_runs_that_were_not_evaluated_has_no_empty_table_of_labels(tmp_path):
    runs = [write_run(tmp_path / name, score=0.5) for name in "ab"]
    page = Page(read(run(runs)))
    assert "Labels are not known" in page.text and "All labels" not in page.text
    assert "script" not in [tag for tag, _ in page.tags]


def test_a_run_alone_is_held_against_nothing(tmp_path):
    one = write_run(tmp_path / "a", score=0.5, by_label={"cat": 0.5, "dog": 0.25})
    page = Page(read(run([one])))
    assert "cat0.5000" in page.text and "All labels" in page.text
    assert not any(word in page.text for word in ("differ", "change", "rose", "held against"))


def test_runs_that_were_judged_on_other_images_or_labels_say_so(tmp_path):
    runs = [Path(write_run(tmp_path / name, score=0.5)) for name in "abcde"]
    same = {"images": 3, "images listed": "x", "targets": "y"}
    others = [same, {"groups": "g"}, {"images listed": "z", "targets": "z"}, {"targets": "z"}]
    for folder, facts in zip(runs, others, strict=False):
        (folder / "data.json").write_text(json.dumps({"validation": same | facts}))
    [row] = [line for line in run([*map(str, runs)]).splitlines() if "validated on" in line]
    told = "3 images  3 images  3 other images  3 images, with other labels  -"
    assert " ".join(row.split()[2:]) == " ".join(told.split())


def test_labels_are_listed_from_the_best_change_to_the_worst(tmp_path):
    old = {"cat": 0.5, "dog": 0.5, "sun": 0.5, "ape": None, "old": 0.1}
    new = {"cat": 0.25, "dog": 0.75, "sun": 0.5, "ape": 0.3, "new": 0.2}
    first = write_run(tmp_path / "a", score=0.5, by_label=old)
    text = run([first, write_run(tmp_path / "b", score=0.5, by_label=new)])
    changes = [line.split() for line in text.splitlines() if line.endswith(("+0.2500", "-0.2500"))]
    assert [row[0] for row in changes] == ["dog", "cat"] and "sun" not in text
    assert "\n3 labels are known to one of the two only.\n" in text


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(WorkdirError, match="is no run"):
        run([str(tmp_path)])


def test_a_page_has_curves_intervals_labels_and_the_images_on_which_they_differ(tmp_path):
    old, new = {"<b>cat": 0.5, "dog": 0.5, "ape": None}, {"<b>cat": 0.75, "dog": 0.25, "ape": 0.1}
    runs = [
        write_run(tmp_path / "a", score=0.5, by_label=old),
        write_run(tmp_path / "b", score=0.75, by_label=new),
    ]
    assert "Not known" in Page(read(run([*runs, "--output", str(tmp_path / "p.html")]))).text
    judged = json.loads((tmp_path / "b" / "evaluate_result.json").read_text())
    judged["intervals"] = {"MultiLabelMAP": [0.7, 0.8]}
    (tmp_path / "b" / "evaluate_result.json").write_text(json.dumps(judged))
    with (tmp_path / "b" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 0.5, "loss": 1.5}\n{"epoch": 1.5, "loss": NaN}\n{"epoch": 2, "lo')
    (path,) = write_images(tmp_path / "images", 1)
    names = [str(path), "board_1", "board_2", "board_3"]
    truth = np.array([[1, 0, -1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    said = {"a": [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1]], "b": [[1, 0, 1]] + [[1, 1, 0]] * 3}
    for name, reported in said.items():
        decisions = Decisions(np.float32(reported), truth, np.full(3, 0.5, np.float32))
        rows = slice(None) if name == "a" else slice(None, 3)
        of_run = Decisions(decisions.scores[rows], truth[rows], decisions.threshold)
        write_decisions(tmp_path / name / "evaluate", of_run, names[rows], [*old])
    kept = [read_decisions(tmp_path / name / "evaluate") for name in said]
    assert (kept[0].reported == said["a"]).all() and (kept[0].known == (truth >= 0)).all()
    found = differences(*kept)
    assert [(d.image, d.gain) for d in found] == [(names[0], 1), (names[1], -1), (names[2], -1)]
    assert (found[0].present, found[0].first, found[0].last) == (["<b>cat"], [], ["<b>cat", "ape"])

    # A label's change is uncertain: of each draw of the three images, that of both runs.
    intervals, mean = label_intervals(*kept)
    assert [*intervals] == ["<b>cat", "ape", "dog"] and np.isnan(intervals["ape"]).all()
    low, high = intervals["<b>cat"]
    assert low < high and mean[0] < mean[1]
    kept[0] = kept[0]._replace(scores=None)
    assert label_intervals(*kept) is None

    page = Page(read(told := run(runs)))
    assert f"{low:+.4f} … {high:+.4f}" in page.text and "The mean of all labels changes" in told
    assert "0.7000 … 0.8000" in page.text and "3 images, of which 1" in page.text
    assert len(page.images) == 1 and page.images[0].startswith("data:image/jpeg")
    assert sum(tag == "polyline" for tag, _ in page.tags) == 3  # one loss, two metrics
    labels = [cell for cell in page.cells if cell in old]
    assert labels[-3:] == ["<b>cat", "dog", "ape"]
    assert "+0.2500" in page.cells and "-0.2500" in page.cells

    # An evaluation whose images are not known leaves no earlier one's decisions beside its metrics.
    write_decisions(tmp_path / "b" / "evaluate", of_run, None, [*old])
    assert "Not known" in Page(read(run(runs))).text


@pytest.mark.slow
def test_bundles_are_evaluated_on_the_data_that_is_given_and_timed(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = write_dataset(tmp_path / "data", val=7)
    bundles = [
        str(write_small(tmp_path / name, "Toy_ML", labels=LABELS, size=(64, 96), threshold=limit))
        for name, limit in (("one", 0.5), ("two", 0.0))
    ]
    rows = rows_of(told := run([*bundles, "--data", str(data)]))
    assert rows["model"] == ["Toy_ML", "Toy_ML"] and len(rows["MultiLabelMAP"]) == 2
    assert any(name.startswith("ms/image") for name in rows)
    page = Page(read(told))
    assert " … " in page.text and "Not known" not in page.text
    # A run's own bundle is that run.
    place = Path(write_run(tmp_path / "run", score=0.5))
    (place / "best_model").mkdir()
    (place / "best_model" / "inference.json").write_text("{}")
    assert rows_of(run([str(place / "best_model")]))["MultiLabelMAP"] == ["0.5000"]


def read(told):
    """The page that the command has written."""
    path = Path(told.rpartition("page  ")[2])
    assert path.name in ("compare.html", "p.html")
    return path.read_text()
