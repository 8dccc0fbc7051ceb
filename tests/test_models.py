"""Models equal the Paddle originals, tensor for tensor and logit for logit."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax import models
from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.errors import ConfigError
from mlcls_jax.models import Network
from mlcls_jax.models.classifier import MEAN, STD
from mlcls_jax.models.network import Model, Variables, flatten
from mlcls_jax.models.weights import load
from mlcls_jax.models.weights.names import to_theirs
from tests.paddle_recipe import DATA, golden, images, weights

GOLDENS = (
    "PP-LCNet_x0_25_ML",
    "PP-LCNet_x1_0_ML",
    "PP-LCNet_x0_25_ML__193x257_c80_q80_b2",
    "PP-LCNet_x1_0_ML__193x257_c80_q80_b2",
)
SMALL = GOLDENS[2]


@pytest.fixture(scope="module")
def small_model():
    model = models.create("PP-LCNet_x0_25_ML", num_classes=80)
    load(model, weights(golden(SMALL)["params"]))
    return model


@pytest.mark.parametrize("name", GOLDENS)
def test_logits_and_features_equal_the_original(name):
    expected = golden(name)
    model = models.create(name.partition("__")[0], num_classes=80)
    report = load(model, weights(expected["params"]))
    assert not report.initial and not report.ignored

    batch = images(int(expected["batch"]), *expected["resolution"])
    np.testing.assert_allclose(model(batch), expected["logits"], atol=1e-4, rtol=0)

    backbone = model.network.module(model.variables).backbone
    features = np.asarray(jax.jit(backbone)(batch)).transpose(0, 3, 1, 2)
    assert features.shape == tuple(expected["feat_shape"])
    every = features[:, :: int(expected["feat_slice_step"])]
    scale = expected["feat_slice64"].std()
    np.testing.assert_allclose(every, expected["feat_slice64"], atol=1e-4 * scale, rtol=0)


def test_float64_logits_equal_the_originals_to_ten_digits(small_model):
    expected = golden(SMALL)
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), small_model.variables)
        batch = jnp.asarray(images(2, *expected["resolution"]), jnp.float64)
        logits = Model(small_model.network, variables)(batch)
        np.testing.assert_allclose(logits, expected["logits64"], atol=1e-8, rtol=0)


@pytest.mark.parametrize("table", sorted(DATA.glob("params/*.tsv")), ids=lambda p: p.stem)
def test_tensors_have_the_originals_names_and_shapes(table):
    with table.open() as file:
        theirs = {key: tuple(json.loads(shape)) for key, shape in csv.reader(file, delimiter="\t")}
    is_plain = table.stem.endswith("_cls1000")
    name, classes = (table.stem.removesuffix("_cls1000"), 1000) if is_plain else (table.stem, 80)
    network = Network.of(ModelConfig(name=name, num_classes=classes))
    shapes = {path: leaf.shape for path, leaf in flatten(network.abstract).items()}
    ours = {
        foreign.key: to_theirs(np.empty(shapes[path]), foreign.layout).shape
        for path, foreign in network.foreign_names["paddle"].items()
        if foreign.key is not None
    }
    assert network.foreign_names["paddle"].keys() == shapes.keys()
    assert ours == theirs


def test_only_what_the_originals_freeze_is_frozen():
    network = Network.of(ModelConfig(num_classes=80))
    assert network.frozen == {"head/query_embed", "backbone/feature_scale"}


def test_uint8_images_are_normalised_inside(small_model):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    normalised = (pixels.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    np.testing.assert_allclose(small_model(pixels), small_model(normalised), atol=1e-4)


def test_training_mode_uses_and_updates_batch_statistics(small_model):
    model = Model(small_model.network, small_model.variables)
    batch = images(4, 64, 64)
    before = model.variables
    logits = model(batch, train=True)
    assert np.abs(logits - small_model(batch)).max() > 1e-3
    mean = model.variables.batch_stats["backbone"]["conv1"]["norm"]["mean"]
    assert np.abs(mean - before.batch_stats["backbone"]["conv1"]["norm"]["mean"]).max() > 0
    assert model.variables.params is before.params


def test_dropout_needs_a_key_and_follows_it(small_model):
    batch = images(2, 64, 64)
    forward = jax.jit(small_model.network.apply, static_argnames="train")

    def logits(key):
        return np.asarray(forward(small_model.variables, batch, train=True, key=key)[0])

    one, same, other = (
        logits(jax.random.key(1)),
        logits(jax.random.key(1)),
        logits(jax.random.key(2)),
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-2
    assert np.abs(one - logits(None)).max() > 1e-2


def test_backbone_dropout_zeroes_the_right_share_and_keeps_the_originals_scale():
    # The original multiplies by a 0/1 mask in training and by 0.8 in evaluation.
    config = ModelConfig(name="PP-LCNet_x0_25_ML", num_classes=3, embed_dim=8, hidden_dim=8)
    network = Network.of(config)
    backbone = network.module(network.init(0)).backbone
    batch = images(4, 64, 64)
    plain = np.asarray(backbone(batch, train=True)) / 0.8
    dropped = backbone(batch, train=True, rngs=network.rngs(jax.random.key(0)))
    kept = np.asarray(dropped) != 0
    np.testing.assert_allclose(np.asarray(dropped)[kept], plain[kept], rtol=1e-5)
    assert kept.sum() / (plain != 0).sum() == pytest.approx(0.8, abs=0.02)


def test_bfloat16_computes_near_float32_and_returns_float32_logits(small_model):
    config = ModelConfig(name="PP-LCNet_x0_25_ML", num_classes=80, dtype="bfloat16")
    half = Model(Network.of(config), small_model.variables)
    batch = images(2, 64, 64)
    exact, rounded = np.asarray(small_model(batch)), half(batch)
    assert rounded.dtype == jnp.float32
    assert np.abs(rounded - exact).max() < 0.1 * exact.std()


def test_strides_keep_a_larger_map():
    config = ModelConfig(name="PP-LCNet_x0_25_ML", num_classes=3, strides=(2, 2, 2, 2, 1))
    network = Network.of(config)
    assert network.module(network.init(0)).backbone(images(1, 64, 64)).shape == (1, 4, 4, 1280)


@pytest.mark.parametrize("classes, queries", [(1, 80), (7, 0), (33, 20), (200, 80)])
def test_any_number_of_classes_and_queries(classes, queries):
    model = models.create("PP-LCNet_x0_25_ML", num_classes=classes, query_num=queries)
    assert model(images(2, 32, 32)).shape == (2, classes)


def test_the_seed_fixes_the_initial_weights():
    def create(seed):
        return flatten(models.create("PP-LCNet_x0_25_ML", num_classes=5, seed=seed).variables)

    one, same, other = create(1), create(1), create(2)
    for path in one:
        np.testing.assert_array_equal(one[path], same[path])
    kernels = [path for path in one if path.endswith("kernel")]
    assert all(np.abs(one[path] - other[path]).max() > 0 for path in kernels)


def test_initial_values_have_the_originals_distributions():
    params = flatten(models.create("PP-LCNet_x1_0_ML", num_classes=80).variables)
    conv = params["backbone/blocks5_1/pw_conv/conv/kernel"]
    assert conv.std() == pytest.approx((2 / conv.shape[2]) ** 0.5, rel=0.02)
    depthwise = params["backbone/blocks6_1/dw_conv/conv/kernel"]
    assert depthwise.std() == pytest.approx((2 / 25) ** 0.5, rel=0.02)
    linear, limit = params["head/layer0/linear1/kernel"], (6 / (768 + 2048)) ** 0.5
    assert np.abs(linear).max() == pytest.approx(limit, rel=0.001)
    assert linear.std() == pytest.approx(limit / 3**0.5, rel=0.01)
    queries = params["head/query_embed"]
    assert np.abs(queries).max() == pytest.approx((6 / 848) ** 0.5, rel=0.001)
    assert params["head/group_kernel"].std() == pytest.approx((2 / 848) ** 0.5, rel=0.02)
    assert not np.any(params["head/group_bias"])


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"name": "PP-LCNet_x10_ML"}, "did you mean PP-LCNet_x1_0_ML"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"image_size": (448, 448, 3)}, "image_size"),
    ],
)
def test_impossible_models_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        models.create(**{"name": "PP-LCNet_x1_0_ML", "num_classes": 3, **wrong})


def test_the_wrong_number_of_strides_is_refused():
    with pytest.raises(ConfigError, match="has 5 strides"):
        Network.of(ModelConfig(num_classes=3, strides=(2, 2)))


@pytest.mark.parametrize(
    "batch", [np.zeros((2, 3, 8, 8)), np.zeros((8, 8, 3)), np.zeros((1, 8, 8, 3), np.int32)]
)
def test_images_of_the_wrong_shape_or_type_are_refused(small_model, batch):
    with pytest.raises(ValueError, match="images must be"):
        small_model(batch)


def test_models_are_listed_by_pattern():
    assert "PP-LCNet_x1_0_ML" in models.list_models()
    assert len(models.list_models("PP-LCNet_*_ML")) == 8


def test_variables_flatten_and_unflatten():
    network = Network.of(ModelConfig(name="PP-LCNet_x0_25_ML", num_classes=3))
    assert isinstance(network.abstract, Variables)
    assert len(flatten(network.abstract)) == 168
