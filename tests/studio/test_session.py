"""Labels that several windows mend, and the lists that are written of them."""

from contextlib import closing

import pytest

from mlcls_jax.config import Data
from mlcls_jax.data.checks import check
from mlcls_jax.errors import DataError
from mlcls_jax.studio.changes import ChangeLog
from mlcls_jax.studio.dataset import UNLISTED, read_dataset
from mlcls_jax.studio.session import Cell, Session
from tests.helpers.studio import write_dataset


@pytest.fixture
def folder(tmp_path):
    return write_dataset(tmp_path / "data")


@pytest.fixture
def start(folder):
    """Starts a session anew, as after an end of the process."""
    logs = []

    def start():
        logs.append(ChangeLog(folder / "studio" / "changes.jsonl"))
        return Session(read_dataset(Data(dir=str(folder))), logs[-1])

    yield start
    for log in logs:
        log.close()


def test_two_windows_never_lose_each_others_changes(start):
    session = start()
    assert session.change("a", [Cell(0, 1, 0, 1)])["conflicts"] == []
    # The other still takes it for absent: its own change is refused, and its other ones count.
    answer = session.change("b", [Cell(0, 1, 0, -1), Cell(0, 2, 0, 1), Cell(1, 1, 1, 1)])
    assert answer == {"revision": 2, "conflicts": [(0, 1, 1)], "implied": []}
    assert session.targets[0].tolist() == [1, 1, 1, 0, 0]
    assert session.since(0) == {
        "revision": 2, "cells": [(0, 1, 1), (0, 2, 1)], "changed": 1,
    }  # fmt: skip
    assert session.since(1)["cells"] == [(0, 2, 1)]
    assert session.since(2)["cells"] == []
    assert session.since(-1) == session.since(99) == session.since(0)
    assert (start().targets == session.targets).all()
    # The same label twice in one request: the second is held against the first.
    answer = session.change("a", [Cell(3, 0, 0, 1), Cell(3, 0, 0, -1), Cell(3, 0, 1, -1)])
    assert answer["conflicts"] == [(3, 0, 1)] and session.targets[3, 0] == -1


def test_a_label_takes_those_along_that_it_implies_or_excludes(folder, start):
    text = (folder / "label.txt").read_text()
    text = text.replace("4 tree", "4 tree\tparent=dog\tgroup=a").replace("0 cat", "0 cat\tgroup=a")
    (folder / "label.txt").write_text(text)
    session = start()
    before = session.targets.copy()
    answer = session.change("a", [Cell(0, 4, 0, 1), Cell(1, 4, 1, 1)], follows=True)
    assert answer["conflicts"] == [(1, 4, 0)]
    assert answer["implied"] == [(0, 1, 0, 1), (0, 0, 1, 0)]
    assert session.targets[0].tolist() == [0, 1, 0, 0, 1]
    # What undoes it names all of them, and nothing follows.
    cells = [Cell(*cell) for cell in ((0, 0, 0, 1), (0, 1, 1, 0), (0, 4, 1, 0))]
    assert session.change("a", cells) == {"revision": 6, "conflicts": [], "implied": []}
    assert (session.targets == before).all()


def test_an_image_in_several_lines_has_the_same_labels_in_all(folder, start):
    with (folder / "val.txt").open("a") as file:
        file.write("images/00000.png\t0,0,0,0,-1\n")
    session = start()
    session.change("a", [Cell(7, 3, 0, 1)])
    assert session.targets[[0, 7]].tolist() == [[1, 0, 0, 1, 0], [0, 0, 0, 1, -1]]
    assert session.since(0)["cells"] == [(0, 3, 1), (7, 3, 1)]
    assert session.write("a") == {"train.txt": "train.txt.bak", "val.txt": "val.txt.bak"}
    assert "images/00000.png\t0,0,0,1,-1\n" in (folder / "val.txt").read_text()


