"""Losses: the originals' values and gradients, masks, types, and what must never be NaN."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from mlcls_jax.losses import LOSSES, asymmetric_loss, cross_entropy, multilabel_loss

GOLDENS = np.load(Path(__file__).parents[1] / "data" / "paddle" / "losses.npz")
TAGS = [name.removesuffix("/cfg") for name in GOLDENS.files if name.endswith("/cfg")]
ASL_TAGS = [tag for tag in TAGS if tag.startswith("asl_")]
ML_TAGS = [tag for tag in TAGS if tag.startswith("ml_")]
TAKES_MINUS_ONE_AT_ITS_WORD = ("ml_3d_noratio", "ml_ratio_eps")  # not as "not annotated"
CE_TAGS = ["ce_hard", "ce_eps", "ce_soft", "ce_soft_eps"]  # the others only reduce differently
SATURATED = (-1e4, -100.0, -20.0, -0.0, 0.0, 20.0, 100.0, 1e4)

# Values relative, gradients absolute. Paddle smooths labels with float32 constants in its float64
# runs as well, hence a tolerance of its own for them.
TOLERANCES = {"float32": (2e-6, 3e-6), "float64": (1e-12, 1e-13), "float64 smoothed": (3e-9, 3e-9)}

Loss = Callable[[jax.Array], jax.Array]

# Compiled as users call them, and because op by op the tests would take far longer.
asymmetric = jax.jit(
    asymmetric_loss,
    static_argnames=("gamma_pos", "gamma_neg", "clip", "stop_focal_gradient", "reduction"),
)
multilabel = jax.jit(multilabel_loss, static_argnames=("epsilon", "size_sum"))
softmax = jax.jit(cross_entropy, static_argnames="epsilon")
binary_cross_entropy = jax.jit(optax.sigmoid_binary_cross_entropy)


def original_asymmetric(tag: str) -> Loss:
    options = {"gamma_pos": 1.0} | config(tag)  # the original's default
    if "disable_focal_loss_grad" in options:
        options["stop_focal_gradient"] = options.pop("disable_focal_loss_grad")
    return lambda logits: asymmetric_loss(logits, GOLDENS["target"], **options)


def original_multilabel(tag: str) -> Loss:
    options = config(tag)
    has_ratio = options.pop("weight_ratio", False)
    targets = GOLDENS["target"]
    if has_ratio or tag == "ml_3d_noratio":
        targets, ratio = GOLDENS["target_ratio"][:, 0], GOLDENS["target_ratio"][:, 1]
        options["positive_ratio"] = ratio if has_ratio else None
    return lambda logits: multilabel_loss(logits, targets, **options)


def original_cross_entropy(tag: str) -> Loss:
    options = config(tag)
    if not tag.startswith("ce_soft"):
        return lambda logits: cross_entropy(logits, GOLDENS["label"][:, 0], **options)

    def loss(logits: jax.Array) -> jax.Array:
        soft = jnp.asarray(GOLDENS["soft"], logits.dtype)
        if tag == "ce_soft":
            soft = jax.nn.softmax(soft)  # the original's quirk, which is not ours
        return cross_entropy(logits, soft, **options)

    return loss


def config(tag: str) -> dict[str, Any]:
    return json.loads(str(GOLDENS[f"{tag}/cfg"]))


def tolerances(tag: str, dtype: str) -> tuple[float, float]:
    is_smoothed = not tag.startswith("asl_") and "epsilon" in config(tag)
    return TOLERANCES["float64 smoothed" if dtype == "float64" and is_smoothed else dtype]


def original(tag: str) -> Loss:
    kinds = {"asl": original_asymmetric, "ml": original_multilabel, "ce": original_cross_entropy}
    return kinds[tag.split("_")[0]](tag)


@functools.cache
def values_and_gradients(dtype: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of all goldens by tag, compiled as one program to save time."""

    def run(logits: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
        results = {}
        for tag in (*ASL_TAGS, *ML_TAGS, *CE_TAGS):
            value, pullback = jax.vjp(original(tag), logits)
            results[tag] = value, pullback(jnp.ones_like(value))[0]  # the gradient of the sum
        return results

    with jax.enable_x64(dtype == "float64"):
        results = jax.jit(run)(GOLDENS["x"].astype(dtype))
    assert all(array.dtype == dtype for array in jax.tree.leaves(results))
    return jax.tree.map(np.asarray, results)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tag", ASL_TAGS)
def test_asymmetric_loss_matches_the_original(tag: str, dtype: str) -> None:
    value, gradient = values_and_gradients(dtype)[tag]
    relative, absolute = tolerances(tag, dtype)
    np.testing.assert_allclose(value, GOLDENS[f"{tag}/{dtype}/value"], rtol=relative, atol=absolute)
    np.testing.assert_allclose(gradient, GOLDENS[f"{tag}/{dtype}/grad"], rtol=0, atol=absolute)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tag", ML_TAGS)
def test_multilabel_loss_matches_the_original(tag: str, dtype: str) -> None:
    value, gradient = values_and_gradients(dtype)[tag]
    relative, absolute = tolerances(tag, dtype)
    expected = GOLDENS[f"{tag}/{dtype}/value"]
    is_right = GOLDENS["x"] != 0  # there the original's gradient is wrong; next test
    if tag in TAKES_MINUS_ONE_AT_ITS_WORD:
        is_known = GOLDENS["target_ratio"][:, 0] >= 0
        has_ratio = "weight_ratio" in config(tag)
        scale = 1.0 if has_ratio else is_known.size / is_known.sum()  # means are over known entries
        expected = scale * (expected - cost_of_minus_one(tag).sum() / is_known.size)
        gradient, is_right = gradient / scale, is_right & is_known
        assert (gradient[~is_known] == 0).all()
    np.testing.assert_allclose(value, expected, rtol=relative)
    expected = GOLDENS[f"{tag}/{dtype}/grad"][is_right]
    np.testing.assert_allclose(gradient[is_right], expected, rtol=0, atol=absolute)


def cost_of_minus_one(tag: str) -> np.ndarray:
    """What the original adds for the targets of -1, which are left out here."""
    logits = GOLDENS["x"].astype(np.float64)
    targets, ratio = GOLDENS["target_ratio"].astype(np.float64).swapaxes(0, 1)
    is_unknown, epsilon = targets < 0, config(tag).get("epsilon", 0.0)
    targets = (1 - epsilon) * targets + epsilon / targets.shape[1]
    losses = np.logaddexp(0, logits) - targets * logits
    weights = np.exp(ratio) if "weight_ratio" in config(tag) else 1.0
    return (losses * weights)[is_unknown]


def test_gradient_of_multilabel_loss_at_logit_zero_is_the_true_one() -> None:
    gradient = values_and_gradients("float64")["ml_plain"][1]
    is_zero = GOLDENS["x"] == 0
    assert is_zero.sum() == 2
    true = (0.5 - GOLDENS["target"][is_zero].astype(np.float64)) / is_zero.size
    np.testing.assert_allclose(gradient[is_zero], true, rtol=1e-12)
    theirs = GOLDENS["ml_plain/float64/grad"][is_zero]
    np.testing.assert_allclose(theirs, true - 1 / is_zero.size, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tag", CE_TAGS)
def test_gradient_of_cross_entropy_matches_the_original(tag: str, dtype: str) -> None:
    gradient = values_and_gradients(dtype)[tag][1]
    absolute = tolerances(tag, dtype)[1]
    np.testing.assert_allclose(gradient, GOLDENS[f"{tag}/{dtype}/grad"], rtol=0, atol=absolute)


def test_cross_entropy_matches_the_original_where_it_does_not_cut_off() -> None:
    """Paddle caps each -log(softmax) at 64 in the value, not in the gradient; we do not."""
    logits, labels = GOLDENS["x"], GOLDENS["label"][:, 0].astype(np.int32)
    one_row = jax.vmap(lambda row: softmax(logits, labels, mask=row))
    values = jax.jit(one_row)(np.eye(len(logits), dtype=bool))
    theirs = GOLDENS["ce_hard_none/float32/value"][:, 0]
    np.testing.assert_allclose(np.minimum(values, 64), theirs, rtol=2e-6)


def test_cross_entropy_matches_optax() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 5)).astype(np.float32)
    shares = rng.dirichlet(np.ones(5), 6).astype(np.float32)
    labels = rng.integers(0, 5, 6, dtype=np.int32)
    smoothed = 0.9 * np.eye(5, dtype=np.float32)[labels] + 0.02
    theirs = jax.jit(optax.softmax_cross_entropy)
    hard = theirs(logits, np.eye(5, dtype=np.float32)[labels])
    np.testing.assert_allclose(softmax(logits, labels), hard.mean(), rtol=1e-6)
    np.testing.assert_allclose(softmax(logits, shares), theirs(logits, shares).mean(), rtol=1e-6)
    expected = theirs(logits, smoothed).mean()
    np.testing.assert_allclose(softmax(logits, labels, epsilon=0.1), expected, rtol=1e-6)


