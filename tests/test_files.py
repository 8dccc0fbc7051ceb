"""Writing files: the old content or the new one, never half of either."""

import json

import pytest

from mlcls_jax.files import recover_folder, replace_folder, write_json, write_text


def fill_with(text: str):
    return lambda folder: (folder / "a.txt").write_text(text)


def test_write_json_is_readable_text_without_leftovers(tmp_path):
    value = {"name": "猫", "scores": [1, 0.5, None], "done_flag": True}
    for content in ({"old": 1}, value):
        write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert "猫" in text and text.startswith('{\n  "name"') and text.endswith("}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


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
