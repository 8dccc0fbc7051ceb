"""Weights under timm's names give timm's logits in the plain classifiers."""

import json
import zlib
from dataclasses import replace

import jax
import numpy as np
import pytest

from mlcls_jax import models
from mlcls_jax.models import registry
from mlcls_jax.models.backbones import tresnet
from mlcls_jax.models.network import flatten
from mlcls_jax.models.positions import resample_biases
from mlcls_jax.models.weight_names import to_theirs
from mlcls_jax.models.weights import load
from tests.helpers import mini_swin, tiny_vit
from tests.helpers.captured import outputs_and_maps
from tests.helpers.paddle_recipe import DATA
from tests.helpers.tiers import slow

# golden → our model, and the module of the backbone that gives timm's forward_features
# B0 takes half of the tolerance: before the stem's max-pool timm pads with 0 where Paddle pads with
# -inf, and affines make negative numbers there. With zeros it would be equal to 3e-6.
CASES = {
    "timm_lcnet_100_r224": ("PP-LCNet_x1_0", "blocks6_1"),
    "timm_hgnetv2_b0_r224": ("PP-HGNetV2-B0", "stage3/block0"),
    "timm_hgnetv2_b4_r224": ("PP-HGNetV2-B4", "stage3/block0"),
    "timm_hgnetv2_b6_r224": ("PP-HGNetV2-B6", "stage3/block2"),
    "timm_resnet50_r224": ("ResNet50", "block15"),
    "timm_convnext_tiny_r224": ("convnext_tiny", "stage3_2"),
    "timm_convnext_atto_ols_r70": ("convnext_atto_ols", "stage3_1"),  # a stem that overlaps
    "timm_convnextv2_tiny_r224": ("convnextv2_tiny", "stage3_2"),
    "timm_swin_tiny_patch4_window7_224_r224": ("swin_tiny_patch4_window7_224", "norm"),
    "timm_swinv2_tiny_window8_256_r256": ("swinv2_tiny_window8_256", "norm"),
    "timm_swin_mini_80x48": ("Swin_mini", "norm"),
    "timm_swinv2_mini_80x48": ("SwinV2_mini", "norm"),
    "timm_mobilenetv3_large_100_r224": ("mobilenetv3_large_100", "last_second_conv"),
    "timm_mobilenetv3_small_100_r224": ("mobilenetv3_small_100", "last_second_conv"),
    "timm_tf_mobilenetv3_small_minimal_100_r70": (
        "tf_mobilenetv3_small_minimal_100",
        "last_second_conv",
    ),
    "timm_tf_efficientnet_b0_r70": ("EfficientNetB0", "last_conv"),  # even and odd sides
    "timm_tf_efficientnetv2_s_r300": ("tf_efficientnetv2_s", "last_conv"),
    "timm_tf_efficientnet_lite0_r70": ("tf_efficientnet_lite0", "last_conv"),
    "timm_regnety_016_r224": ("regnety_016", "stage4_1"),
    "timm_tresnet_m_r224": ("tresnet_m", "layer4_2"),
    "timm_tresnet_v2_l_r64": ("tresnet_v2_l", "layer4_2"),
    "timm_resnet50d_r75": ("resnet50d", "block15"),  # means of parts of squares
    # One block a stage, and of ConvNeXt few channels.
    "timm_convnext_tiny_hnf_r70": ("convnext_tiny_hnf", "norm"),  # the norm comes before the mean
    "timm_convnext_large_mlp_r70": ("convnext_large_mlp", "stage3_0"),
    "timm_resnet10t_r70": ("resnet10t", "block3"),  # a stem whose widths rise
    "timm_resnetrs50_r70": ("resnetrs50", "block3"),  # no max-pool
    "timm_seresnextaa101d_32x8d_r64": ("seresnextaa101d_32x8d", "block3"),
}
QUICK = (
    "timm_lcnet_100_r224",
    "timm_mobilenetv3_small_100_r224",
    "timm_swin_mini_80x48",
)


