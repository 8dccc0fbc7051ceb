"""Inference folders of Paddle: made by PaddleClas 2.6.0, with Paddle 2.6.2 (.pdmodel) and 3.3.1."""

import json
import lzma
import tarfile
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from mlcls_jax import models
from mlcls_jax.config import model_from_dict
from mlcls_jax.data.frame import Frame
from mlcls_jax.errors import WeightsError
from mlcls_jax.inference.opening import open_model
from mlcls_jax.models.network import Network, flatten
from mlcls_jax.models.weights import load
from mlcls_jax.models.weights.foreign import read_weights
from mlcls_jax.models.weights.paddle_inference import by_structured_names
from tests.helpers.paddle_recipe import weight

DATA = Path(__file__).parents[1] / "data" / "paddle" / "inference_folders"
PLAIN, DECODER = "PP-LCNet_x0_25", "PP-LCNet_x0_25_ML"


@cache
def names():
    """Paddle's own [structured name, static name, shape] of each tensor, by model."""
    return json.loads(lzma.open(DATA / "names.json.xz", "rt").read())


def unpacked(name, folder):
    with tarfile.open(DATA / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def rounded(key, shape):
    """The weights in these folders: eighths, which are small when packed."""
    return np.round(np.float64(weight(key, tuple(shape))) * 8).astype(np.float32) / 8


def varint(number):
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def write_parameters(path, arrays):
    """Write arrays, float32, as Paddle's save_combine does."""
    content = b""
    for array in arrays:
        dims = b"".join(b"\x10" + varint(size) for size in array.shape)
        description = b"\x08\x05" + dims
        content += bytes(4) + bytes(8) + bytes(4) + len(description).to_bytes(4, "little")
        content += description + array.tobytes()
    path.write_bytes(content)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return unpacked(PLAIN, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """With an ML-Decoder; its parameters are written here, in the order of their static names."""
    folder = unpacked(DECODER, tmp_path_factory.mktemp("decoder"))
    given = sorted((static, rounded(key, shape)) for key, static, shape in names()[DECODER])
    write_parameters(folder / "inference.pdiparams", [array for _, array in given])
    return folder


@pytest.mark.parametrize("name", [PLAIN, DECODER])
def test_logits_of_a_folder_are_paddles(name, request):
    folder = request.getfixturevalue("plain" if name == PLAIN else "decoder")
    model = models.create(name, num_classes=4, image_size=(64, 64))
    report = load(model, folder)
    assert not report.initial
    assert not report.ignored
    images = np.random.Generator(np.random.PCG64(7)).standard_normal((2, 3, 64, 64))
    images = images.astype(np.float32).transpose(0, 2, 3, 1)
    logits = jax.jit(model.network.apply)(model.variables, images).logits
    np.testing.assert_allclose(logits, np.load(folder / "logits.npy"), atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [DECODER, "PP-HGNetV2-B0_ML", "PP-HGNetV2-B4", "ResNet50_ML", "CLIP_vit_base_patch16_448"],
)
def test_layers_are_told_by_their_numbers_as_paddle_numbers_them(name):
    network = Network.of(model_from_dict({"name": name, "num_classes": 4, "image_size": (64, 64)}))
    table = network.foreign_names["paddle"]
    shapes = {path: array.shape for path, array in flatten(network.abstract).items()}
    # Numbers count the layers of the whole process, and exports may append to a name.
    static = {
        (
            f"{kind}_{int(number) + 7}.{slot}_deepcopy_3" if kind != "vision_transformer" else given
        ): key
        for key, given, _ in names()[name]
        for kind, number, slot in [(*given.split(".")[0].rsplit("_", 1), given.split(".")[1])]
    }
    arrays = {name: np.array(key) for name, key in sorted(static.items())}
    found = by_structured_names(arrays, table, shapes)
    known = {key for foreign in table.values() for key in foreign.keys}
    assert {key: str(array) for key, array in found.items() if key in known} == {
        key: key for key in known
    }
    assert set(static.values()) - set(map(str, found)) <= {"proj"}  # CLIP's, of no use here


def test_a_model_opens_with_the_name_labels_and_size_of_its_folder(plain):
    bundle = open_model(None, plain)
    assert bundle.model.network.config.name == PLAIN
    assert bundle.labels == ("cat", "dog", "bird", "fish")
    assert bundle.image_size == (64, 64)
    assert bundle.threshold is None  # one label per image


def write_settings(folder, plain, **changes):
    for file in ("inference.pdmodel", "inference.pdiparams"):
        (folder / file).write_bytes((plain / file).read_bytes())
    text = (plain / "inference.yml").read_text()
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    (folder / "inference.yml").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("size: [64, 64]", "size: large", "ResizeImage=.*: must have a size or resize_short"),
        ("size: [64, 64]", "resize_short: 256", "after resize_short there must be a CropImage"),
        ("- ToCHWImage: null", "- CropImage: {size: 64}", "CropImage=.*: must have a size, and"),
        ("- ToCHWImage: null", "- Flip: null", "PreProcess.Flip: is not done here"),
        ("mean: [0.485,", "mean: [0.5,", "PreProcess.NormalizeImage.mean="),
        ("scale: 0.00392156862745098", "scale: 1", "PreProcess.NormalizeImage.scale=1"),
        ("interpolation: bilinear", "interpolation: bicubic", "interpolation=bicubic"),
        ("label_list: [cat, dog, bird, fish]", "label_list: cat", "label_list='cat': must be"),
    ],
)
def test_preprocessing_that_is_not_done_here_is_refused(tmp_path, plain, old, new, told):
    folder = write_settings(tmp_path, plain, change=(old, new))
    with pytest.raises(WeightsError, match=told.replace("[", r"\[")):
        open_model(None, folder)