@pytest.mark.parametrize("epsilon", [None, 0.1])
def test_a_row_that_is_not_annotated_is_left_out_of_cross_entropy(epsilon: float | None) -> None:
    logits = np.random.default_rng(5).normal(size=(4, 3)).astype(np.float32)
    targets = np.asarray([[0, 1, 0], [-1, -1, -1], [0.3, 0.7, 0], [1, -1, 0]], np.float32)
    of_rows = jax.jit(jax.value_and_grad(functools.partial(cross_entropy, epsilon=epsilon)))
    value, gradient = of_rows(logits[::2], targets[::2])
    ours, our_gradient = of_rows(logits, targets)
    np.testing.assert_allclose(ours, value, rtol=1e-6)
    np.testing.assert_allclose(our_gradient[::2], gradient, rtol=1e-6)
    np.testing.assert_array_equal(our_gradient[1::2], 0)
    assert of_rows(logits, np.full_like(targets, -1))[0] == 0


def test_gradient_of_asymmetric_loss_is_the_derivative_of_its_value() -> None:
    targets = np.asarray([[1, 0, 0.3], [0, 1, 0]])
    with jax.enable_x64(True):
        logits = jnp.asarray([[0.4, -1.3, 2.0], [-4.1, 3.0, 0.0]], jnp.float64)
        options = {"gamma_pos": 0.5, "gamma_neg": 2.5, "clip": 0.05, "stop_focal_gradient": False}
        loss = jax.jit(lambda x: asymmetric_loss(x, targets, **options))
        check_grads(loss, (logits,), order=1, modes=["rev"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_asymmetric_loss_is_finite_for_saturated_logits(dtype: str) -> None:
    largest = np.finfo(dtype).max
    logits = np.asarray([[*SATURATED, -largest, largest]] * 2, dtype)
    targets = np.repeat([[1], [0]], logits.shape[1], axis=1)
    variants = [
        {"gamma_pos": gamma, "gamma_neg": gamma, "clip": clip, "stop_focal_gradient": False}
        for gamma in (0.0, 0.5, 4.0)
        for clip in (None, 0.05)
    ]

    def losses(logits: jax.Array) -> list[jax.Array]:
        return [asymmetric_loss(logits, targets, **options) for options in variants]

    with jax.enable_x64(dtype == "float64"):
        values = jax.jit(losses)(logits)
        gradients = jax.jit(jax.jacrev(losses))(logits)
    for options, value, gradient in zip(variants, values, gradients, strict=True):
        assert value.dtype == dtype
        assert np.isfinite(value), options
        assert np.isfinite(gradient).all(), options


@pytest.mark.parametrize("ratio", [None, 0.3])
def test_multilabel_loss_is_finite_for_saturated_logits(ratio: float | None) -> None:
    logits = np.asarray([SATURATED] * 2, np.float32)
    targets = np.repeat([[1], [0]], logits.shape[1], axis=1)
    positive_ratio = None if ratio is None else np.full(logits.shape[1:], ratio)
    loss = jax.jit(jax.value_and_grad(multilabel_loss))
    value, gradient = loss(logits, targets, positive_ratio=positive_ratio)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_easy_negatives_and_hopeless_positives_have_no_gradient() -> None:
    # sigmoid(-3) is below clip, sigmoid(-20) below epsilon.
    logits = np.asarray([[-3.0, -20.0]], np.float32)
    value, gradient = GRADIENTS["asymmetric"](logits, np.asarray([[0, 1]]))
    np.testing.assert_allclose(value, -np.log(1e-8), rtol=1e-6)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("clip", [0, 0.0, None])
def test_clip_zero_and_none_are_off(clip: float | None) -> None:
    """Without clip and focus the asymmetric loss is binary cross-entropy."""
    rng = np.random.default_rng(1)
    logits = 3 * rng.normal(size=(4, 3)).astype(np.float32)
    targets = rng.integers(0, 2, (4, 3), dtype=np.int32)
    value = asymmetric(logits, targets, gamma_neg=0, clip=clip)
    plain = binary_cross_entropy(logits, targets).sum()
    np.testing.assert_allclose(value, plain, rtol=1e-6)


def test_soft_targets_mix_the_losses_of_positive_and_negative() -> None:
    logits = np.asarray([[-2.0, 0.5, 3.0]], np.float32)
    ones, zeros = np.ones((1, 3), np.float32), np.zeros((1, 3), np.float32)
    mixed = asymmetric(logits, np.float32(0.3) * ones)
    parts = 0.3 * asymmetric(logits, ones) + 0.7 * asymmetric(logits, zeros)
    np.testing.assert_allclose(mixed, parts, rtol=1e-6)


def test_positive_ratio_is_per_class_or_per_entry_and_ignores_minus_one() -> None:
    logits = np.asarray([[0.5, -1.0], [2.0, 0.1]], np.float32)
    targets = np.asarray([[1, -1], [0, 1]], np.float32)
    ratio = np.asarray([0.2, 0.7], np.float32)
    weights = np.exp([[0.8, -np.inf], [0.2, 0.3]])
    expected = (weights * binary_cross_entropy(logits, targets)).mean()
    one_a_class = multilabel(logits, targets, positive_ratio=ratio)
    one_an_entry = multilabel(logits, targets, positive_ratio=np.tile(ratio, (2, 1)))
    np.testing.assert_allclose(one_a_class, expected, rtol=1e-6)
    np.testing.assert_allclose(one_an_entry, expected, rtol=1e-6)


VARIANTS: dict[str, Callable[..., jax.Array]] = {
    "asymmetric": asymmetric_loss,
    "asymmetric_mean": lambda x, t, **mask: asymmetric_loss(x, t, reduction="mean", **mask),
    "asymmetric_focal": lambda x, t, **mask: asymmetric_loss(
        x, t, gamma_pos=0.5, stop_focal_gradient=False, **mask
    ),
    "multilabel": multilabel_loss,
    "multilabel_size_sum": lambda x, t, **mask: multilabel_loss(
        x, t, size_sum=True, epsilon=0.1, positive_ratio=t[:1].repeat(len(t), 0) / 2, **mask
    ),
    "cross_entropy": cross_entropy,
}
GRADIENTS = {name: jax.jit(jax.value_and_grad(loss)) for name, loss in VARIANTS.items()}
JUNK = hnp.arrays(np.float32, (2, 3), elements=st.floats(width=32))  # NaN and infinities too


@pytest.mark.parametrize("name", VARIANTS)
@settings(max_examples=20)
@given(junk_logits=JUNK, junk_targets=JUNK)
def test_padding_rows_change_neither_value_nor_gradient(
    name: str, junk_logits: np.ndarray, junk_targets: np.ndarray
) -> None:
    logits = np.asarray([[0.3, -2.0, 5.0], [1.0, 0.0, -0.2]], np.float32)
    targets = np.asarray([[1, 0, 0], [0, 1, 0]], np.float32)
    value, gradient = GRADIENTS[name](logits, targets)
    # A padding row between and one after the real ones.
    logits = np.stack([logits[0], junk_logits[0], logits[1], junk_logits[1]])
    targets = np.stack([targets[0], junk_targets[0], targets[1], junk_targets[1]])
    mask = np.asarray([True, False, True, False])
    padded_value, padded_gradient = GRADIENTS[name](logits, targets, mask=mask)
    np.testing.assert_allclose(padded_value, value, rtol=1e-6)
    np.testing.assert_allclose(padded_gradient[::2], gradient, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(padded_gradient[1::2], 0)


def test_padding_rows_are_zero_when_nothing_is_reduced() -> None:
    logits = np.asarray([[2.0, 0.0, 1.0], [np.nan, np.inf, 1.0]], np.float32)
    mask = np.asarray([True, False])
    loss = np.asarray(asymmetric(logits, np.zeros((2, 3)), reduction="none", mask=mask))
    assert loss.shape == (2, 3)
    assert (loss[0] > 0).all()
    np.testing.assert_array_equal(loss[1], 0)


@pytest.mark.parametrize("name", VARIANTS)
def test_loss_of_padding_alone_is_zero(name: str) -> None:
    logits, targets = np.full((4, 3), np.nan, np.float32), np.ones((4, 3), np.float32)
    value, gradient = GRADIENTS[name](logits, targets, mask=np.zeros(4, bool))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_float_mask_weighs_rows() -> None:
    logits = np.asarray([[0.3, -2.0, 5.0], [1.0, 0.0, -0.2]], np.float32)
    targets, mask = np.eye(2, 3, dtype=np.float32), np.asarray([1.0, 0.25], np.float32)
    each = np.asarray(binary_cross_entropy(logits, targets))
    weighted = (each.mean(axis=1) * mask).sum() / mask.sum()
    np.testing.assert_allclose(multilabel(logits, targets, mask=mask), weighted, rtol=1e-6)


@pytest.mark.parametrize("name", ["asymmetric", "multilabel", "cross_entropy"])
def test_bfloat16_logits_are_computed_in_float32(name: str) -> None:
    logits = jnp.asarray([[0.31, -2.7, 4.9], [17.0, -0.1, -9.0]], jnp.bfloat16)
    targets = jnp.asarray([[1, 0, 0], [0, 1, 0]], jnp.bfloat16)
    value, gradient = GRADIENTS[name](logits, targets)
    assert (value.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)
    wide = GRADIENTS[name](logits.astype(jnp.float32), targets.astype(jnp.float32))[0]
    np.testing.assert_allclose(value, wide, rtol=1e-6)


@pytest.mark.parametrize("name", ["asymmetric", "multilabel", "cross_entropy"])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float16])
def test_targets_of_any_type_give_the_same_loss(name: str, dtype: type) -> None:
    logits, loss = np.asarray([[0.3, -2.0, 5.0]], np.float32), jax.jit(LOSSES[name])
    targets = np.asarray([[1, 0, 1]], dtype)
    expected = loss(logits, targets.astype(np.float32))
    np.testing.assert_array_equal(loss(logits, targets), expected)


@pytest.mark.parametrize("name", ["asymmetric", "multilabel", "cross_entropy"])
def test_loss_is_the_same_under_jit_and_vmap(name: str) -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(3, 4, 5)).astype(np.float32)
    targets = rng.integers(0, 2, (3, 4, 5)).astype(np.float32)
    with jax.disable_jit():
        plain = [VARIANTS[name](*pair) for pair in zip(logits, targets, strict=True)]
    batched = jax.jit(jax.vmap(VARIANTS[name]))(logits, targets)
    np.testing.assert_allclose(batched, plain, rtol=1e-6)


