"""Mixup and CutMix: against plain NumPy, by counting, and on two devices."""

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlcls_jax.config import Data, Train
from mlcls_jax.losses import multilabel_loss
from mlcls_jax.models.network import Network, Outputs, Variables
from mlcls_jax.training.mixing import STREAM, draw, make_mix, mix
from mlcls_jax.training.state import init_state
from mlcls_jax.training.step import TrainStep
from tests.helpers.commands import on_devices
from tests.helpers.tiers import slow

ALPHAS = {"mixup": (0.8, 0.0), "cutmix": (0.0, 1.0), "both": (0.8, 1.0)}
SIZE = (12, 16)


def options(kind: str, probability: float = 1.0) -> dict[str, float]:
    mixup, cutmix = ALPHAS[kind]
    return {"mixup_alpha": mixup, "cutmix_alpha": cutmix, "probability": probability}


def some_batch(size: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (size, *SIZE, 3), dtype=np.uint8),
        "target": rng.integers(0, 2, (size, 5)).astype(np.float32),
        "mask": np.ones(size, bool),
        "index": np.arange(size, dtype=np.int32),
    }


@cache
def jitted_draw(kind: str) -> Callable:
    return jax.jit(partial(draw, batch_size=6, image_size=SIZE, **options(kind)))


def drawn(key: jax.Array, kind: str) -> tuple[np.ndarray, np.ndarray, float]:
    """What `mix` draws with this key for a batch of six."""
    mixture = jitted_draw(kind)(jax.random.fold_in(key, STREAM))
    return tuple(np.asarray(part, np.float64 if part.ndim != 1 else None) for part in mixture)


@cache  # one compilation for each
def jitted_mix(kind: str, probability: float) -> Callable:
    return jax.jit(partial(mix, **options(kind, probability)))


def mixed(kind: str, batch: dict, key: jax.Array, probability: float = 1.0) -> dict:
    return jax.tree.map(np.asarray, jitted_mix(kind, probability)(batch, key))


@cache
def draws(kind: str, count: int, size: tuple[int, int] = SIZE, probability: float = 1.0):
    """`count` independent mixtures: partners, own shares at each pixel, shares."""
    function = partial(draw, batch_size=6, image_size=size, **options(kind, probability))
    keys = jax.random.split(jax.random.key(3), count)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(function))(keys))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [k if k == "both" else slow(k) for k in ALPHAS])
def test_pictures_and_targets_are_mixed_by_the_same_share(kind, seed):
    batch, key = some_batch(), jax.random.key(seed)
    partner, own, share = drawn(key, kind)
    result = mixed(kind, batch, key)

    images = batch["image"].astype(np.float64)
    expected = own[..., None] * images + (1 - own[..., None]) * images[partner]
    assert result["image"].dtype == np.uint8
    assert np.abs(result["image"] - expected).max() <= 0.5 + 1e-4  # rounding, nothing else
    targets = batch["target"].astype(np.float64)
    np.testing.assert_allclose(
        result["target"], share * targets + (1 - share) * targets[partner], atol=1e-6
    )
    np.testing.assert_allclose(share, own.mean(), rtol=1e-6)
    for key in ("mask", "index"):
        np.testing.assert_array_equal(result[key], batch[key])


def test_cutmix_takes_every_pixel_from_one_of_the_two():
    batch, boxes = some_batch(), 0
    for key in map(jax.random.key, range(40)):
        partner, own, share = drawn(key, "both")
        if np.isin(own, (0, 1)).all():
            pasted = np.where(own[..., None] == 1, batch["image"], batch["image"][partner])
            np.testing.assert_array_equal(mixed("both", batch, key)["image"], pasted)
            boxes += share < 1
    assert boxes >= 10


def test_mixup_shares_are_beta_distributed():
    shares = draws("mixup", 4000).share
    alpha = ALPHAS["mixup"][0]
    deviation = np.sqrt(1 / (4 * (2 * alpha + 1)))  # of Beta(alpha, alpha)
    assert abs(shares.mean() - 0.5) < 4 * deviation / np.sqrt(4000)
    assert abs(shares.std() - deviation) < 0.01


