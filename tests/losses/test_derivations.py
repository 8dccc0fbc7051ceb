"""Losses beside PaddleClas': values and gradients of plain NumPy, written from the papers."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import pytest

from mlcls_jax.losses import (
    angular_loss,
    count_unknown,
    distribution_balanced_loss,
    entropy_loss,
    focal_loss,
    hill_loss,
    multilabel_loss,
    overlap_loss,
    two_way_loss,
    weights_of_classes,
)

LOGITS = np.array([[0.3, -2.1, 4.0, 0.0], [-1.2, 0.7, -0.4, 2.2], [1.5, -0.6, 0.2, -3.0]])
TARGETS = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [-1, 0, 0.25, 0]])
KNOWN = TARGETS >= 0
CLASS_WEIGHTS, POSITIVE_WEIGHT = np.array([1.0, 0.5, 2.0, 3.0]), 1.5
COUNTS, IMAGES = np.array([30.0, 5.0, 60.0, 0.0]), 100


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def mixed(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Costs of the known entries, weighed by class and sign."""
    costs = TARGETS * positive * POSITIVE_WEIGHT + (1 - TARGETS) * negative
    return np.where(KNOWN, costs * CLASS_WEIGHTS, 0)


def focal(x: np.ndarray) -> float:
    p = sigmoid(x)
    return mixed(-0.25 * np.log(p) * (1 - p) ** 1.5, -0.75 * np.log(1 - p) * p**1.5).sum()


def angular(x: np.ndarray) -> float:
    p = sigmoid(x)
    spared = np.minimum(1 - p + 0.05, 1)
    return mixed(-0.8 * np.log(p), -0.2 * np.log(spared) * p).sum()


def hill(x: np.ndarray) -> float:
    p, shifted = sigmoid(x), sigmoid(x - 1)
    return mixed(-np.log(shifted) * (1 - shifted) ** 2, (1.5 - p) * p**2).sum()


def entropy(x: np.ndarray) -> float:
    p = sigmoid(x)
    unsure = 0.2 * (p * np.log(p) + (1 - p) * np.log(1 - p))
    return np.where(KNOWN, mixed(-np.log(p), -np.log(1 - p)), unsure).sum()


def distribution_balanced(x: np.ndarray) -> float:
    counts = np.maximum(COUNTS, 1)
    shift = -np.log(IMAGES / counts - 1) * 0.05 / 2
    total = 0.0
    for row, (logits, targets) in enumerate(zip(x, TARGETS, strict=True)):
        present = np.maximum(targets, 0)
        repeats = (present / counts).sum()
        for k, target in enumerate(targets):
            rarity = 1 / counts[k] / repeats
            weight = 0.1 + sigmoid(10 * (rarity - 0.2))
            p, q = sigmoid(logits[k] + shift[k]), sigmoid(2 * (logits[k] + shift[k]))
            positive = -2 * weight * (1 - p) ** 2 * np.log(p) * POSITIVE_WEIGHT
            negative = -2 * weight / 2 * q**2 * np.log(1 - q)
            cost = (target * positive + (1 - target) * negative) * CLASS_WEIGHTS[k]
            total += cost if KNOWN[row, k] else 0
    return total


def two_way(x: np.ndarray) -> float:
    def mean_gap(rows: list[tuple[np.ndarray, np.ndarray]]) -> float:
        gaps = []
        for logits, targets in rows:
            positives, negatives = logits[targets > 0.5], logits[(targets >= 0) & (targets <= 0.5)]
            if len(positives) and len(negatives):
                low = 4 * np.log(np.exp(-positives / 4).sum())
                gaps.append(np.log1p(np.exp(low + np.log(np.exp(negatives).sum()))))
            elif len(positives):
                gaps.append(0.0)
        return np.mean(gaps)

    images = list(zip(x, TARGETS, strict=True))
    classes = list(zip(x.T, TARGETS.T, strict=True))
    return mean_gap(images) + mean_gap(classes)


