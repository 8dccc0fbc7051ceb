"""Weights of other origin: what fits is loaded, what does not is named, nothing hostile runs."""

import hashlib
import os
import pickle
import re
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from safetensors.numpy import save_file

from mlcls_jax import models, remote
from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.errors import WeightsError, install_hint
from mlcls_jax.models.network import Model, Network, flatten
from mlcls_jax.models.weight_names import to_ours, to_theirs
from mlcls_jax.models.weights import load, save, to_foreign
from mlcls_jax.models.weights.fetch import local_file
from mlcls_jax.models.weights.foreign import read_weights
from mlcls_jax.models.weights.pickles import read_pdparams, read_pth
from tests.helpers.paddle_recipe import golden, weight, weights
from tests.helpers.web import serve

NAME = "PP-LCNet_x0_25_ML"


@pytest.fixture(scope="module")
def drawn():
    return weights(golden(NAME)["params"])


@cache
def created(name, num_classes):
    return models.create(name, num_classes=num_classes)


def model_of(num_classes=80, name=NAME):
    """A model to load weights into, which replaces all of it."""
    model = created(name, num_classes)
    return Model(model.network, model.variables)


def write_pickle(path, content, protocol):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("with_names", [True, False])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pdparams_are_read_in_every_protocol(tmp_path, drawn, protocol, with_names):
    content = dict(drawn)
    if with_names:
        content["StructuredToParameterName@@"] = {"conv1.conv.weight": "conv2d_0.w_0"}
    path = write_pickle(tmp_path / "model.pdparams", content, protocol)
    arrays = read_pdparams(path)
    assert arrays.keys() == drawn.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, drawn[key])


def test_a_file_of_paddles_fills_a_whole_model(tmp_path, drawn):
    path = write_pickle(tmp_path / "model.pdparams", drawn, 4)
    report = load(model_of(), path)
    assert len(report.loaded) == 168
    assert not report.initial and not report.ignored
    assert report.origin == "paddle"
    head = models.create(NAME, num_classes=80, weights=path).variables.params["head"]
    np.testing.assert_array_equal(head["group_bias"], drawn["fc.group_conv.bias"])


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


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "not a weight file, or damaged"),
        (b"\x80\x04garbage", "not a weight file, or damaged"),
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
        ("m.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
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


TORCH = Path(__file__).parents[1] / "data" / "torch"  # written by PyTorch 2.13


@pytest.mark.parametrize("name", ["plain.pth", "nested.pth", "legacy.pth"])  # before 1.6
def test_pytorch_files_are_read_without_pytorch(name):
    tensors = read_pth(TORCH / name)
    np.testing.assert_array_equal(tensors["a"], np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(tensors["b"], np.float32([1.5, -2.0, 3.140625]))  # bfloat16
    np.testing.assert_array_equal(tensors["h"], np.float16([0.5, 2.0]))
    np.testing.assert_array_equal(tensors["t"], np.arange(6).reshape(2, 3).T)  # a transposed view
    np.testing.assert_array_equal(tensors["v"], [4, 5, 6])  # part of a larger storage
    np.testing.assert_array_equal(tensors["p"], [1, 1])  # a Parameter
    assert tensors["n"] == 7 and tensors["e"].shape == (0, 3)


@pytest.mark.parametrize("name", ["m.safetensors", "m.pdparams", "m.ckpt"])
@pytest.mark.parametrize("torch", ["plain.pth", "legacy.pth"])
def test_a_file_named_as_what_it_is_not_is_read_as_what_it_is(tmp_path, torch, name):
    (tmp_path / name).write_bytes((TORCH / torch).read_bytes())
    assert read_weights(tmp_path / name).keys() == read_pth(TORCH / torch).keys()


def test_other_weights_named_as_pytorchs_are_read(tmp_path):
    array, path = {"a": np.ones(2, np.float32)}, tmp_path / "m.pth"
    for content in (safetensors.numpy.save(array), pickle.dumps(array, 4)):
        path.write_bytes(content)
        np.testing.assert_array_equal(read_weights(path)["a"], array["a"])


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b"collections\nOrderedDict", b"posix\nmkdir\n", "refused.*posix"),
        (b"FloatStorage", b"DoubleStorag", "refused"),
        (b"K\x06Nt", b"K\x07Nt", "not as long as it says|beyond its data"),
        (b"\x80\x02M\xe9\x03.", b"\x80\x02M\xea\x03.", "neither a zip file nor"),
    ],
)
def test_a_changed_pytorch_file_of_before_1_6_is_refused(tmp_path, old, new, told):
    content = (TORCH / "legacy.pth").read_bytes()
    assert old in content
    (tmp_path / "m.pth").write_bytes(content.replace(old, new, 1))
    with pytest.raises(WeightsError, match=told):
        read_pth(tmp_path / "m.pth")