def cutmix_box(rng: np.random.Generator, height: int, width: int) -> tuple[slice, slice]:
    """The originals' rule, as the specification tells it."""
    cut = np.sqrt(1 - rng.beta(1.0, 1.0))
    down, across = int(height * cut) // 2, int(width * cut) // 2
    y, x = rng.integers(height), rng.integers(width)
    return slice(max(y - down, 0), y + down), slice(max(x - across, 0), x + across)


def test_cutmix_boxes_are_those_of_the_original():
    _, own, shares = draws("cutmix", 3000, size=(12, 17))
    rng, hidden = np.random.default_rng(0), np.zeros((30_000, 12, 17), bool)
    for one in hidden:
        one[cutmix_box(rng, 12, 17)] = True
    np.testing.assert_allclose((own == 0).mean(0), hidden.mean(0), atol=5 * np.sqrt(0.25 / 3000))
    np.testing.assert_allclose(shares, own.mean((1, 2)), rtol=1e-6)

    def sides(boxes: np.ndarray) -> set[tuple[int, int]]:
        for box in boxes:  # each is one rectangle
            np.testing.assert_array_equal(box, box.any(1)[:, None] & box.any(0))
        return set(zip(boxes.any(2).sum(1).tolist(), boxes.any(1).sum(1).tolist(), strict=True))

    assert sides(own == 0) <= sides(hidden)


def test_partners_are_any_permutation():
    partners = draws("mixup", 4000).partner
    np.testing.assert_array_equal(np.sort(partners, 1), np.tile(np.arange(6), (4000, 1)))
    often = [[np.mean(partners[:, i] == j) for j in range(6)] for i in range(6)]
    np.testing.assert_allclose(often, 1 / 6, atol=5 * np.sqrt(5 / 36 / 4000))


@pytest.mark.parametrize("probability", [0.25, slow(1.0)])
def test_kinds_and_probability(probability):
    _, own, shares = draws("both", 4000, probability=probability)
    is_box = np.isin(own, (0, 1)).all((1, 2)) & (shares < 1)
    is_blend = ((own > 0) & (own < 1)).all((1, 2))
    # A Beta(1, 1) box of less than two pixels' side is empty: (2 / 12)^2 of them.
    bound = 4 * np.sqrt(0.25 / 4000)
    assert is_box.mean() == pytest.approx(probability / 2 * (1 - 1 / 36), abs=bound)
    assert is_blend.mean() == pytest.approx(probability / 2, abs=bound)


def test_a_batch_that_is_not_drawn_is_as_it_was():
    batch = some_batch()
    results = [mixed("both", batch, jax.random.key(seed), 0.5) for seed in range(40)]
    same = [all((result[k] == batch[k]).all() for k in batch) for result in results]
    changed = [(result["image"] != batch["image"]).any() for result in results]
    assert np.array_equal(same, np.logical_not(changed)) and 8 < sum(same) < 32