def test_unknown_reduction_is_named() -> None:
    with pytest.raises(ValueError, match=r"'average'.*sum, mean, none"):
        asymmetric_loss(jnp.zeros((2, 3)), jnp.zeros((2, 3)), reduction="average")


@pytest.mark.parametrize("loss", [asymmetric_loss, multilabel_loss, cross_entropy])
def test_shapes_that_do_not_fit_are_named(loss: Callable[..., jax.Array], unchecked: None) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 1\)"):
        loss(jnp.zeros((2, 3)), jnp.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"\(3,\).*\(2, 3\)"):
        loss(jnp.zeros((2, 3)), jnp.zeros((2, 3)), mask=jnp.ones(3))


def test_positive_ratio_of_wrong_shape_is_named(unchecked: None) -> None:
    with pytest.raises(ValueError, match=r"\(2, 1\).*\(2, 3\)"):
        multilabel_loss(jnp.zeros((2, 3)), jnp.zeros((2, 3)), positive_ratio=jnp.ones((2, 1)))


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, float("nan")])
@pytest.mark.parametrize("loss", [multilabel_loss, cross_entropy])
def test_label_smoothing_out_of_range_is_refused(
    loss: Callable[..., jax.Array], epsilon: float
) -> None:
    with pytest.raises(ValueError, match="label smoothing"):
        loss(jnp.zeros((2, 3)), jnp.zeros((2, 3)), epsilon=epsilon)


