"""Models equal the Paddle originals, tensor for tensor and logit for logit."""

import csv
import dataclasses
import itertools
import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax import models
from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.errors import ConfigError
from mlcls_jax.imagenet import MEAN, STD
from mlcls_jax.models import Network
from mlcls_jax.models.backbones import mobilenetv3, pphgnetv2, pplcnet, resnet
from mlcls_jax.models.counting import feature_map
from mlcls_jax.models.dropout import Draws
from mlcls_jax.models.network import Model, Variables, flatten
from mlcls_jax.models.positions import resample_positions
from mlcls_jax.models.weight_names import to_theirs
from mlcls_jax.models.weights import load
from mlcls_jax.recipes.hgnetv2 import AFFINES
from tests.helpers.captured import outputs_and_maps
from tests.helpers.paddle_recipe import DATA, golden, images, weights
from tests.helpers.tiers import slow

GOLDENS = (
    "PP-LCNet_x0_25_ML",
    "PP-LCNet_x1_0_ML",
    "PP-LCNet_x0_25_ML__193x257_c80_q80_b2",
    "PP-LCNet_x1_0_ML__193x257_c80_q80_b2",
    "PP-HGNetV2-B0_ML",
    "PP-HGNetV2-B0_ML__193x257_c80_q80_b2",
    "PP-HGNetV2-B1_ML",
    "PP-HGNetV2-B1_ML__193x257_c80_q80_b2",
    "ResNet50_ML__193x257_c80_q80_b2",
    "MobileNetV3_large_x1_0_ML__193x257_c80_b2",
    "MobileNetV3_small_x0_35_ML__128x128_c80_b2",
)
# Of these the first image alone, to save time.
LARGE_GOLDENS = (
    "PP-HGNetV2-B4_ML",
    "PP-HGNetV2-B6_ML",
    "ResNet50_ML",
    "ResNet101_ML",
    "ResNet152_ML",
)
SMALL = GOLDENS[2]
QUICK = (GOLDENS[0], GOLDENS[5], GOLDENS[8], GOLDENS[10])


@pytest.fixture(scope="module")
def small_model():
    model = models.create("PP-LCNet_x0_25_ML", num_classes=80)
    load(model, weights(golden(SMALL)["params"]))
    return model


def taps(name):
    """Where the originals' intermediate maps are found: golden's name → module of the backbone."""
    if name.startswith("PP-LCNet"):
        stages = pplcnet.STAGES.items()
        return {"conv1": "conv1"} | {stage: f"{stage}_{len(b) - 1}" for stage, b in stages}
    if name.startswith("MobileNetV3"):
        blocks = mobilenetv3.BLOCKS["large" if "large" in name else "small"]
        return {path: path for path in ("conv", *(f"block{i}" for i in range(len(blocks))))}
    if name.startswith("ResNet"):
        blocks = resnet.VARIANTS[name.partition("_")[0]].blocks
        last = itertools.accumulate(blocks, initial=-1)
        return {"stem": "stem"} | {f"stage{i - 1}": f"block{n}" for i, n in enumerate(last) if i}
    stages = pphgnetv2.VARIANTS[name.partition("_")[0]].stages
    last = {f"stage{i}": f"stage{i}/block{count - 1}" for i, (_, _, count) in enumerate(stages)}
    return {"stem": "stem"} | last


