"""The log of changes: nothing that was confirmed is lost, whatever happens to the file."""

import json
import os

import pytest

from mlcls_jax.errors import UserError
from mlcls_jax.studio.changes import Change, ChangeLog, Written


def change(i, old=0, new=1):
    return Change("2026-01-01T00:00:00.000+00:00", "w", f"images/{i}\udcff.png", "cat", old, new)


def test_a_log_gives_back_what_it_was_given(tmp_path):
    log = ChangeLog(tmp_path / "new" / "log")
    entries = [change(0), Written("t", "w", {"train.txt": "train.txt.bak"}), change(1), change(0)]
    log.append(entries[:1])
    log.append(entries[1:])
    log.close()
    again = ChangeLog(log.path)
    assert again.entries == log.entries == entries
    assert again.pending() == [change(1), change(0)]
    assert again.history(change(0).image) == [change(0), change(0)]
    again.close()


def test_a_line_that_is_cut_anywhere_is_passed_over_and_the_next_one_is_whole(tmp_path):
    path = tmp_path / "log"
    log = ChangeLog(path)
    log.append([change(0), change(1)])
    log.close()
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for cut in (first, first + 1, first + 20, len(content) - 2, len(content) - 1, len(content)):
        path.write_bytes(content[:cut])
        log = ChangeLog(path)
        is_whole = cut >= len(content) - 1  # its end may be missing, if no more is
        log.append([change(2)])
        log.close()
        again = ChangeLog(path)
        again.close()
        wanted = [change(0), *([change(1)] if is_whole else []), change(2)]
        assert log.entries == again.entries == wanted, cut


def test_lines_of_others_are_passed_over(tmp_path):
    path = tmp_path / "log"
    strange = b'[1]\n{"image": 1}\n"lists"\n\xff\n{"time":"","window":"","image":"a",'
    strange += b'"label":"b","old":0,"new":7}\n' + b"[" * 99_999 + b"\n"
    good = {"time": "", "window": "", "image": "a", "label": "b", "old": 0, "new": 1}
    wrong = [good | part for part in ({"image": ["a"]}, {"label": {}}, {"new": [1]}, {"time": 1})]
    path.write_bytes(strange + "\n".join(map(json.dumps, wrong)).encode())
    log = ChangeLog(path)
    assert log.entries == []
    log.close()
    with pytest.raises(UserError, match="cannot be written"):
        ChangeLog(tmp_path)


def test_what_cannot_be_kept_does_not_count_and_leaves_no_trace(tmp_path, monkeypatch):
    log = ChangeLog(tmp_path / "log")
    log.append([change(0)])

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        log.append([change(1)])
    monkeypatch.undo()
    log.append([change(2)])
    assert log.entries == [change(0), change(2)]
    log.close()
    again = ChangeLog(log.path)
    assert again.entries == log.entries
    again.close()