def overlap(x: np.ndarray, *, of: str) -> float:
    values = []
    for logits, targets in zip(x, TARGETS, strict=True):
        p, t = sigmoid(logits)[targets >= 0], targets[targets >= 0]
        if of == "f1":
            values.append(1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
        else:
            common = (p * t).sum()
            values.append(1 - (common + 1) / (p.sum() + t.sum() - common + 1))
    return np.mean(values)


WEIGHTED = {"class_weights": CLASS_WEIGHTS, "positive_weight": POSITIVE_WEIGHT}
CASES: dict[str, tuple[Callable, Callable]] = {
    "focal": (partial(focal_loss, gamma=1.5, alpha=0.25, **WEIGHTED), focal),
    "angular": (partial(angular_loss, **WEIGHTED), angular),
    "hill": (partial(hill_loss, **WEIGHTED), hill),
    "entropy": (partial(entropy_loss, alpha=0.2, **WEIGHTED), entropy),
    "distribution_balanced": (
        partial(distribution_balanced_loss, positives=COUNTS, images=IMAGES, **WEIGHTED),
        distribution_balanced,
    ),
    "two_way": (two_way_loss, two_way),
    "f1": (overlap_loss, partial(overlap, of="f1")),
    "jaccard": (partial(overlap_loss, of="jaccard"), partial(overlap, of="jaccard")),
}
PLAIN = {name: loss for name, (loss, _) in CASES.items()}


@pytest.fixture(scope="module")
def computed() -> dict[str, tuple[float, np.ndarray]]:
    """Values and gradients by name, of one program; two rows of padding hold NaN."""
    junk = np.full((2, 4), np.nan)
    targets, mask = np.concatenate([TARGETS, junk]), np.arange(5) < 3

    def run(logits: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
        return {n: jax.value_and_grad(f)(logits, targets, mask=mask) for n, f in PLAIN.items()}

    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, jax.jit(run)(np.concatenate([LOGITS, junk])))


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_plain_numpy(name: str, computed: dict) -> None:
    reference = CASES[name][1]
    value, gradient = computed[name]
    np.testing.assert_array_equal(gradient[3:], 0)
    np.testing.assert_allclose(value, reference(LOGITS), rtol=1e-12)
    step = 1e-6
    for place in np.ndindex(LOGITS.shape):
        nudge = np.zeros_like(LOGITS)
        nudge[place] = step
        slope = (reference(LOGITS + nudge) - reference(LOGITS - nudge)) / (2 * step)
        np.testing.assert_allclose(gradient[place], slope, rtol=1e-7, atol=1e-8)


def test_nothing_overflows_and_no_images_cost_nothing() -> None:
    """At logits where float32 saturates, in images without labels, and in batches of padding."""
    logits = np.array([[-1e4, -100.0, 100.0, 1e4]] * 4, np.float32)
    targets = np.concatenate([TARGETS, np.zeros((1, 4))]).astype(np.float32)

    def run(mask: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
        return {n: jax.value_and_grad(f)(logits, targets, mask=mask) for n, f in PLAIN.items()}

    run = jax.jit(run)
    for name, found in run(np.ones(4, bool)).items():
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found)), name
    assert all(value == 0 for value, _ in run(np.zeros(4, bool)).values())


def test_cross_entropy_takes_the_same_weights() -> None:
    p = sigmoid(LOGITS)
    with jax.enable_x64(True):
        value = multilabel_loss(LOGITS, TARGETS, **WEIGHTED)
    expected = mixed(-np.log(p), -np.log(1 - p)).sum() / KNOWN.sum()
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_weights_of_another_shape_are_named(unchecked: None) -> None:
    with pytest.raises(ValueError, match=r"class_weights \(3,\)"):
        focal_loss(LOGITS, TARGETS, class_weights=np.ones(3))


def test_missing_labels_count_as_absent_unless_that_is_probably_wrong() -> None:
    logits = np.array([[3.0, -1.0, 2.0, 0.0], [0.0, 1.0, -2.0, 5.0]])
    targets = np.array([[-1, -1, -1, 1], [-1, 0, -1, -1]])
    count = partial(count_unknown, logits, targets)
    np.testing.assert_array_equal(count("ignore"), targets)
    np.testing.assert_array_equal(count("negative"), np.maximum(targets, 0))
    likely = [[-1, 0, 0, 1], [0, 0, 0, -1]]
    np.testing.assert_array_equal(count("selective", likely=1), likely)
    common = [[-1, -1, 0, 1], [0, 0, 0, -1]]
    prior = np.array([0.01, 0.2, 0.05, 0.01])
    np.testing.assert_array_equal(count("selective", likely=1, prior=prior), common)


def test_classes_weigh_by_their_effective_number_of_images() -> None:
    counts = np.array([0, 10, 1000])
    inverse = np.array([1, 1 / 10, 1 / 1000])
    effective = np.array([1, 0.001 / (1 - 0.999**10), 0.001 / (1 - 0.999**1000)])
    for how, expected in {"inverse": inverse, "effective": effective}.items():
        expected = expected / expected.mean()
        np.testing.assert_allclose(weights_of_classes(how, counts), expected, rtol=1e-12)