@pytest.mark.parametrize(
    "name", [name if name in QUICK else slow(name) for name in (*GOLDENS, *LARGE_GOLDENS)]
)
def test_logits_and_features_equal_the_original(name):
    expected = golden(name)
    model = models.create(name.partition("__")[0], num_classes=80)
    report = load(model, weights(expected["params"]))
    assert not report.initial and not report.ignored

    count = 1 if name in LARGE_GOLDENS else int(expected["batch"])
    batch = images(int(expected["batch"]), *expected["resolution"])[:count]
    paths = taps(name)
    logits, features, maps = outputs_and_maps(model, batch, list(paths.values()))
    for tap, path in paths.items():
        means = expected[f"tap/{tap}"][:count]
        error = np.abs(maps[path].mean((1, 2)) - means).max() / means.std()
        assert error < 1e-4, f"{path} is the first module that differs"

    shape = tuple(expected["feat_shape"])
    features = features.transpose(0, 3, 1, 2)
    assert features.shape == (count, *shape[1:])
    every = features[:, :: int(expected["feat_slice_step"])]
    theirs = expected["feat_slice64"][:count]
    np.testing.assert_allclose(every, theirs, atol=1e-4 * theirs.std(), rtol=0)
    np.testing.assert_allclose(logits, expected["logits"][:count], atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "CLIP_vit_base_patch16_448_ML__224x224_c80_q80_b2",
        slow("CLIP_vit_base_patch16_448_ML__320x330_c80_q80_b1"),  # patches do not divide its sides
        slow("CLIP_vit_base_patch16_448_ML"),
    ],
)
def test_clip_equals_the_original(name):
    expected = golden(name)
    model = models.create(name.partition("__")[0], num_classes=80)
    report = load(model, weights(expected["params"]))
    assert report.ignored == ("proj",) and not report.initial  # it is unused there, too
    assert model.network.config.memory == "first_patch"  # all that the original's head sees

    batch = images(int(expected["batch"]), *expected["resolution"])
    paths = {"ln_pre": "ln_pre"} | {f"block{i}": f"block{i}" for i in range(12)}
    logits, features, maps = outputs_and_maps(model, batch, list(paths.values()))
    for tap, path in paths.items():
        means = expected[f"tap/{tap}"]
        error = np.abs(maps[path].mean(1) - means).max() / means.std()
        assert error < 1e-4, f"{path} is the first module that differs"
    assert features.shape == (len(batch), 1, 1, 768)
    vectors = expected["feat_chmean64"]
    np.testing.assert_allclose(features[:, 0, 0], vectors, atol=1e-4 * vectors.std(), rtol=0)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4, rtol=0)


def test_clip_shows_a_new_head_all_patches():
    config = ModelConfig(name="CLIP_vit_base_patch32_224_ML", num_classes=3)
    assert feature_map(Network.of(config), (64, 96)) == (2, 3, 768)
    first = dataclasses.replace(config, memory="first_patch")
    assert feature_map(Network.of(first), (64, 96)) == (1, 1, 768)


@pytest.mark.slow
def test_an_explicit_memory_survives_the_import():
    expected = golden("CLIP_vit_base_patch16_448_ML__224x224_c80_q80_b2")
    model = models.create("CLIP_vit_base_patch16_448_ML", num_classes=80, memory="patches")
    load(model, weights(expected["params"]))
    assert model.network.config.memory == "patches"


def test_resampled_positions_keep_a_constant_and_the_class_token():
    positions = jnp.concatenate([jnp.full((1, 1, 4), 7.0), jnp.full((1, 9, 4), 3.0)], axis=1)
    resampled = resample_positions(positions, 3, (5, 2))
    assert resampled.shape == (1, 11, 4)
    np.testing.assert_allclose(resampled[:, 0], 7.0)
    np.testing.assert_allclose(resampled[:, 1:], 3.0, rtol=1e-6)


@pytest.mark.parametrize("name", [SMALL, slow("PP-HGNetV2-B0_ML__193x257_c80_q80_b2")])
def test_float64_logits_equal_the_originals_to_ten_digits(name):
    expected = golden(name)
    model = models.create(name.partition("__")[0], num_classes=80)
    load(model, weights(expected["params"]))
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), model.variables)
        batch = jnp.asarray(images(2, *expected["resolution"]), jnp.float64)
        logits = Model(model.network, variables)(batch)
        np.testing.assert_allclose(logits, expected["logits64"], atol=1e-8, rtol=0)