def test_a_pytorch_file_of_before_1_6_that_is_cut_anywhere_is_refused(tmp_path):
    content = (TORCH / "legacy.pth").read_bytes()
    for length in (*range(0, len(content), 50), len(content) - 1):
        (tmp_path / "m.pth").write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"m\.pth: not a weight file, or damaged"):
            read_pth(tmp_path / "m.pth")


def test_a_url_is_fetched_once_and_checked(tmp_path, monkeypatch, drawn):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "served"
    folder.mkdir()
    data = write_pickle(folder / "m.pdparams", drawn, 4).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    with serve(folder) as server:
        with pytest.raises(WeightsError, match="SHA-256"):
            load(model_of(), f"{server.url}/m.pdparams#sha256={'0' * 64}")
        assert not load(model_of(), f"{server.url}/m.pdparams#sha256={digest}").initial
        with pytest.raises(WeightsError, match="cannot be fetched"):
            load(model_of(), f"{server.url}/missing.pdparams")
    assert not load(model_of(), f"{server.url}/m.pdparams").initial  # from the cache
    cached = sorted(p for p in (tmp_path / "cache").rglob("*") if p.is_file())
    assert [p.name[13:] for p in cached] == ["m.pdparams", "m.pdparams.sha256"]
    assert cached[1].read_text().strip() == digest


def test_another_file_under_a_known_address_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "w.pth").write_bytes(b"first")
    with serve(folder) as server:
        url = f"{server.url}/w.pth"
        copy = local_file(url)
        assert copy.read_bytes() == b"first"
        copy.write_bytes(b"firsT")  # a damaged cache
        with pytest.raises(WeightsError, match="that of the first file from there was") as caught:
            local_file(url)
        assert str(copy) in caught.value.hint
        copy.unlink()
        assert local_file(url).read_bytes() == b"first"

        copy.unlink()
        (folder / "w.pth").write_bytes(b"second")
        with pytest.raises(WeightsError, match="that of the first file from there was") as caught:
            local_file(url)
        assert not copy.exists() and not list(copy.parent.glob("*.tmp"))
        copy.with_name(caught.value.hint.rpartition("/")[2]).unlink()  # as the hint says
        assert local_file(url).read_bytes() == b"second"

        (folder / "w.pth").write_bytes(b"third")  # and with a digest it is fetched by itself
        pinned = f"{url}#sha256={hashlib.sha256(b'third').hexdigest().upper()}"
        assert local_file(pinned).read_bytes() == b"third"
        assert local_file(url).read_bytes() == b"third"


def test_a_failed_download_says_where_the_file_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    url = "http://127.0.0.1:9/w.safetensors"
    with pytest.raises(WeightsError, match="cannot be fetched") as caught:
        local_file(url)
    place = Path(caught.value.hint.rpartition(" ")[2])
    assert tmp_path in place.parents
    place.write_bytes(b"by hand")
    assert local_file(url) == place


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "nothing"), (b"\n<!DOCTYPE html><html>", "a page for people")]
)
def test_what_came_in_the_place_of_a_file_is_not_kept(tmp_path, monkeypatch, content, told):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(remote, "copy_from_web", lambda url, to, title: to.write_bytes(content))
    with pytest.raises(WeightsError, match=f"{told} came in its place"):
        local_file("https://weights.test/w.pth")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_addresses_that_are_none_or_long_are_no_fault_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(remote, "copy_from_web", lambda url, to, title: to.write_bytes(b"w"))
    with pytest.raises(WeightsError, match="is no address"):
        local_file("http://[::1/w.pth")
    assert local_file(f"https://weights.test/{'x' * 300}.pth").suffix == ".pth"