KNOWN_ONLY = ["asymmetric", "asymmetric_mean", "asymmetric_focal", "multilabel"]


@pytest.mark.parametrize("name", KNOWN_ONLY)
def test_what_is_not_annotated_changes_neither_value_nor_gradient(name: str) -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(1, 12)).astype(np.float32)
    targets = rng.integers(0, 2, (1, 12)).astype(np.float32)
    known = rng.random((3, 4)) < 0.7
    # The entries that are annotated, alone in one row, and scattered over three.
    row = known.reshape(1, 12)
    value, gradient = GRADIENTS[name](logits[:, row[0]], targets[:, row[0]])
    partial = np.where(row, targets, -1).reshape(3, 4)
    ours, our_gradient = GRADIENTS[name](logits.reshape(3, 4), partial)
    np.testing.assert_allclose(ours, value, rtol=1e-6)
    np.testing.assert_allclose(our_gradient[known], gradient[0], rtol=1e-5, atol=1e-8)
    np.testing.assert_array_equal(our_gradient[~known], 0)


def test_smoothing_leaves_what_is_not_annotated_alone() -> None:
    logits = np.asarray([[0.5, -1.0, 2.0]], np.float32)
    loss = multilabel(logits, np.asarray([[1, -1, 0]], np.float32), epsilon=0.3)
    soft = np.asarray([[0.8, 0.1]], np.float32)  # of three labels
    expected = binary_cross_entropy(logits[:, [0, 2]], soft).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("name", KNOWN_ONLY)
def test_the_loss_of_nothing_annotated_is_zero(name: str) -> None:
    value, gradient = GRADIENTS[name](np.ones((2, 3), np.float32), np.full((2, 3), -1.0))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)
