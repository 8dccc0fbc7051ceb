"""Initial values: what each parameter is drawn from, by `model.initial`."""

import fnmatch
import hashlib
import math
from functools import cache
from typing import Literal

import numpy as np
import pytest

from mlcls_jax import models
from mlcls_jax.config import Model
from mlcls_jax.models import weights
from mlcls_jax.models.initial import draw
from mlcls_jax.models.network import Network, flatten

SMALL = {"num_classes": 10, "query_num": 4, "embed_dim": 64, "hidden_dim": 128, "num_heads": 4}
# The numbers that were drawn before there was a choice: their SHA-256, at seed 3.
BEFORE = {
    "PP-LCNet_x0_25_ML": ("5237b6e15b546a93", "*"),
    "PP-LCNet_x0_25": ("8de77e1b702c4b0d", "backbone/last_conv/*", "head/fc/*"),
    "PP-HGNetV2-B0_ML": (
        "39608cd8bd2964e8",
        "backbone/stem/stem2a/*",
        "backbone/stage2/block0/layer1/*",
    ),
    "ResNet18": ("5eab3a3a7a943218", "backbone/stem/*", "backbone/block2/short/*", "head/*"),
    "CLIP_vit_base_patch32_224_ML": ("d8e764a456c75ca0", "backbone/patch_kernel", "head/layer1/*"),
}


def network_of(name: str, initial: Literal["default", "paddle"] = "default") -> Network:
    options = {"decoder_depth": 2, "image_size": (64, 64)}
    return Network.of(Model(name=name, initial=initial, **SMALL, **options))


def digest(network, patterns):
    shapes = {path: leaf.shape for path, leaf in flatten(network.abstract).items()}
    total = hashlib.sha256()
    for path in sorted(shapes):
        if any(fnmatch.fnmatch(path, pattern) for pattern in patterns):
            total.update(path.encode())
            total.update(draw(path, shapes[path], network.initial[path], seed=3).tobytes())
    return total.hexdigest()[:16]


@cache
def default_weights():
    return flatten(network_of("PP-LCNet_x0_25_ML").init(0))


@pytest.mark.parametrize("name", BEFORE)
def test_paddle_draws_what_was_drawn_before(name):
    expected, *patterns = BEFORE[name]
    assert digest(network_of(name, "paddle"), patterns) == expected


@pytest.mark.parametrize(
    ("path", "variance"),
    [
        # Convolutions: 2 / fan-out, of one group.
        ("backbone/conv1/conv/kernel", 2 / (9 * 8)),
        ("backbone/blocks6_1/dw_conv/conv/kernel", 2 / 25),
        ("backbone/blocks6_1/se/conv1/kernel", 2 / 32),
        ("backbone/last_conv/kernel", 2 / 1280),
        # Uniform within 1 / sqrt(fan-in): a third of its square.
        ("head/input_proj/kernel", 1 / 1280 / 3),
        ("head/layer0/linear2/kernel", 1 / 128 / 3),
        ("head/layer0/cross_attn/out_proj/kernel", 1 / 64 / 3),
        ("head/layer1/self_attn/k_proj/kernel", 6 / (4 * 64) / 3),
        ("head/group_kernel", 2 / (64 * 3 + 4 * 3)),
    ],
)
def test_the_default_has_the_variance_that_training_was_measured_with(path, variance):
    drawn = default_weights()[path]
    assert drawn.var() == pytest.approx(variance, rel=4 * math.sqrt(2 / drawn.size))


def test_weights_that_are_given_are_the_same_under_both():
    ours = models.create("PP-LCNet_x0_25", num_classes=3)
    theirs = models.create("PP-LCNet_x0_25", num_classes=3, initial="paddle")
    kernels = [model.variables.params["head"]["fc"]["kernel"] for model in (ours, theirs)]
    assert not np.array_equal(*kernels)
    weights.load(theirs, weights.to_foreign(ours, "paddle"))
    for path, array in flatten(ours.variables).items():
        np.testing.assert_array_equal(flatten(theirs.variables)[path], array)