HUB = """
from pathlib import Path
from huggingface_hub import errors

def hf_hub_download(repo_id, filename, *, revision=None):
    if (repo_id, filename) != ("owner/name", "weights.safetensors"):
        raise errors.EntryNotFoundError(filename)
    return Path(__file__).with_name(revision or "main")
"""
HUB_ERRORS = """
class EntryNotFoundError(Exception): ...
class LocalEntryNotFoundError(EntryNotFoundError): ...
"""


def test_the_hub_is_asked_for_the_revision(tmp_path, monkeypatch):
    package = tmp_path / "huggingface_hub"
    package.mkdir()
    (package / "__init__.py").write_text(HUB)
    (package / "errors.py").write_text(HUB_ERRORS)
    (package / "main").write_bytes(b"1")
    (package / "v1.0").write_bytes(b"1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("huggingface_hub", "huggingface_hub.errors"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert local_file("hf://owner/name") == package / "main"
    pinned = ("hf://owner/name@v1.0", "hf://owner/name@v1.0/weights.safetensors")
    assert {local_file(address) for address in pinned} == {package / "v1.0"}
    with pytest.raises(WeightsError, match="holds none of other.bin"):
        local_file("hf://owner/name@v1.0/other.bin")
    with pytest.raises(WeightsError, match="no address on the hub"):
        local_file("hf://owner")
    (package / "main").write_bytes(b"2")
    with pytest.raises(WeightsError, match="that of the first file from there was"):
        local_file("hf://owner/name")
    for name in ("huggingface_hub", "huggingface_hub.errors"):
        sys.modules.pop(name)


def test_the_hub_says_which_package_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    with pytest.raises(WeightsError) as caught:
        load(model_of(), "hf://owner/name")
    assert caught.value.hint == install_hint("hub")


@pytest.mark.parametrize("suffix", [".pdparams", ".safetensors"])
def test_saved_weights_are_readable_as_the_umask_says(tmp_path, suffix):
    model = models.create("PP-LCNet_x0_25", num_classes=5)
    before = os.umask(0o027)
    try:
        path = save(model, tmp_path / f"w{suffix}", "paddle")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_an_origin_cannot_express_is_not_exported_in_silence(drawn):
    model = models.create("PP-LCNet_x0_25", num_classes=5)
    load(model, {"conv_head.bias": np.ones(1280), "conv_stem.weight": np.ones(1)}, strict=False)
    with pytest.raises(WeightsError, match=r"backbone/last_conv/bias.*paddle has 0\.0 built in"):
        to_foreign(model, "paddle")


@pytest.mark.parametrize("name", ["PP-LCNet_x0_25", NAME])
def test_paddles_factor_is_folded_for_timm_and_taken_out_again(tmp_path, name):
    batch = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    source = models.create(name, num_classes=5, seed=3)  # scales its features as Paddle does
    forward = jax.jit(source.network.apply)  # compiled once for all
    expected = forward(source.variables, batch).logits
    scale = flatten(source.variables)["backbone/feature_scale"]
    for origin in ("timm", "paddle"):
        path = save(source, tmp_path / f"{origin}.safetensors", origin)
        model = models.create(name, num_classes=5, seed=4)
        report = load(model, path)
        assert report.origin == origin and not report.initial and not report.ignored
        built_in = 1.0 if origin == "timm" else scale
        assert flatten(model.variables)["backbone/feature_scale"] == built_in
        logits = forward(model.variables, batch).logits
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
        source = model


def openai_names(timm):
    """A timm state dict of a CLIP tower in OpenAI's names."""
    renames = [
        ("patch_embed.proj", "conv1"), ("norm_pre", "ln_pre"),
        ("blocks.", "transformer.resblocks."),
        ("attn.qkv.", "attn.in_proj_"), ("attn.proj", "attn.out_proj"), (".norm1", ".ln_1"),
        (".norm2", ".ln_2"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
    ]  # fmt: skip
    tower = {"cls_token": "class_embedding", "pos_embed": "positional_embedding"}
    result = {}
    for key, array in timm.items():
        if key.startswith("head"):
            continue
        for old, new in renames:
            key = key.replace(old, new)
        key = tower.get(key, key.replace("norm.", "ln_post."))
        result[f"visual.{key}"] = array.squeeze() if "embedding" in key else array
    return result | {"visual.proj": np.zeros((768, 512)), "logit_scale": np.ones(())}


def huggingface_names(timm):
    """The same in Hugging Face's names, with queries, keys and values apart."""
    renames = [
        ("patch_embed.proj", "embeddings.patch_embedding"), ("norm_pre", "pre_layrnorm"),
        ("blocks.", "encoder.layers."), ("attn.proj", "self_attn.out_proj"),
        (".norm1", ".layer_norm1"), (".norm2", ".layer_norm2"),
    ]  # fmt: skip
    tower = {"cls_token": "embeddings.class_embedding",
             "pos_embed": "embeddings.position_embedding.weight"}  # fmt: skip
    result = {}
    for key, array in timm.items():
        if key.startswith("head"):
            continue
        for old, new in renames:
            key = key.replace(old, new)
        key = tower.get(key, key)
        if key.startswith("norm."):
            key = key.replace("norm.", "post_layernorm.")
        if "attn.qkv" in key:
            for name, part in zip("qkv", np.split(array, 3), strict=True):
                result["vision_model." + key.replace("attn.qkv", f"self_attn.{name}_proj")] = part
        else:
            result[f"vision_model.{key}"] = array.squeeze() if "embeddings.c" in key else array
    pos = "vision_model.embeddings.position_embedding.weight"
    return result | {pos: result[pos][0]}


@pytest.mark.slow
def test_openai_and_hugging_face_towers_give_the_same_features_as_timms():
    name = "CLIP_vit_base_patch32_224_ML"
    source = models.create(name, num_classes=5, quick_gelu=True, seed=1)
    timm = {k: v for k, v in to_foreign(source, "timm").items() if not k.startswith("head")}
    batch = jnp.asarray(np.random.default_rng(0).normal(size=(1, 64, 64, 3)), jnp.float32)
    expected = source.network.module(source.variables).backbone(batch)
    for origin, arrays in (
        ("openai", openai_names(timm)),
        ("huggingface", huggingface_names(timm)),
    ):
        model = models.create(name, num_classes=5, seed=2)
        report = load(model, arrays)
        assert report.origin == origin
        assert all(path.startswith("head/") for path in report.initial)
        assert model.network.config.quick_gelu  # as these towers were trained
        features = model.network.module(model.variables).backbone(batch)
        np.testing.assert_allclose(features, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 785, 768), (785, 768), (1, 10, 768)])
