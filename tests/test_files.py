"""Writing files: the old content or the new one, never half of either."""

import errno
import json
import os
import stat
import threading

import numpy as np
import pytest

from mlcls_jax import files
from mlcls_jax.errors import UserError
from mlcls_jax.files import (
    current_folder,
    recover_folder,
    replace_folder,
    replacing,
    write_bytes,
    write_json,
    write_text,
)


def fill_with(text: str):
    return lambda folder: (folder / "a.txt").write_text(text)


def test_a_full_disk_is_told_with_the_path_and_leaves_no_folder_above(tmp_path):
    def fill(folder):
        with (folder / "a.bin").open("wb"), open("/dev/full", "wb", buffering=0) as full:
            full.write(b"1")  # its error names no file

    with pytest.raises(OSError) as caught:
        replace_folder(tmp_path / "new/inner/model", fill)
    assert (caught.value.errno, caught.value.filename) == (
        errno.ENOSPC, str(tmp_path / "new/inner/model"),
    )  # fmt: skip
    assert not any(tmp_path.iterdir())
    with pytest.raises(OSError) as caught, replacing(tmp_path / "a.txt"):
        fill(tmp_path)
    assert caught.value.filename == str(tmp_path / "a.txt")


def test_a_file_that_cannot_be_made_is_told_by_the_name_it_was_to_get(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "gone" / "a.txt", "1")
    assert caught.value.filename == str(tmp_path / "gone" / "a.txt")


