"""Exported files give the scores of JAX in their own runtimes; wrong ones are refused."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    text_format,
)

from mlcls_jax.commands import export as command
from mlcls_jax.config import Config, Export
from mlcls_jax.data.frame import Frame
from mlcls_jax.errors import InputError, NonFiniteError, UserError
from mlcls_jax.inference import exports
from mlcls_jax.inference.bundle import BUNDLE_FILES, read_bundle, update_bundle
from mlcls_jax.inference.exports import stablehlo
from mlcls_jax.inference.exports.verify import (
    check_scores,
    read_images,
    sample_images,
    warn_if_alike,
)
from mlcls_jax.models import Network
from mlcls_jax.modes import export as mode
from tests.helpers.bundles import write_images, write_small
from tests.helpers.tiers import need, slow

DOCS = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A calibrated bundle, with groups of labels."""
    groups = {"parents": (-1, 0, -1, 1, -1), "exclusive": (0, -1, 0, 1, 1)}
    folder = write_small(tmp_path_factory.mktemp("bundle"), query_num=3, **groups)
    update_bundle(folder, threshold=0.5, temperature=2.0, calibration={})
    return folder


@pytest.fixture(scope="module")
def output(folder, tmp_path_factory):
    """Return what export makes of a folder that holds an earlier export and somebody's notes."""
    output = tmp_path_factory.mktemp("work") / "export"
    output.mkdir()
    (output / "model.onnx").write_bytes(b"earlier")
    (output / "notes.txt").write_text("mine")
    export_all(folder, output, ["stablehlo", "onnx"])
    return output


def export_all(folder, output, formats):
    exported = exports.export(folder, output, formats)
    assert [*exported] == formats
    for name, file in exported.items():
        place = exports.find_format(name).place.format(model="PP-LCNet_x0_25_ML")
        assert file.path == output / place
        found = [path for path in (file.path, *file.path.rglob("*")) if path.is_file()]
        assert file.bytes == sum(path.stat().st_size for path in found) > 0
        assert 0 <= file.largest_difference < 1e-4


@pytest.fixture(scope="module")
def wanted(folder):
    bundle = read_bundle(folder)
    return exports.reference_scores(bundle, sample_images(bundle.image_size))


def test_the_folder_holds_bundle_and_files_and_what_was_there(folder, output):
    found = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    wanted = {"bundle/inference.json", "bundle/weights.safetensors", "model.stablehlo"}
    wanted |= {"model.stablehlo.json", "model.onnx", "notes.txt"}
    assert found == wanted
    assert (output / "notes.txt").read_text() == "mine"
    for name in BUNDLE_FILES:
        assert (output / "bundle" / name).read_bytes() == (folder / name).read_bytes()


def test_stablehlo_describes_itself(output):
    described = json.loads((output / "model.stablehlo.json").read_text())
    assert described["input"] == "uint8[batch,32,48,3]"
    assert described["output"] == "float32[batch,5]"
    assert described["platforms"] == ["cpu", "cuda", "tpu"]


@pytest.mark.parametrize("runtime", ["jax", "onnxruntime", slow("openvino")])
def test_the_code_of_the_docs_gives_the_scores_of_jax(runtime, output, wanted, monkeypatch):
    need(runtime)
    monkeypatch.chdir(output.parent)
    run_block_of_the_docs(runtime, wanted)


# The fields in use of protobuf/model_config.proto of github.com/triton-inference-server/common: a
# type of protobuf's, a message here, or a list of one where it is repeated.
TRITON = {
    "ModelConfig": {
        **{"name": "string", "backend": "string", "max_batch_size": "int32"},
        **{"input": ["ModelInput"], "output": ["ModelOutput"]},
        **{"dynamic_batching": "ModelDynamicBatching", "version_policy": "ModelVersionPolicy"},
    },
    "ModelInput": {"name": "string", "data_type": "DataType", "dims": ["int64"]},
    "ModelOutput": {
        **{"name": "string", "data_type": "DataType", "dims": ["int64"]},
        "label_filename": "string",
    },
    "ModelDynamicBatching": {"preferred_batch_size": ["int32"]},
    "ModelVersionPolicy": {"latest": "Latest"},
    "Latest": {"num_versions": "uint32"},
}


def read_triton_config(path):
    """Parse as Triton does, strictly, and return plain dicts."""
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", syntax="proto3")
    types = file.enum_type.add(name="DataType")
    for name, number in {"TYPE_INVALID": 0, "TYPE_UINT8": 2, "TYPE_FP32": 11}.items():
        types.value.add(name=name, number=number)
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in TRITON.items():
        made = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields.items(), 1):
            repeated, (kind,) = isinstance(kind, list), kind if isinstance(kind, list) else [kind]
            field = made.field.add(name=name, number=number, label=3 if repeated else 1)
            if kind in TRITON or kind == "DataType":
                field.type_name = kind
                field.type = kinds.TYPE_ENUM if kind == "DataType" else kinds.TYPE_MESSAGE
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("ModelConfig"))
    return json_format.MessageToDict(
        text_format.Parse(path.read_text(), kind()), preserving_proto_field_name=True
    )