def draw(key, shape, kind, *, seed, gain):
    """One tensor of a timm state dict, drawn as the goldens' recipe says."""
    rng = np.random.Generator(np.random.PCG64((zlib.crc32(key.encode()) ^ seed) & 0xFFFFFFFF))
    z = rng.standard_normal(shape).astype(np.float32)
    if kind == "conv":
        return np.float32(gain * np.sqrt(2 / np.prod(shape[1:]))) * z
    if kind == "linear":
        return np.float32(np.sqrt(1 / shape[-1])) * z
    if kind in ("bias", "mean"):
        return np.float32(0.1) * z
    if kind == "gamma":
        return np.float32(0.3) * (1 + np.float32(0.1) * np.tanh(z))
    if kind == "table":
        return np.float32(0.2) * z
    if kind == "embedding":
        return np.float32(0.02) * z
    return 1 + np.float32({"scale": 0.1, "variance": 0.5}[kind]) * np.tanh(z)


def read(case):
    """The golden, its drawn state dict and its input as NHWC."""
    with np.load(DATA.parent / "timm" / f"{case}.npz") as arrays:
        expected = dict(arrays)
    meta = json.loads(str(expected["meta"]))
    seed, gain = meta["seed"], meta["gain"]
    state = {
        key: draw(key, tuple(shape), kind, seed=seed, gain=gain)
        for key, (shape, kind) in meta["state"].items()
    }
    size = (meta["batch"], 3, *np.broadcast_to(meta["resolution"], 2))
    images = np.random.Generator(np.random.PCG64(seed)).standard_normal(size).astype(np.float32)
    return expected, state, images.transpose(0, 2, 3, 1)


def assert_near(ours, theirs):
    """Within the goldens' tolerance."""
    np.testing.assert_allclose(ours, theirs, atol=1e-3 * max(1.0, np.abs(theirs).max()), rtol=0)


def shallow(patch, name):
    """Give a network the one block a stage that its golden has, if it has such a one."""
    few = {"blocks": (1, 1, 1, 1), "widths": (8, 16, 24, 32)}
    options = {
        "convnext_tiny_hnf": few,
        "convnext_large_mlp": {**few, "hidden": 24},
        "resnetrs50": {"blocks": (1, 1, 1, 1)},
        "seresnextaa101d_32x8d": {"blocks": (1, 1, 1, 1)},
    }
    family, variant = registry.find_variant(name)
    sizes = replace(family.variants[variant], **options.get(name, {}))
    patch.setitem(family.variants, variant, sizes)


@pytest.mark.parametrize("case", [case if case in QUICK else slow(case) for case in CASES])
def test_logits_and_features_equal_timms(case, monkeypatch):
    mini_swin.register(monkeypatch)
    name, path = CASES[case]
    shallow(monkeypatch, name)
    expected, state, images = read(case)
    model = models.create(name, num_classes=len(next(reversed(state.values()))))
    report = load(model, state)
    assert report.origin == "timm"
    assert not report.initial and not report.ignored

    logits, _, maps = outputs_and_maps(model, images, [path])
    # Over the last two axes of timm's maps, [B, C, h, w], or [B, h, w, C] as ours; in older goldens
    # over the images too.
    means, is_ours = expected["feature_mean"], maps[path].shape == tuple(expected["feature_shape"])
    axes = (2, 3) if is_ours else (1, 2) if means.ndim == 2 else (0, 1, 2)
    assert_near(maps[path].mean(axes), means)
    assert_near(logits[:, :50], expected["logits"])


# Errors that were seen: at most 3e-6, where logits are about 2.
TRANSFORMERS = (
    "timm_mini_eva02_large_patch14_clip_224_70x42",  # matrices apart, an odd width, norms inside
    "timm_mini_vit_so400m_patch16_siglip_256_80x48",  # tanh GELU, a query that pools
    slow("timm_mini_eva02_base_patch14_224_70x42"),
    slow("timm_mini_eva02_enormous_patch14_clip_224_70x42"),  # norms after the layers
    slow("timm_mini_vit_base_patch32_clip_quickgelu_224_96x128"),
    slow("timm_mini_vit_giant_patch14_reg4_dinov2_70x42"),  # SwiGLU in one matrix
    slow("timm_mini_vit_small_plus_patch16_dinov3_qkvb_80x48"),
    slow("timm_mini_vit_base_patch16_radio_v3_80x48"),  # no norm at the end
    slow("timm_mini_vit_betwixt_patch16_rope_reg4_gap_256_80x48"),
    slow("timm_mini_vit_so150m2_patch16_reg1_gap_256_80x48"),  # a register has a position
    slow("timm_deit3_small_patch16_224_r224"),
    slow("timm_eva02_small_patch14_336_r336"),
    slow("timm_vit_base_patch16_clip_224_r224"),
    slow("timm_vit_base_patch16_siglip_224_r224"),
    slow("timm_vit_small_patch14_dinov2_r518"),
    slow("timm_vit_small_patch14_reg4_dinov2_r224"),  # positions of another grid than the name's
    slow("timm_vit_small_patch16_224_r224"),
    slow("timm_vit_small_patch16_dinov3_r256"),
)


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_transformers_equal_timms(case, monkeypatch):
    expected, state, images = read(case)
    name = json.loads(str(expected["meta"]))["model"].removeprefix("timm/")
    if "mini" in case:
        name = tiny_vit.shrink(monkeypatch, name)
    check_tokens(models.create(name, num_classes=len(state["head.bias"])), expected, state, images)