@pytest.mark.parametrize("table", sorted(DATA.glob("params/*.tsv")), ids=lambda p: p.stem)
def test_tensors_have_the_originals_names_and_shapes(table):
    with table.open() as file:
        theirs = {key: tuple(json.loads(shape)) for key, shape in csv.reader(file, delimiter="\t")}
    theirs.pop("proj", None)  # CLIP's projection into the text space, unused there and here
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


def test_uint8_images_are_normalised_inside(toy):
    model = models.create("Toy_ML", num_classes=80)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    normalised = (pixels.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    np.testing.assert_allclose(model(pixels), model(normalised), atol=1e-4)


@pytest.mark.slow
def test_training_mode_uses_and_updates_batch_statistics(small_model):
    model = Model(small_model.network, small_model.variables)
    batch = images(4, 64, 64)
    before = model.variables
    logits = model(batch, train=True)
    assert np.abs(logits - small_model(batch)).max() > 1e-3
    mean = model.variables.batch_stats["backbone"]["conv1"]["norm"]["mean"]
    assert np.abs(mean - before.batch_stats["backbone"]["conv1"]["norm"]["mean"]).max() > 0
    assert model.variables.params is before.params


@pytest.mark.slow
def test_dropout_needs_a_key_and_follows_it(small_model):
    batch = images(2, 64, 64)
    forward = jax.jit(small_model.network.apply, static_argnames="train")

    def logits(key):
        return np.asarray(forward(small_model.variables, batch, train=True, key=key).logits)

    one, same, other = (
        logits(jax.random.key(1)),
        logits(jax.random.key(1)),
        logits(jax.random.key(2)),
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-2
    assert np.abs(one - logits(None)).max() > 1e-2


@pytest.mark.slow
def test_backbone_dropout_zeroes_the_right_share_and_keeps_the_originals_scale():
    # The original multiplies by a 0/1 mask in training and by 0.8 in evaluation.
    config = ModelConfig(name="PP-LCNet_x0_25_ML", num_classes=3, embed_dim=8, hidden_dim=8)
    network = Network.of(config)

    @jax.jit
    def both(variables, batch):
        backbone = network.module(variables).backbone
        dropped = backbone(batch, train=True, draws=Draws(jax.random.key(0)))
        return backbone(batch, train=True) / 0.8, dropped

    plain, dropped = jax.tree.map(np.asarray, both(network.init(0), images(4, 64, 64)))
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], plain[kept], rtol=1e-5)
    assert kept.sum() / (plain != 0).sum() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    "name",
    [
        slow("PP-LCNet_x0_25_ML"),
        slow("PP-HGNetV2-B0_ML"),
        slow("ResNet18_ML"),
        slow("CLIP_vit_base_patch32_224_ML"),
    ],
)
def test_bfloat16_computes_near_float32_and_keeps_numbers_in_float32(name):
    exact = models.create(name, num_classes=80)
    config = dataclasses.replace(exact.network.config, dtype="bfloat16")
    half = Model(Network.of(config), exact.variables)
    batch = images(2, 64, 64)
    logits, rounded = np.asarray(exact(batch)), half(batch)
    assert rounded.dtype == jnp.float32
    assert np.abs(rounded - logits).max() < 0.1 * logits.std()
    trained = jax.eval_shape(partial(half.network.apply, train=True), half.variables, batch)
    numbers = (trained.logits, trained.batch_stats, half.variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(numbers)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    "name, strides, channels",
    [
        slow("PP-LCNet_x0_25_ML", (2, 2, 2, 2, 1), 1280),
        slow("PP-HGNetV2-B0_ML", (2, 2, 2, 2, 1), 2048),
        ("ResNet18_ML", (2, 1, 2, 2, 1), 512),
    ],
)
def test_strides_keep_a_larger_map(name, strides, channels):
    network = Network.of(ModelConfig(name=name, num_classes=3, strides=strides))
    assert feature_map(network, (64, 64)) == (4, 4, channels)


