"""Weights of other origin: what fits is loaded, what does not is named, nothing hostile runs."""

import io
import os
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlcls_jax import models
from mlcls_jax.errors import WeightsError
from mlcls_jax.models.network import flatten
from mlcls_jax.models.weights import load
from mlcls_jax.models.weights.names import to_ours, to_theirs
from mlcls_jax.models.weights.pickles import read_pdparams
from tests.paddle_recipe import golden, weight, weights

NAME = "PP-LCNet_x0_25_ML"


@pytest.fixture(scope="module")
def drawn():
    return weights(golden(NAME)["params"])


def model_of(num_classes=80, name=NAME):
    return models.create(name, num_classes=num_classes)


def write_pickle(path, content, protocol):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pdparams_are_read_in_every_protocol(tmp_path, drawn, protocol):
    content = dict(drawn) | {"StructuredToParameterName@@": {"conv1.conv.weight": "conv2d_0.w_0"}}
    path = write_pickle(tmp_path / "model.pdparams", content, protocol)
    arrays = read_pdparams(path)
    assert arrays.keys() == drawn.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, drawn[key])
    report = load(model_of(), path)
    assert len(report.loaded) == 168
    assert not report.initial and not report.ignored
    assert report.origin == "paddle"


def test_old_numpy_names_in_pickles_are_understood(tmp_path, drawn):
    data = pickle.dumps({"conv1.conv.weight": drawn["conv1.conv.weight"]}, 2)
    old = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert old != data
    path = tmp_path / "old.pdparams"
    path.write_bytes(old)
    assert read_pdparams(path).keys() == {"conv1.conv.weight"}


def test_named_tuples_of_old_releases_and_bfloat16_are_read(tmp_path):
    value = np.array([1.0, -2.5, 3.140625], np.float32)
    halved = (value.view(np.uint32) >> 16).astype(np.uint16)
    path = write_pickle(tmp_path / "m.pdparams", {"a": ("linear_0.w_0", value), "b": halved}, 4)
    arrays = read_pdparams(path)
    np.testing.assert_array_equal(arrays["a"], value)
    np.testing.assert_array_equal(arrays["b"], value)
    assert arrays["b"].dtype == np.float32


class Hostile:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path, protocol):
    victim = tmp_path / "victim"
    hostile = Hostile(os.mkdir, str(victim))
    path = write_pickle(tmp_path / "m.pdparams", {"conv1.conv.weight": hostile}, protocol)
    with pytest.raises(WeightsError, match="refused, because it wants to use posix.mkdir"):
        load(model_of(), path)
    assert not victim.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "numpy.load", "os.system", "numpy.memmap"])
def test_no_other_global_is_admitted(tmp_path, name):
    module, _, attribute = name.rpartition(".")
    path = tmp_path / "m.pdparams"
    path.write_bytes(f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(WeightsError, match=f"refused.*{name}"):
        read_pdparams(path)


def test_codecs_other_than_the_one_needed_are_refused(tmp_path):
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, 2)
    import _codecs

    pickler.dump({"a": Hostile(_codecs.encode, "text", "rot13")})
    path = tmp_path / "m.pdparams"
    path.write_bytes(stream.getvalue())
    with pytest.raises(WeightsError, match="refused"):
        read_pdparams(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "not a Paddle weight file, or damaged"),
        (b"\x80\x04garbage", "not a Paddle weight file, or damaged"),
        (pickle.dumps([1, 2]), "holds a list"),
        (pickle.dumps({"a": 3}), "'a' is a int, not an array"),
        (
            pickle.dumps({"a": np.array([None], object)}),
            "'a' is a ndarray, not an array of numbers",
        ),
    ],
)
def test_what_is_no_table_of_arrays_is_refused(tmp_path, content, message):
    path = tmp_path / "m.pdparams"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_pdparams(path)


def test_another_class_count_keeps_the_initial_last_layer(drawn):
    model = model_of(num_classes=7)
    before = flatten(model.variables)
    report = load(model, drawn)
    assert set(report.initial) == {"head/query_embed", "head/group_kernel", "head/group_bias"}
    assert len(report.reshaped) == 3
    after = flatten(model.variables)
    np.testing.assert_array_equal(after["head/group_kernel"], before["head/group_kernel"])
    np.testing.assert_array_equal(
        after["head/layer0/linear1/kernel"], drawn["fc.decoder.layers.0.linear1.weight"]
    )


def test_a_backbone_without_a_head_is_enough(drawn):
    backbone = {k: v for k, v in drawn.items() if not k.startswith("fc.")}
    backbone |= {"fc.weight": weight("fc.weight", (1280, 1000)), "fc.bias": np.zeros(1000)}
    report = load(model_of(), backbone)
    assert all(path.startswith("head/") for path in report.initial)
    assert report.ignored == ("fc.weight", "fc.bias")
    assert "kept their initial value" in str(report)


def test_an_incomplete_backbone_is_refused_unless_allowed(drawn):
    partial = {k: v for k, v in drawn.items() if k != "blocks5.3.dw_conv.conv.weight"}
    model = model_of()
    before = model.variables
    with pytest.raises(WeightsError, match="backbone/blocks5_3/dw_conv/conv/kernel"):
        load(model, partial)
    assert model.variables is before
    assert load(model, partial, strict=False).initial == ("backbone/blocks5_3/dw_conv/conv/kernel",)


def test_a_wider_network_is_refused_with_both_shapes(drawn):
    with pytest.raises(WeightsError, match=r"kernel \(3, 3, 1, 8\), here \(3, 3, 1, 16\)"):
        load(model_of(name="PP-LCNet_x1_0_ML"), drawn)


def test_a_source_of_which_nothing_fits_is_refused():
    with pytest.raises(WeightsError, match=r"nothing fits.*layer1\.0\.weight"):
        load(model_of(), {"layer1.0.weight": np.zeros(3)})


def test_own_weights_come_back_bit_for_bit(tmp_path, drawn):
    model = model_of()
    load(model, drawn)
    arrays = {path: np.asarray(array) for path, array in flatten(model.variables).items()}
    save_file(arrays, tmp_path / "weights.safetensors")
    for source in (tmp_path, tmp_path / "weights.safetensors", arrays):
        other = model_of()
        assert load(other, source).origin == "mlcls_jax"
        for path, array in flatten(other.variables).items():
            np.testing.assert_array_equal(array, arrays[path])


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("missing.pdparams", None, "there is no such file"),
        ("weights.h5", b"x", "unknown kind of weight file '.h5'"),
        ("weights.safetensors", b"x" * 20, "not a safetensors file, or damaged"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        load(model_of(), path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "layout, shape",
    [
        ("conv", (3, 3, 2, 4)),
        ("conv1x1", (2, 4)),
        ("linear", (2, 4)),
        ("group", (5, 3, 2)),
        ("same", (6,)),
    ],
)
def test_layouts_are_inverted(layout, shape):
    array = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_array_equal(to_ours(to_theirs(array, layout), layout, shape), array)
