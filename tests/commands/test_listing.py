"""What `mlcls predict` prints, and how much a command says."""

import csv
import json
import logging

import numpy as np
import pytest

from mlcls_jax import usage
from mlcls_jax.bars import is_quiet
from mlcls_jax.commands.listing import print_results
from mlcls_jax.errors import DataError
from mlcls_jax.inference.results import Result
from mlcls_jax.start import start_console

LABELS = ("cat", "dog, brown", "été")


def results():
    for path, scores in (("a.jpg", [0.25, 0.75, 0.5]), ("bb.jpg", [0.0, 0.0, 0.0])):
        yield Result.from_scores(
            np.float32(scores), labels=LABELS, threshold=0.4, input_path=path, image=None
        )
    yield Result.of_error(DataError("c.tif: is broken"), "c.tif", page_index=2)


def printed(capsys, form):
    print_results(results(), form, width=6)
    return capsys.readouterr().out


def test_a_table_has_a_line_an_image(capsys):
    assert printed(capsys, "table").splitlines() == [
        "a.jpg   dog, brown 0.750, été 0.500",
        "bb.jpg  no label above the threshold",
        "c.tif, page 2  error: c.tif: is broken",
    ]


def test_json_lines_are_what_json_has(capsys):
    lines = [json.loads(line) for line in printed(capsys, "jsonl").splitlines()]
    assert lines == [result.json["res"] for result in results()]
    assert lines[2]["error"] == "c.tif: is broken"


def test_csv_has_a_row_a_label(capsys):
    rows = list(csv.DictReader(printed(capsys, "csv").splitlines()))
    found = [(row["image"], row["label"], row["score"], row["error"]) for row in rows]
    assert found == [
        ("a.jpg", "dog, brown", "0.75", ""),
        ("a.jpg", "été", "0.5", ""),
        ("bb.jpg", "", "", ""),
        ("c.tif", "", "", "c.tif: is broken"),
    ]
    assert rows[3]["page"] == "2"


@pytest.mark.parametrize(
    ("line", "level"),
    [("train a", logging.INFO), ("--quiet train a", logging.WARNING),
     ("train a --verbose", logging.DEBUG)],
)  # fmt: skip
def test_every_command_may_be_quiet_or_verbose(line, level):
    assert usage.verbosity(line.split()) == (["train", "a"], level)


def test_what_was_asked_for_stays_when_a_run_opens_its_log(capsys):
    log = logging.getLogger("mlcls_jax.any")
    try:
        start_console(logging.WARNING)
        start_console()
        log.info("at work"), log.warning("odd")
        assert is_quiet() and capsys.readouterr().err == "warning: odd\n"
    finally:
        start_console(logging.INFO)
    log.info("at work")
    assert not is_quiet() and capsys.readouterr().err == "at work\n"