def test_basic_resnets_have_torchvisions_sizes():
    for name, count in (("ResNet18", 11_689_512), ("ResNet34", 21_797_672)):
        params = Network.of(ModelConfig(name=name, num_classes=1000)).abstract.params
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_options_that_an_architecture_lacks_are_refused():
    with pytest.raises(ConfigError, match="backbone_dropout=0.1: ResNet50_ML has no"):
        Network.of(ModelConfig(name="ResNet50_ML", num_classes=3, backbone_dropout=0.1))


def test_every_affine_of_hgnet_is_matched_by_its_multiplier():
    network = Network.of(ModelConfig(name="PP-HGNetV2-B0_ML", num_classes=3))
    (multiplier,) = AFFINES
    pattern = multiplier.rpartition("=")[0]
    matched = [path for path in flatten(network.abstract) if re.search(pattern, path)]
    scalars = [path for path, leaf in flatten(network.abstract).items() if leaf.shape == (1,)]
    assert matched and set(matched) == set(scalars)


@pytest.mark.parametrize("classes, queries", [slow(1, 80), slow(7, 0), (33, 20), slow(200, 80)])
def test_any_number_of_classes_and_queries(classes, queries):
    config = ModelConfig(name="PP-LCNet_x0_25_ML", num_classes=classes, query_num=queries)
    network = Network.of(config)
    outputs = jax.eval_shape(network.apply, network.abstract, images(2, 32, 32))
    assert outputs.logits.shape == (2, classes)


def test_the_seed_fixes_the_initial_weights():
    model = models.create("PP-LCNet_x0_25_ML", num_classes=5, seed=1)
    one = flatten(model.variables)
    same, other = (flatten(model.network.init(seed)) for seed in (1, 2))
    for path in one:
        np.testing.assert_array_equal(one[path], same[path])
    kernels = [path for path in one if path.endswith("kernel")]
    assert all(np.abs(one[path] - other[path]).max() > 0 for path in kernels)


def test_initial_values_have_the_originals_distributions():
    params = flatten(models.create("PP-LCNet_x1_0_ML", num_classes=80, initial="paddle").variables)
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
    plain = flatten(models.create("ResNet18", num_classes=80).variables)
    assert np.abs(plain["head/fc/kernel"]).max() == pytest.approx(512**-0.5, rel=0.001)
    assert plain["backbone/block0/conv0/conv/kernel"].std() == pytest.approx(
        (2 / (9 * 64)) ** 0.5, rel=0.02
    )


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"name": "PP-LCNet_x10_ML"}, "did you mean PP-LCNet_x1_0_ML"),
        # Of timm, with a tag: near a name of timm alone, and there are too many to list.
        ({"name": "regnetx_032.tv2_in1k_ML"}, "did you mean regnety_032_ML"),
        ({"name": "swinv2_cr_tiny_ns_224.sw_in1k"}, "did you mean swin_s3_tiny_224"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"image_size": (448, 448, 3)}, "image_size"),
    ],
)
def test_impossible_models_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        models.create(**{"name": "PP-LCNet_x1_0_ML", "num_classes": 3, **wrong})


@pytest.mark.parametrize(
    ("strides", "message"),
    [((2, 2), "has 5 strides"), ((2, 2, 2, 2, 3), "model.strides"), ("22222", "model.strides")],
)
def test_wrong_strides_are_refused(strides, message):
    with pytest.raises(ConfigError, match=message):
        models.create("PP-LCNet_x1_0_ML", num_classes=3, strides=strides)


def test_strides_are_an_option_of_create():
    model = models.create("PP-LCNet_x0_25", num_classes=3, strides=[2, 2, 2, 2, 1])
    assert model.network.config.strides == (2, 2, 2, 2, 1)
    with pytest.raises(ConfigError, match="CLIP_vit_base_patch32_224 has no such option"):
        models.create("CLIP_vit_base_patch32_224", num_classes=3, strides=(2,))


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