def test_a_model_for_triton_is_described_as_its_onnx_file_is(folder, wanted, tmp_path):
    export_all(folder, tmp_path, ["triton"])
    model = tmp_path / "triton" / "PP-LCNet_x0_25_ML"
    assert read_triton_config(model / "config.pbtxt") == {
        "name": model.name,
        "backend": "onnxruntime",
        "max_batch_size": 16,
        "input": [{"name": "images", "data_type": "TYPE_UINT8", "dims": ["32", "48", "3"]}],
        "output": [
            {
                **{"name": "scores", "data_type": "TYPE_FP32", "dims": ["5"]},
                "label_filename": "labels.txt",
            }
        ],
        "dynamic_batching": {},
        "version_policy": {"latest": {"num_versions": 1}},
    }
    labels = (model / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert labels == [*read_bundle(folder).labels]
    session = onnxruntime.InferenceSession(model / "1" / "model.onnx")
    (images,), (scores,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [32, 48, 3])
    assert (scores.name, scores.type, scores.shape[1:]) == ("scores", "tensor(float)", [5])
    found = session.run(["scores"], {"images": sample_images((32, 48))})[0]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_label_of_two_lines_is_refused_for_triton(folder, tmp_path):
    bundle = replace(read_bundle(folder), labels=("a\nb", *"cdef"))
    with pytest.raises(UserError, match=r"the label 'a\\nb' has a line break"):
        exports.find_format("triton").write(bundle, tmp_path)


@pytest.mark.slow
def test_openvino_files_give_the_scores_of_jax_and_name_the_labels(folder, wanted, tmp_path):
    openvino = need("openvino")
    export_all(folder, tmp_path / "export", ["openvino"])
    files = tmp_path / "export" / "openvino"
    assert {path.name for path in files.iterdir()} == {"model.xml", "model.bin"}
    model = openvino.Core().read_model(files / "model.xml")
    labels = json.loads(model.get_rt_info(["mlcls_jax", "labels"]).astype(str))
    assert labels == [*read_bundle(folder).labels]
    run = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(run([sample_images((32, 48))])[0], wanted, atol=1e-4)


@pytest.mark.slow
def test_litert_gives_the_scores_of_jax(folder, wanted, tmp_path, monkeypatch):
    need("tensorflow")
    export_all(folder, tmp_path / "export", ["stablehlo", "onnx", "litert"])
    monkeypatch.chdir(tmp_path)
    run_block_of_the_docs("ai_edge_litert", wanted)


def run_block_of_the_docs(runtime, wanted):
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    (block,) = (
        block for block in blocks if f"import {runtime}\n" in block or f"from {runtime}." in block
    )
    scope = {"images": sample_images((32, 48))}
    exec(block, scope)
    np.testing.assert_allclose(scope["scores"], wanted, atol=1e-4)


def test_without_tensorflow_litert_tells_what_to_install(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError, match="the format litert needs TensorFlow") as caught:
        exports.export(folder, tmp_path, ["litert"])
    assert 'pip install -e ".[litert]"' in caught.value.hint
    assert {path.name for path in tmp_path.iterdir()} == {"bundle"}


def write_wrong(bundle, path):
    stablehlo.write(replace(bundle, temperature=bundle.temperature * 1.01), path)


def test_a_file_with_other_scores_is_not_kept(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(stablehlo, "FORMAT", stablehlo.FORMAT._replace(write=write_wrong))
    (tmp_path / "model.stablehlo").write_bytes(b"earlier")
    with pytest.raises(
        UserError, match=r"differ from those of JAX in float64 by 0\.00\d+, more than"
    ):
        exports.export(folder, tmp_path, ["stablehlo"])
    assert (tmp_path / "model.stablehlo").read_bytes() == b"earlier"
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "model.stablehlo"}


def test_scores_are_compared_strictly():
    scores = np.float32([[0.1, 0.9], [0.5, 0.5]])
    near, far = scores.copy(), scores.copy()
    near[1, 0] += 0.9e-4
    far[1, 0] += 1.1e-4
    assert check_scores(scores, near, what="model.x") == pytest.approx(0.9e-4, rel=1e-2)
    with pytest.raises(UserError, match="model.x: .* image 1, label 0: 0.500110, JAX 0.500000"):
        check_scores(scores, far, what="model.x")
    with pytest.raises(UserError, match=r"gives scores \(1, 2\) where JAX gives \(2, 2\)"):
        check_scores(scores, scores[:1], what="model.x")
    for values in ((scores * np.nan, scores), (scores, scores * np.nan)):
        with pytest.raises(NonFiniteError, match="not numbers"):
            check_scores(*values, what="model.x")


def test_larger_differences_are_judged_by_the_noise_of_float32():
    exact = np.float32([[0.1, 0.9], [0.5, 0.5], [0.3, 0.3]])
    ours, theirs = exact + np.float32(0.9e-4), exact - np.float32(3e-4)
    asked = []

    def referee(positions):
        asked.append(sorted(positions))
        return exact[positions]

    assert check_scores(ours, theirs, what="x", exact=referee) == pytest.approx(3.9e-4, rel=1e-2)
    assert asked == [[0, 1, 2]]
    with pytest.raises(UserError, match=r"of JAX in float64 by 0.0004, more than 0.00036: image"):
        check_scores(ours, exact - np.float32(4e-4), what="x", exact=referee)
    with pytest.raises(UserError, match=r"by 0.0012, more than 0.0001: image"):  # JAX is right
        check_scores(exact, exact - np.float32(1.2e-3), what="x", exact=referee)
    noisy = exact + np.float32(4e-4)
    with pytest.raises(UserError, match=r"by 0.0011, more than 0.001: image"):
        check_scores(noisy, exact - np.float32(1.1e-3), what="x", exact=referee)


def test_an_image_whose_scores_are_noise_in_jax_does_not_refuse_the_file():
    """Seen: EfficientNetV2_S with random weights is 5e-3 from float64 on one image of eight."""
    exact = np.float32([[0.1, 0.9], [0.5, 0.5], [0.3, 0.3]])
    ours = exact + np.float32([[5e-6], [5e-3], [5e-6]])
    theirs = exact + np.float32([[6e-6], [6e-3], [4e-6]])
    found = check_scores(ours, theirs, what="x", exact=exact.__getitem__)
    assert found == pytest.approx(1e-3, rel=1e-2)
    wrong = theirs + np.float32([[0], [0], [2e-3]])  # the others still tell
    with pytest.raises(UserError, match=r"by 0.002, more than 0.001: image 2"):
        check_scores(ours, wrong, what="x", exact=exact.__getitem__)


@pytest.mark.slow
def test_exact_scores_are_those_of_float64(folder):
    bundle = read_bundle(folder)
    images = sample_images(bundle.image_size)
    scores = exports.reference_scores(bundle, images)
    exact = exports.exact_scores(bundle, images, np.int64([5, 2]))
    assert 0 < np.abs(exact - scores[[5, 2]]).max() < 1e-5
    with jax.enable_x64(True):
        network = Network.of(replace(bundle.model.network.config, dtype="float64"))
        variables = jax.tree.map(np.float64, bundle.model.variables)
        logits = network.apply(variables, jnp.asarray(images[[5, 2]])).logits
    expected = 1 / (1 + np.exp(-np.asarray(logits) / bundle.temperature))
    np.testing.assert_allclose(exact, expected, atol=1e-7)


def test_scores_that_could_not_tell_a_wrong_file_are_warned_of(caplog):
    scores = np.full((8, 3), 0.5, np.float32)
    warn_if_alike(scores)
    assert "by 0 at most, so that a wrong file could pass" in caplog.text
    assert "--images FOLDER" in caplog.text
    caplog.clear()
    scores[3, 1] = 0.6
    warn_if_alike(scores)
    warn_if_alike(scores[:1])  # one image, named by somebody
    assert not caplog.text


def test_the_sample_images_differ():
    images = sample_images((20, 30))
    assert images.shape == (8, 20, 30, 3) and images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 8


def test_images_of_a_folder_are_spread_over_it(tmp_path):
    paths = write_images(tmp_path, 3)
    assert read_images(tmp_path, Frame((8, 9))).shape == (3, 8, 9, 3)
    assert read_images(paths[0], Frame((8, 9))).shape == (1, 8, 9, 3)
    for index in range(130):
        (tmp_path / f"more{index}.png").write_bytes(paths[0].read_bytes())
    assert len(read_images(tmp_path, Frame((8, 9)))) == 45  # every third of 133
    with pytest.raises(InputError, match="there is no such file or folder"):
        read_images(tmp_path / "none", Frame((8, 9)))


def test_an_unknown_format_is_refused_before_anything_is_written(folder, tmp_path):
    with pytest.raises(InputError, match="keras: there is no such format"):
        exports.export(folder, tmp_path / "export", ["onnx", "keras"])
    assert not (tmp_path / "export").exists()


@pytest.mark.slow
def test_the_mode_and_the_command_export(folder, tmp_path, monkeypatch):
    images = write_images(tmp_path / "images", 2)
    options = Export(model_dir=str(folder), formats=("onnx",), images=str(images[0].parent))
    result = mode.export(Config(mode="export", export=options), tmp_path).to_json()
    file = result["files"]["onnx"]
    assert Path(file["path"]) == tmp_path / "export" / "model.onnx"
    assert file["bytes"] == Path(file["path"]).stat().st_size
    assert 0 <= file["largest_difference"] < 1e-4
    text = command.run([str(folder), "--format", "onnx", "--output", str(tmp_path / "other")])
    assert f"{tmp_path / 'other' / 'model.onnx'}: 1.1 MB, scores differ" in text
    assert (tmp_path / "other" / "model.onnx").exists()
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    text = command.run([str(folder), "--output", str(tmp_path / "small")])
    assert "model.stablehlo: " in text and "No ONNX file without its package. Install it: " in text
