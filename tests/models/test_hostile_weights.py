"""Weight files made to do harm end in one clear error, within seconds and 200 MB."""

import json
import os
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlcls_jax import models
from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.errors import WeightsError
from mlcls_jax.models.network import Model, Network
from mlcls_jax.models.weights import load
from mlcls_jax.models.weights.foreign import read_weights
from tests.helpers import hostile_weights
from tests.helpers.commands import REPOSITORY
from tests.helpers.hostile_weights import HOSTILE

# Prints for each file what became of it, seconds, and by how many bytes memory ever grew.
PROGRAM = """
import json, resource, sys, time
from pathlib import Path
from mlcls_jax.errors import WeightsError
from mlcls_jax.models.weights.foreign import read_weights

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

for path in sys.argv[1:]:
    before, began = peak(), time.process_time()
    try:
        said = f"taken: {[str(key) for key in read_weights(Path(path))][:3]}"
    except WeightsError as error:
        said = str(error)
    print(json.dumps([Path(path).name, said, time.process_time() - began, peak() - before]), flush=True)
"""  # noqa: E501


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Each file → what became of it: in another process, which it may end."""
    folder = tmp_path_factory.mktemp("hostile")
    paths = hostile_weights.write(folder)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, paths)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    assert not (folder / "x").exists()  # which some of them would make
    return {name: facts for name, *facts in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def network():
    return Network.of(ModelConfig(name="PP-LCNet_x0_25_ML", num_classes=3))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_at_a_bounded_cost(outcomes, name):
    said, seconds, grown = outcomes[name]
    assert not said.startswith("taken")
    assert re.search(HOSTILE[name][1], said) and len(said) < 1000
    assert seconds < 20 and grown < 200e6


def test_integers_are_no_weights(tmp_path):
    model = models.create("PP-LCNet_x0_25_ML", num_classes=3)
    before = model.variables
    arrays = {"conv1.conv.weight": np.zeros((8, 3, 3, 3), np.int32), "fc.extra": np.zeros(3, int)}
    save_file(arrays, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="floating numbers, but conv1.conv.weight is int32\n"):
        load(model, tmp_path / "w.safetensors", strict=False)
    assert model.variables is before


def test_numbers_of_a_type_that_numpy_lacks_are_told(tmp_path):
    path = tmp_path / "w.safetensors"
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(2))
    with pytest.raises(WeightsError, match="of a type that cannot be read"):
        read_weights(path)


@pytest.mark.parametrize("shape", [(), (3,), (8, 3), (1, 1, 1, 1, 1), (8, 3, 2, 2), (0, 3, 3, 3)])
@pytest.mark.parametrize(
    "key",
    [
        "conv1.conv.weight",
        "fc.input_proj.weight",
        "fc.group_conv.weight",
        "fc.query_pos_embed.weight",
    ],
)
def test_a_tensor_of_any_shape_is_told_with_it(key, shape, network):
    model = Model(network, network.abstract)
    given = {key: np.zeros(shape, np.float32), "conv1.bn.weight": np.ones(8, np.float32)}
    report = load(model, given, strict=False)
    assert len(report.reshaped) == 1 and report.origin == "paddle"


def test_parts_that_do_not_fit_together_are_told():
    name = "vision_model.encoder.layers.0.self_attn.{}_proj.weight"
    arrays = {name.format(part): np.zeros((i, 768)) for i, part in enumerate("qkv", 1)}
    arrays["vision_model.post_layernorm.weight"] = np.ones(768)
    network = Network.of(ModelConfig(name="CLIP_vit_base_patch32_224", num_classes=3))
    report = load(Model(network, network.abstract), arrays, strict=False)
    assert len(report.reshaped) == 1 and "block0/qkv/kernel" in report.reshaped[0]


def test_names_in_messages_are_cut_and_without_control_characters():
    arrays = {"\x1b[2J": np.zeros(1), "k" * 100_000: np.zeros(1)}
    with pytest.raises(WeightsError) as caught:
        load(models.create("PP-LCNet_x0_25", num_classes=3), arrays)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500