def test_written_lists_differ_in_the_lines_of_changed_images_alone(folder, start):
    original = (folder / "train.txt").read_bytes()
    lines = [line.replace(b",", b" , ") for line in original.splitlines()]
    before = b"\xef\xbb\xbf" + lines[0] + b"\r\n\r\n" + b"\r".join(lines[1:])  # mixed; no last end
    (folder / "train.txt").write_bytes(before)
    session = start()
    assert session.write("a") == {}
    session.change("a", [Cell(2, 0, 0, -1), Cell(5, 0, 1, 0), Cell(3, 1, 0, 1)])
    session.change("a", [Cell(3, 1, 1, 0)])  # undone
    assert session.num_changed == 3
    assert session.write("a") == {"train.txt": "train.txt.bak"}
    assert (folder / "train.txt.bak").read_bytes() == before
    after = (folder / "train.txt").read_bytes().split(b"\r")
    wanted = before.split(b"\r")
    for i, values in ((3, b"-1,0,1,0,0"), (6, b"0,0,0,0,0")):
        wanted[i] = wanted[i].partition(b"\t")[0] + b"\t" + values
    assert after == wanted
    assert session.num_changed == 0 and session.write("a") == {}
    assert check(folder, Data(), pixels=False, threads=1).passed
    # What somebody writes by hand afterwards is not taken back by the log.
    (folder / "train.txt").write_bytes(original)
    assert start().targets[5].tolist() == [1, 0, 0, 0, 0]


def test_what_others_wrote_into_a_list_meanwhile_stays(folder, start):
    session = start()
    session.change("a", [Cell(4, 0, 0, 1)])
    text = (folder / "train.txt").read_text()
    (folder / "train.txt").write_text("images/00007.png\t1,1,1,1,1\n" + text)
    session.write("a")
    lines = (folder / "train.txt").read_text().splitlines()
    assert lines[0] == "images/00007.png\t1,1,1,1,1"
    assert lines[5] == "images/00004.png\t1,0,0,0,1"
    session.change("a", [Cell(4, 0, 1, 0)])
    (folder / "train.txt").write_bytes(b"images/\xff.png\t1,1,1,1,1\n")
    with pytest.raises(DataError, match=r"train.txt:1.*UTF-8"):
        session.write("a")
    assert session.num_changed == 1


def test_faulty_lines_are_left_out_and_stay_in_the_file(folder, start):
    with (folder / "train.txt").open("a") as file:
        file.write("images/00007.png 1,2\nnonsense\n")
    session = start()
    assert len(session.dataset) == 7
    assert [fault.place for fault in session.dataset.faults] == ["train.txt:7", "train.txt:8"]
    session.change("a", [Cell(0, 1, 0, 1)])
    session.write("a")
    assert (folder / "train.txt").read_text().endswith("images/00007.png 1,2\nnonsense\n")


def test_a_data_set_without_images_is_refused(folder):
    for name in ("train.txt", "val.txt"):
        (folder / name).unlink()
    with pytest.raises(DataError, match="no list names an image"):
        read_dataset(Data(dir=str(folder)))


def test_a_change_of_a_label_that_is_gone_is_kept_in_the_log(folder, start):
    session = start()
    session.change("a", [Cell(0, 4, 0, 1), Cell(0, 1, 0, 1)])
    label_file = folder / "label.txt"
    label_file.write_text(label_file.read_text().replace("4 tree", "4 bush"))
    session = start()
    assert session.targets[0].tolist() == [1, 1, 0, 0, 0]
    assert session.since(0)["cells"] == [(0, 1, 1)]
    with closing(ChangeLog(session.log.path)) as log:
        assert len(log.entries) == 2


def test_images_that_no_list_names_are_added_to_the_training_list_once_they_have_labels(
    folder, start
):
    for name in ("new.png", "other.png", "no\tlist can.png", "name\udcff.png", "these.png .png"):
        (folder / "images" / name).write_bytes((folder / "0.png").read_bytes())
    config = Data(dir=str(folder))
    session = start()
    assert len(session.dataset) == 7
    session = Session(read_dataset(config, unlisted=True), session.log)
    assert session.dataset.images[7:] == [
        "images/new.png", "images/other.png", "images/these.png .png",
    ]  # fmt: skip
    assert session.dataset.lists[-1] == UNLISTED and (session.targets[7:] == -1).all()
    session.change("a", [Cell(7, 2, -1, 1), Cell(7, 0, -1, 0), Cell(0, 1, 0, 1)])
    before = (folder / "train.txt").read_text().splitlines()
    assert session.write("a") == {"train.txt": "train.txt.bak"}
    after = (folder / "train.txt").read_text().splitlines()
    assert after[1:-1] == before[1:] and after[-1] == "images/new.png\t0,-1,1,-1,-1"
    session.change("a", [Cell(7, 3, -1, 1)])
    session.write("a")
    assert (folder / "train.txt").read_text().splitlines()[-1] == "images/new.png\t0,-1,1,1,-1"
    assert len(read_dataset(config)) == 8
