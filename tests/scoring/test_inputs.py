"""Surveying a job's input: what is left out of a folder is told, wherever the folder is."""

import os
import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_jax.errors import WorkdirError
from mlcls_jax.scoring.inputs import Columns, survey
from mlcls_jax.scoring.job import check_output


def folder_of(where, files, tmp_path):
    """A folder on the disk, or in a store, with these files."""
    if where == "disk":
        source, store, root = str(tmp_path / "in"), fsspec.filesystem("file"), str(tmp_path / "in")
    else:
        root = f"/{tmp_path.name}"
        source, store = f"memory:/{root}", fsspec.filesystem("memory")
    for name, content in files.items():
        store.makedirs(os.path.dirname(f"{root}/{name}"), exist_ok=True)
        store.pipe(f"{root}/{name}", content)
    return source


@pytest.mark.parametrize("where", ["disk", "store"])
def test_files_that_are_no_images_are_counted(where, tmp_path, caplog):
    names = ("a.png", "b/c.JPG", "b/notes.txt", "a.heic", ".hidden.txt", ".git/x.txt")
    source = folder_of(where, dict.fromkeys(names, b"x"), tmp_path)
    found = survey(source, tmp_path, Columns())
    assert (found.kind, found.images) == ("folder", 2)
    why = "files without the suffix of an image (2), such as a.heic"
    assert caplog.messages == [f"{source}: left out: {why}"]


@pytest.mark.parametrize("where", ["disk", "store"])
def test_files_beside_those_of_parquet_are_counted(where, tmp_path, caplog):
    pq.write_table(pa.table({"path": ["a.png"]}), tmp_path / "x.parquet")
    content = (tmp_path / "x.parquet").read_bytes()
    files = {"1.parquet": content, "b/2.PARQUET": content, "_SUCCESS": b"", ".crc": b""}
    source = folder_of(where, files, tmp_path)
    found = survey(source, tmp_path / "out", Columns())
    assert (found.kind, found.images) == ("parquet", 2)
    why = "files whose names do not end in .parquet (1), such as _SUCCESS"
    assert caplog.messages == [f"{source}: left out: {why}"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_an_output_that_cannot_be_named_in_utf_8_is_refused(tmp_path):
    output = os.fsdecode(os.fsencode(tmp_path) + b"/out\xff")
    with pytest.raises(WorkdirError, match=r"out\\xff: is not valid UTF-8"):
        check_output(output)
    assert list(tmp_path.iterdir()) == []