def test_write_json_is_readable_text_without_leftovers(tmp_path):
    value = {"name": "猫", "scores": [1, 0.5, None], "done_flag": True}
    for content in ({"old": 1}, value):
        write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert "猫" in text and text.startswith('{\n  "name"') and text.endswith("}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    "content", [b"", b'{"a": 1', b"[]", b"\xff", b"\0" * 9, b"[" * 9999, b"9" * 9999]
)
def test_a_damaged_file_of_ours_is_told_by_its_name(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: is damaged"):
        files.read_json(tmp_path / "a.json")


def test_arrays_are_read_whole_or_not_at_all(tmp_path, caplog):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(40), b=np.zeros(0))
    content = path.read_bytes()
    found = files.read_arrays(path, "a")
    assert found is not None and found["a"].tolist() == [*range(40)]
    assert files.read_arrays(path, "c") is None and files.read_arrays(tmp_path / "no.npz") is None
    flipped = bytearray(content)
    flipped[len(content) // 4] ^= 1
    for damaged in (b"", content[:200], flipped, b"\x93NUMPY", content[:-9], b"\0" * 99):
        caplog.clear()
        path.write_bytes(damaged)
        assert files.read_arrays(path, "a") is None
        assert "a.npz: is damaged, and not used" in caplog.text


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", object())
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_write_text_replaces_whole_files(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "long, long ago")
    with path.open() as reader:  # still reads what it opened
        write_text(path, "new")
        assert reader.read() == "long, long ago"
    assert path.read_text() == "new"


def test_replace_folder_leaves_only_the_new_content(tmp_path):
    folder = tmp_path / "deep" / "model"
    replace_folder(folder, fill_with("one"))
    (folder / "b.txt").touch()
    replace_folder(folder, fill_with("two"))
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
    assert (folder / "a.txt").read_text() == "two"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_failed_fill_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "model"
    replace_folder(folder, fill_with("one"))

    def fail(new):
        (new / "half.txt").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_folder(folder, fail)
    recover_folder(folder)
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
    replace_folder(folder, fill_with("two"))
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_crash_between_the_renames_is_recovered(tmp_path):
    folder = tmp_path / "model"
    replace_folder(folder, fill_with("one"))
    folder.rename(tmp_path / "model.old")
    recover_folder(folder)
    assert (folder / "a.txt").read_text() == "one"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_crash_before_the_old_folder_is_removed_keeps_the_new_one(tmp_path):
    folder = tmp_path / "model"
    replace_folder(folder, fill_with("two"))
    (tmp_path / "model.old").mkdir()
    recover_folder(folder)
    assert (folder / "a.txt").read_text() == "two"
    replace_folder(folder, fill_with("three"))
    assert list(tmp_path.iterdir()) == [folder]


def test_recover_folder_without_anything_to_recover(tmp_path):
    recover_folder(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def read_while(folder, action, count=200):
    """What readers of `a.txt` met while `action` was done so often: contents, and missing files."""
    is_over, met = threading.Event(), []

    def read():
        while not is_over.is_set():
            try:
                met.append((current_folder(folder) / "a.txt").read_text())
            except OSError as error:
                met.append(type(error).__name__)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(count):
            action()
    finally:
        is_over.set()
        for reader in readers:
            reader.join()
    return met


def test_there_is_a_folder_at_any_moment_while_it_is_replaced(tmp_path):
    folder = tmp_path / "model"
    replace_folder(folder, fill_with("one"))
    met = read_while(folder, lambda: replace_folder(folder, fill_with("two")))
    assert set(met) <= {"one", "two"} and met[-1] == "two"
    assert list(tmp_path.iterdir()) == [folder]


def test_where_folders_cannot_be_exchanged_they_are_replaced_in_two_renames(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    monkeypatch.setattr(files, "exchange", lambda one, other: False)
    for text in ("one", "two", "three"):
        replace_folder(folder, fill_with(text))
        assert (folder / "a.txt").read_text() == text
    assert list(tmp_path.iterdir()) == [folder]


def test_who_mends_between_the_two_renames_does_not_end_the_one_who_writes(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    replace_folder(folder, fill_with("one"))
    monkeypatch.setattr(files, "exchange", lambda one, other: False)
    rename, mended = type(folder).rename, []

    def rename_and_mend(path, target):
        rename(path, target)
        if target.suffix == ".old" and not mended:
            mended.append(recover_folder(folder))

    monkeypatch.setattr(type(folder), "rename", rename_and_mend)
    replace_folder(folder, fill_with("two"))
    assert mended and (folder / "a.txt").read_text() == "two"
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_crash_left_between_the_renames_is_read_where_it_is(tmp_path):
    folder = tmp_path / "model"
    replace_folder(folder, fill_with("one"))
    assert current_folder(folder) == folder
    folder.rename(tmp_path / "model.old")
    assert (current_folder(folder) / "a.txt").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["model.old"]  # nothing was mended
    replace_folder(folder, fill_with("two"))
    assert list(tmp_path.iterdir()) == [folder]


def test_a_linked_folder_is_replaced_where_it_lies(tmp_path):
    (tmp_path / "disk").mkdir()
    folder = tmp_path / "model"
    folder.symlink_to(tmp_path / "disk/model")
    for text in ("one", "two"):
        replace_folder(folder, fill_with(text))
    assert folder.is_symlink() and (tmp_path / "disk/model/a.txt").read_text() == "two"
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["model"]


def test_a_file_in_the_way_of_a_folder_is_left_alone(tmp_path):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(OSError, match="model"):
        replace_folder(tmp_path / "model", fill_with("one"))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_new_folders_of_killed_processes_go_after_a_day(tmp_path):
    folder = tmp_path / "model"
    dead, alive = (tmp_path / f".model.{digit * 32}.new" for digit in "ab")
    for path, age in ((dead, 90_000), (alive, 80_000)):
        path.mkdir()
        (path / "a.txt").touch()
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    replace_folder(folder, fill_with("one"))
    assert sorted(tmp_path.iterdir()) == sorted([alive, folder])


def test_files_and_folders_have_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a.bin", b"1")
        replace_folder(tmp_path / "model", fill_with("one"))
    finally:
        os.umask(before)
    found = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")}
    assert found == {"a.bin": 0o640, "model": 0o750, "a.txt": 0o640}


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    for name in ("a" * 255, "猫" * 85):
        write_text(tmp_path / name, "long")
        replace_folder(tmp_path / name[:-4], fill_with("one"))
    assert len(list(tmp_path.iterdir())) == 4


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path, monkeypatch
):
    told, fsync, replace = [], os.fsync, os.replace
    names = lambda number: os.readlink(f"/proc/self/fd/{number}")  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda n: (told.append(names(n)), fsync(n)))
    monkeypatch.setattr(os, "replace", lambda *a: (told.append("renamed"), replace(*a)))
    write_text(tmp_path / "a.txt", "new")
    assert told[0].startswith(f"{tmp_path}/.a.txt.") and told[1:] == ["renamed", str(tmp_path)]
    told.clear()
    replace_folder(tmp_path / "model", fill_with("one"))
    assert told[0].endswith(".new/a.txt") and told[1].endswith(".new") and told[2] == str(tmp_path)