def test_the_key_decides():
    batch = some_batch()
    one, again, other = (mixed("both", batch, jax.random.key(s))["image"] for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@pytest.mark.parametrize("kind", [k if k == "both" else slow(k) for k in ALPHAS])
def test_what_is_not_annotated_in_one_of_the_two_is_not_in_the_mixture(kind):
    batch, key = some_batch(), jax.random.key(5)
    partner, _, _ = drawn(key, kind)
    expected = mixed(kind, batch, key)["target"].copy()
    holes = np.random.default_rng(1).random(batch["target"].shape) < 0.3
    batch["target"][holes] = -1
    expected[holes | holes[partner]] = -1
    np.testing.assert_array_equal(mixed(kind, batch, key)["target"], expected)


@pytest.mark.parametrize("kind", [k if k == "both" else slow(k) for k in ALPHAS])
def test_padding_gets_into_no_other_row(kind):
    batch = some_batch()
    batch["mask"][[1, 4]] = False
    for seed in range(8):
        key = jax.random.key(seed)
        partner, _, _ = drawn(key, kind)
        result, other = mixed(kind, batch, key), {**batch, "mask": np.ones(6, bool)}
        undisturbed = mixed(kind, other, key)
        alone = ~batch["mask"] | ~batch["mask"][partner]
        assert alone.sum() >= 2
        for name in ("image", "target"):
            np.testing.assert_array_equal(result[name][alone], batch[name][alone])
            np.testing.assert_array_equal(result[name][~alone], undisturbed[name][~alone])


@pytest.mark.slow
def test_one_picture_alone_is_mixed_with_itself():
    batch = some_batch(1)
    for seed in range(8):
        result = mixed("both", batch, jax.random.key(seed))
        for name in batch:
            np.testing.assert_array_equal(result[name], batch[name])


@pytest.mark.parametrize("kind", [k if k == "both" else slow(k) for k in ALPHAS])
def test_what_the_configuration_asks_for(kind):
    mixup, cutmix = ALPHAS[kind]
    function = make_mix(Data(mixup=mixup, cutmix=cutmix))
    batch, key = some_batch(), jax.random.key(3)
    expected = mixed(kind, batch, key)
    for name, value in jax.jit(function)(batch, key).items():
        np.testing.assert_array_equal(value, expected[name])
    assert (jnp.asarray(expected["image"]) != batch["image"]).any()


def test_nothing_is_mixed_unless_asked_for():
    assert make_mix(Data()) is None
    assert make_mix(Data(mixup=0.2, cutmix=1.0, mix_probability=0.0)) is None


TWO_DEVICES = """
import jax
import numpy as np
from tests.training.test_mixing import options, some_batch
from functools import partial
from mlcls_jax import parallel
from mlcls_jax.training.mixing import mix

assert jax.device_count() == 2
both = parallel.make_mesh()
one = parallel.make_mesh(devices=jax.devices()[:1])
batch = some_batch()
batch["mask"][2] = False
batch["target"][0, 0] = -1
functions = []
for mesh in (one, both):
    shardings = (parallel.batch_sharding(mesh), parallel.replicated(mesh))
    function = partial(mix, **options("both"))
    functions.append(jax.jit(function, in_shardings=shardings, out_shardings=shardings[0]))
changed = 0
for seed in range(8):  # some paste, some blend
    alone, shared = (function(batch, jax.random.key(seed)) for function in functions)
    for name in batch:
        assert len(shared[name].sharding.device_set) == 2
        np.testing.assert_array_equal(alone[name], shared[name])
    changed += (np.asarray(shared["image"]) != batch["image"]).any()
assert changed > 4
"""


@pytest.mark.slow
def test_two_devices_mix_as_one_does():
    on_devices(2, TWO_DEVICES)


class Means(Network):
    """A network of one layer on the mean colour: whatever is trained on shows in the loss."""

    def __init__(self):
        """Leave out what a step does not ask for."""

    def trained(self, tree):
        return tree

    def apply(self, variables, images, *, train, key):
        colour = images.mean(axis=(1, 2)) / 255  # [B, 3]
        return Outputs(colour @ variables.params["kernel"], variables.batch_stats, colour)


@pytest.mark.slow
def test_the_training_step_trains_on_the_mixture():
    function, batch = jax.jit(make_mix(Data(mixup=0.8))), some_batch()
    kernel = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    optimizer = optax.sgd(0.1)
    make = partial(
        TrainStep,
        Means(),
        multilabel_loss,
        optimizer,
        optax.constant_schedule(0.1),
        Train(ema_decay=0.0, ema_warmup=False),
        seed=5,
        dropout=False,
    )
    state = init_state(Variables({"kernel": kernel}, {}), optimizer=optimizer, ema=False)
    plain, mixing, losses = jax.jit(make()), jax.jit(make(mix=function)), []
    for step in range(3):
        key = jax.random.fold_in(jax.random.key(5), step)
        expected, numbers = plain(state, function(batch, key))
        state, ours = mixing(state, batch)
        np.testing.assert_allclose(ours["loss"], numbers["loss"], rtol=1e-6)
        np.testing.assert_allclose(state.params["kernel"], expected.params["kernel"], rtol=1e-6)
        losses.append(float(ours["loss"]))
    assert len(set(losses)) == 3
