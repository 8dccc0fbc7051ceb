"""A pipe or a device in the place of a file is told, and neither waited for nor read for ever."""

import os
from pathlib import Path

import pytest

from mlcls_jax.curation.corrections import read_confirmed
from mlcls_jax.data.convert.dialects import read_table
from mlcls_jax.data.image_files import list_images, read_file
from mlcls_jax.data.lists import label_names
from mlcls_jax.data.shards import read_manifest
from mlcls_jax.errors import UserError
from mlcls_jax.files import read_arrays, read_json, sha256
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.models.weights.foreign import read_weights
from mlcls_jax.scoring.inputs.stores import open_file
from mlcls_jax.yaml_config import get_config

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no pipes by name")

READERS = {
    "label.txt": label_names,
    "list.csv": read_table,
    "confirmed.csv": read_confirmed,
    "names.txt": lambda path: open_file(str(path)),
    "image.png": read_file,
    "images": list_images,
    "config.yaml": lambda path: get_config(str(path)),
    "result.json": read_json,
    "inference.json": lambda path: read_bundle(path.parent),
    "dataset.json": lambda path: read_manifest(path.parent),
    **{f"weights.{kind}": read_weights for kind in ("pth", "pdparams", "safetensors", "onnx")},
}


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_told_at_once(tmp_path, name, kind):
    path = put(tmp_path / name, kind)
    with pytest.raises((UserError, OSError), match="is a pipe or a device"):
        READERS[name](path)


def test_a_checksum_and_kept_arrays_are_not_waited_for(tmp_path):
    path = put(tmp_path / "kept.npz", "pipe")
    assert read_arrays(path) is None
    with pytest.raises(OSError, match="is a pipe or a device"):
        sha256(path)


def put(path: Path, kind: str) -> Path:
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    return path