def test_position_embeddings_of_another_grid_are_kept_and_resampled_to_the_images(shape):
    """A grid of 28, as timm has it at 448, or of 3."""
    key = "pos_embed" if len(shape) == 3 else "visual.positional_embedding"
    side = int(np.sqrt(shape[-2] - 1))
    given = np.random.default_rng(0).normal(size=shape[-2:])
    network = Network.of(ModelConfig(name="CLIP_vit_base_patch16_224", num_classes=3))
    model = Model(network, network.abstract)
    norm = "norm.weight" if len(shape) == 3 else "visual.ln_post.weight"
    report = load(model, {key: given.reshape(shape), norm: np.ones(768)}, strict=False)
    assert report.resampled == (f"backbone/pos_embed {shape}, here (1, 197, 768)",)
    assert "backbone/pos_embed" in report.loaded and "of another grid" in str(report)
    assert model.network.config.position_grid == side
    found = np.asarray(flatten(model.variables)["backbone/pos_embed"])
    np.testing.assert_array_equal(found, given.reshape(1, *shape[-2:]).astype(np.float32))
    again = Model(Network.of(model.network.config), model.network.abstract)  # as a bundle does
    own = {"backbone/pos_embed": found, "backbone/norm/scale": np.ones(768)}
    assert not load(again, own, strict=False).resampled


@pytest.mark.parametrize("shape", [(1, 784, 768), (1, 785, 512), (2, 197, 768), (197,)])
def test_other_position_embeddings_are_told(shape):
    network = Network.of(ModelConfig(name="CLIP_vit_base_patch16_224", num_classes=3))
    arrays = {"pos_embed": np.zeros(shape), "norm.weight": np.ones(768)}
    with pytest.raises(WeightsError, match=re.escape(f"backbone/pos_embed {shape}, here (1, 197")):
        load(Model(network, network.abstract), arrays)
