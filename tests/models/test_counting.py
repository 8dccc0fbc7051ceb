"""Sizes and multiply-accumulates equal the published ones, and `models` prints them."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from mlcls_jax import models
from mlcls_jax.commands.models import list_models
from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.errors import ConfigError
from mlcls_jax.models import Network, counting, registry
from mlcls_jax.models.counting import count_macs, count_parameters, feature_map, summarize
from mlcls_jax.models.kernels import PLAIN
from tests.helpers.commands import forked
from tests.helpers.tiers import slow

# Of the originals with 80 labels and 80 queries: parameters; GMACs of the backbone at 224 and at
# 448, and of the head at 448, counted by hand.
SIZES = {
    "PP-LCNet_x0_25_ML": (6_862_472, 0.023, 0.093, 0.794),
    "PP-LCNet_x0_35_ML": (6_984_378, 0.037, 0.148, 0.794),
    "PP-LCNet_x0_5_ML": (7_220_864, 0.059, 0.237, 0.794),
    "PP-LCNet_x0_75_ML": (7_698_296, 0.117, 0.468, 0.794),
    "PP-LCNet_x1_0_ML": (8_293_808, 0.186, 0.743, 0.794),
    "PP-LCNet_x1_5_ML": (9_841_120, 0.380, 1.519, 0.794),
    "PP-LCNet_x2_0_ML": (11_862_800, 0.642, 2.565, 0.794),
    "PP-LCNet_x2_5_ML": (14_358_848, 0.971, 3.881, 0.794),
    "PP-HGNetV2-B0_ML": (11_159_662, 0.420, 1.680, 0.910),
    "PP-HGNetV2-B1_ML": (11_506_270, 0.588, 2.352, 0.910),
    "PP-HGNetV2-B2_ML": (16_384_468, 1.287, 5.147, 0.910),
    "PP-HGNetV2-B3_ML": (21_455_328, 1.970, 7.881, 0.910),
    "PP-HGNetV2-B4_ML": (24_959_792, 2.933, 11.734, 0.910),
    "PP-HGNetV2-B5_ML": (44_732_176, 6.738, 26.951, 0.910),
    "PP-HGNetV2-B6_ML": (80_419_888, 17.040, 68.159, 0.910),
    "ResNet50_ML": (30_720_144, 4.087, 16.349, 0.910),
    "ResNet101_ML": (49_712_272, 7.799, 31.197, 0.910),
    "ResNet152_ML": (65_355_920, 11.512, 46.046, 0.910),
    # The head sees one token. Less the projection into the text space, which is not used.
    "CLIP_vit_base_patch16_448_ML": (92_421_712 - 768 * 512, 17.563, 78.494, 0.348),
}
SMALL = "PP-LCNet_x0_25_ML"
RENEW = "MLCLS_RENEW_GOLDENS"


@cache
def network(name: str) -> Network:
    memory = "first_patch" if name.startswith("CLIP") else None
    return Network.of(ModelConfig(name=name, num_classes=80, memory=memory))


@cache  # several tests ask for the same
def macs(name: str, size: int) -> int:
    return count_macs(network(name), size)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_equal_the_originals(name):
    assert name in models.list_models()
    parameters, _, backbone_gmacs, head_gmacs = SIZES[name]
    assert count_parameters(network(name)) == parameters
    assert macs(name, 448) / 1e9 == pytest.approx(backbone_gmacs + head_gmacs, rel=0.005)


@pytest.mark.parametrize("name", ["PP-LCNet_x1_0_ML", "PP-HGNetV2-B4_ML", "ResNet50_ML"])
def test_a_convolutional_backbone_costs_a_quarter_at_half_the_side(name):
    _, at_224, at_448, _ = SIZES[name]
    ours = (macs(name, 448) - macs(name, 224)) / 1e9
    head = 147 * (network(name).outline.backbone.channels + 2 * 768 + 2 * 80) * 768 / 1e9
    assert ours == pytest.approx(at_448 - at_224 + head, rel=0.005)


def test_images_need_not_be_square():
    net = network(SMALL)
    assert feature_map(net, (448, 224)) == (14, 7, 1280)
    assert count_macs(net, (448, 224)) == count_macs(net, (224, 448)) < macs(SMALL, 448)


def test_a_depthwise_convolution_counts_each_of_its_products():
    class Depthwise:
        abstract = jax.ShapeDtypeStruct((3, 3, 1, 3), jnp.float32)

        @staticmethod
        def apply(kernel, images):
            return PLAIN.conv2d(images, kernel, groups=3)

    assert count_macs(Depthwise, 8) == (8 * 8 * 3) * (3 * 3)


def test_what_is_called_in_a_loop_counts_every_time():
    class Looped:
        abstract = jax.ShapeDtypeStruct((4, 4), jnp.float32)

        @staticmethod
        def apply(kernel, images):
            step = jax.jit(lambda x, _: (x @ kernel, None))
            return jax.lax.scan(step, images[..., :1] * jnp.ones(4), length=3)[0]

    assert count_macs(Looped, 2) == 3 * (2 * 2) * 4 * 4


@pytest.mark.parametrize(
    ("name", "size"), [(SMALL, 448), (SMALL.removesuffix("_ML"), 224), ("ResNet18", 224)]
)
def test_models_are_counted_and_created_at_their_default_size(name, size):
    summary = summarize(name)
    assert summary["image_size"] == size
    assert summary["gmacs"] * 1e9 == pytest.approx(macs(name, size), rel=1e-12)
    assert models.create(name, num_classes=2).network.config.image_size == (size, size)


def test_the_sizes_of_every_model_are_stored():
    """Those of new models are added when goldens are renewed; a changed one is counted anew."""
    stored = counting.stored()
    if os.environ.get(RENEW):
        counting.store(stored.get(name) or summarize(name) for name in models.list_models())
        counting.stored.cache_clear()
    assert list(counting.stored()) == models.list_models(), (
        f"renew mlcls_jax/models/sizes.csv: {RENEW}=1 python -m pytest {Path(__file__).name}"
    )


@pytest.mark.parametrize(
    "name",
    [SMALL, *(slow(next(iter(family.variants))) for family in registry.FAMILIES.values())],
)
def test_stored_sizes_are_those_that_are_counted(name):
    assert counting.stored()[name] == summarize(name)


def test_an_image_size_that_is_given_is_kept():
    assert models.create(SMALL, num_classes=2, image_size=96).network.config.image_size == (96, 96)


def test_every_model_can_be_summarized_without_being_built():
    """Large ones, too: no weight is allocated."""
    summary = summarize("CLIP_vit_large_patch14_336_ML")
    assert summary["feature_map"] == (32, 32, 1024)
    assert summary["parameters"] > 300e6


def test_a_pattern_that_matches_nothing_is_named_with_the_nearest_model():
    with pytest.raises(ConfigError, match="no model matches 'PP-LCNet_x1.0_ML'") as caught:
        list_models("PP-LCNet_x1.0_ML")
    assert caught.value.hint == "Did you mean PP-LCNet_x1_0_ML?"


def test_the_command_prints_the_table():
    done = subprocess.run(
        [sys.executable, "-m", "mlcls_jax.main", "models", "PP-LCNet_x1_0*"],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"JAX_PLATFORMS": "none"},  # no device is asked for
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    title, _, *rows = done.stdout.splitlines()
    assert "80 labels" in title and "GMACs" in title and "multiply-accumulates" in title
    assert [row.split("  ") for row in map(single_spaced, rows)] == [
        ["name", "weights", "licence", "parameters", "GMACs", "feature map", "resolution"],
        [
            "PP-LCNet_x1_0_ML",
            "official, backbone, timm",
            "Apache-2.0",
            "8,293,808",
            "1.537",
            "14 x 14 x 1280",
            "448 x 448",
        ],
        [
            "PP-LCNet_x1_0",
            "backbone, timm",
            "Apache-2.0",
            "1,775,280",
            "0.155",
            "1 x 1 x 1280",
            "224 x 224",
        ],
    ]


def single_spaced(row: str) -> str:
    """Columns, two spaces apart."""
    return "  ".join(cell.strip() for cell in row.split("  ") if cell.strip())


def test_a_useless_pattern_is_one_message():
    done = forked("mlcls", "models", "nothing*")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no model matches 'nothing*'\n")
    assert "Traceback" not in done.stderr


def test_two_patterns_are_refused():
    done = forked("mlcls", "models", "a", "b")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: mlcls models [-h] ")
    assert "Traceback" not in done.stderr