@pytest.mark.parametrize(("size", "wanted"), [("64", (64, 64)), ("[96, 64]", (64, 96))])
def test_a_resize_of_the_short_side_and_a_crop_are_obeyed(tmp_path, plain, size, wanted):
    crop = "- ToCHWImage: null", f"- CropImage: {{size: {size}}}"
    short = "size: [64, 64]", "resize_short: 80"
    folder = write_settings(tmp_path, plain, short=short, crop=crop)
    bundle = open_model(None, folder)
    assert bundle.frame == Frame(wanted, "crop", 80)


def test_a_scale_may_be_written_as_a_fraction(tmp_path, plain):
    folder = write_settings(tmp_path, plain, scale=("scale: 0.00392156862745098", "scale: 1./255."))
    assert open_model(None, folder).labels[0] == "cat"


def test_another_architecture_is_refused_with_the_first_layer_that_does_not_fit(plain):
    model = models.create("PP-LCNet_x0_5", num_classes=4)
    with pytest.raises(WeightsError, match="shape: backbone/blocks2_0/pw_conv/"):
        load(model, plain)


def first_tensor(content):
    """Where the second tensor begins; the first is a vector of 8 numbers, batch_norm2d_0.b_0."""
    return 4 + 8 + 4 + 4 + int.from_bytes(content[16:20], "little") + 8 * 4


def test_damaged_files_are_refused(tmp_path, plain):
    content = (plain / "inference.pdiparams").read_bytes()
    program = (plain / "inference.pdmodel").read_bytes()

    def write(parameters, described):
        (tmp_path / "inference.pdiparams").write_bytes(parameters)
        (tmp_path / "inference.pdmodel").write_bytes(described)
        return tmp_path

    with pytest.raises(WeightsError, match="ends within a tensor"):
        read_weights(write(content[:-3], program))
    with pytest.raises(WeightsError, match="holds 1 tensors, but inference.pdmodel names 146"):
        read_weights(write(content[: first_tensor(content)], program))
    with pytest.raises(WeightsError, match=r"pdmodel: is no program of Paddle"):
        read_weights(write(content, program[:50]))
    with pytest.raises(WeightsError, match="is of version 9"):
        read_weights(write(b"\x09" + content[1:], program))
    (tmp_path / "inference.pdmodel").unlink()
    with pytest.raises(WeightsError, match="neither inference.json nor inference.pdmodel"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", [None, 3, {"a": 1}])
def test_names_of_tensors_are_texts(tmp_path, plain, name):
    operations = [{"#": "p", "A": [0, 0, 0, name]}]
    program = {"program": {"regions": [{"blocks": [{"ops": operations}]}]}}
    (tmp_path / "inference.json").write_text(json.dumps(program), encoding="utf-8")
    (tmp_path / "inference.pdiparams").write_bytes(b"")
    with pytest.raises(WeightsError, match="is the name of a tensor"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs"),
    [("Identity", [], []), ("Identity", [], ["y"]), ("Add", ["a"], ["y"]), ("Conv", ["a"], [])],
)
def test_an_onnx_file_whose_nodes_lack_something_is_refused(tmp_path, kind, inputs, outputs):
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node(kind, inputs, outputs)
    array = onnx.numpy_helper.from_array(np.ones(1, np.float32), "a")
    graph = onnx.helper.make_graph([node], "g", [], [], [array])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    with pytest.raises(WeightsError, match="is no ONNX file, or damaged"):
        read_weights(tmp_path / "m.onnx")


def test_weights_of_an_onnx_file_of_paddle_are_taken(tmp_path, plain):
    onnx = pytest.importorskip("onnx")
    given = read_weights(plain)
    # As paddle2onnx writes them: static names, and the bias of a convolution added by a node.
    bias = "conv2d_24.b_0"
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["x", "conv2d_24.w_0_deepcopy_1"], ["y"]),
            onnx.helper.make_node("Reshape", ["constant", "shape"], ["b"]),
            onnx.helper.make_node("Add", ["y", "b"], ["z"]),
        ],
        "g",
        [],
        [],
        [
            onnx.numpy_helper.from_array(
                array, "constant" if name == bias else f"{name}_deepcopy_1"
            )
            for name, array in given.items()
        ],
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    ours, theirs = (models.create(PLAIN, num_classes=4) for _ in range(2))
    load(ours, plain)
    assert not load(theirs, tmp_path / "m.onnx").initial
    for path, array in flatten(ours.variables).items():
        np.testing.assert_array_equal(array, flatten(theirs.variables)[path], err_msg=path)