def check_tokens(model, expected, state, images):
    """Tokens after the last norm, and logits, are timm's."""
    report = load(model, state)
    assert report.origin == "timm"
    assert not report.initial and not report.ignored

    @jax.jit
    def outputs(variables, images):
        module = model.network.module(variables)
        tokens = module.backbone.tokens(images)[0]
        has_norm = not module.backbone.config.norm_after_pooling
        return module.backbone.norm(tokens) if has_norm else tokens, module(images)

    tokens, logits = (np.asarray(x) for x in outputs(model.variables, images))
    assert tokens.shape == tuple(expected["feature_shape"])
    means = expected["feature_mean"]  # of each image in newer goldens, of all in older ones
    assert_near(tokens.mean(1 if means.ndim == 2 else (0, 1)), means)
    assert_near(tokens[0].ravel()[:512], expected["features_first"])
    assert_near(logits[:, :50], expected["logits"])


def test_biases_of_other_windows_are_resampled_on_loading(monkeypatch):
    """As timm does: windows of twice the side at an image of twice the side mean the same."""
    mini_swin.register(monkeypatch)
    variants = registry.FAMILIES["SwinTransformer"].variants
    twice = replace(mini_swin.V1, windows=(8, 6, 8, 4), size=128)
    monkeypatch.setitem(variants, "Swin_twice", twice)
    _, state, _ = read("timm_swin_mini_80x48")
    index = "layers.0.blocks.1.attn.relative_position_index"  # which older files hold
    state[index] = np.zeros((16, 16), np.int64)
    model = models.create("Swin_twice", num_classes=50)
    report = load(model, state)
    assert not report.ignored and len(report.resampled) == sum(twice.depths)
    table = model.variables.params["backbone"]["stage0_1"]["attention"]["table"]
    given = state["layers.0.blocks.1.attn.relative_position_bias_table"]
    np.testing.assert_array_equal(table, resample_biases(given, 4, (8, 8)))


@pytest.mark.slow  # draws 86 million weights
def test_clip_under_the_name_of_paddle_equals_timms():
    expected, state, images = read("timm_vit_base_patch16_clip_quickgelu_224_r224")
    name = "CLIP_vit_base_patch16_224"
    model = models.create(name, num_classes=len(state["head.bias"]), quick_gelu=True)
    check_tokens(model, expected, state, images)


def test_scales_of_in_place_norms_count_by_their_absolute_value(monkeypatch):
    tiny = tresnet.TResNetConfig(blocks=(1, 1, 1, 1), width=8)
    monkeypatch.setitem(tresnet.VARIANTS, "Tiny", tiny)
    model = models.create("Tiny", num_classes=3)
    table = model.network.foreign_names["abn"]
    shapes = {path: array.shape for path, array in flatten(model.variables).items()}
    rng = np.random.default_rng(0)
    state = {
        foreign.key: to_theirs(rng.normal(size=shapes[path]).astype(np.float32), foreign.layout)
        for path, foreign in table.items()
    }
    # Behind a smoothed convolution lies the smoothing, so that it is one name deeper.
    assert {"body.conv1.0.weight", "body.layer1.0.conv1.1.weight"} <= state.keys()
    assert {"body.layer2.0.conv1.0.0.weight", "body.layer3.0.conv2.0.1.bias"} <= state.keys()
    assert {"body.layer2.0.downsample.1.0.weight"} <= state.keys()
    report = load(model, state)
    assert (report.origin, report.initial, report.ignored) == ("abn", (), ())
    scale = flatten(model.variables)["backbone/layer2_0/conv0/norm/scale"]
    theirs = state["body.layer2.0.conv1.0.1.weight"]
    assert theirs.min() < 0
    np.testing.assert_allclose(scale, np.abs(theirs) + 1e-5)
