"""Guaranteed recall: its promise on new images, its price, and who gets none."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from mlcls_jax.guarantees import (
    allowed_misses,
    chance_of_misses,
    guarantee_recall,
    positives_needed,
)
from mlcls_jax.thresholds import choose_thresholds


@pytest.mark.parametrize(("recall", "confidence"), [(0.95, 0.9), (0.8, 0.99), (0.999, 0.6)])
@pytest.mark.parametrize("positives", [1, 60, 3_000, 200_000])
def test_one_more_miss_would_be_likely(positives, recall, confidence):
    misses = allowed_misses(positives, recall, confidence)
    chances = binom.cdf([misses, misses + 1], positives, 1 - recall)
    assert chances[0] <= 1 - confidence < chances[1]  # of -1 misses it is 0
    assert (misses >= 0) == (positives >= positives_needed(recall, confidence))
    few = min(positives, 7)
    expected = binom.sf(few - 1, positives, 1 - recall)
    assert chance_of_misses(few, positives, recall) == pytest.approx(expected, abs=1e-9)


def test_the_recall_holds_in_nine_of_ten_draws_and_is_not_given_away():
    """600 classes, each a draw of its own; their true recall is known."""
    rng = np.random.default_rng(0)
    targets = (rng.random((400, 600)) < 0.3).astype(np.int8)
    logits = rng.normal(size=targets.shape) + targets
    scores = norm.cdf(logits).astype(np.float32)
    found = guarantee_recall(scores, targets, recall=0.9, confidence=0.9)
    assert not np.isnan(found).any()
    true = norm.sf(norm.ppf(found.astype(float)) - 1)
    held = (true >= 0.9).mean()
    assert 0.88 <= held <= 0.95  # as the binomial has steps, a little more than 0.9


def test_classes_with_few_positives_are_dealt_with_as_usual():
    rng = np.random.default_rng(1)
    targets = np.zeros((300, 3), np.int8)
    targets[:100, 0], targets[:20, 1], targets[:100, 2] = 1, 1, 1
    scores = np.clip(rng.random(targets.shape) + 0.3 * targets, 0, 1).astype(np.float32)
    scores[:30, 2] = 0  # no threshold lets them pass
    options = {"objective": "recall", "target": 0.95}
    choice = choose_thresholds(scores, targets, confidence=0.9, **options)
    assert choice.guaranteed.tolist() == [True, False, False]
    usual = choose_thresholds(scores, targets, **options)
    np.testing.assert_array_equal(choice.thresholds[1:], usual.thresholds[1:])
    positives = np.sort(scores[:100, 0])
    assert (positives <= choice.thresholds[0]).sum() == allowed_misses(100, 0.95, 0.9)


def test_missing_labels_count_nowhere():
    rng = np.random.default_rng(2)
    targets = (rng.random((200, 1)) < 0.5).astype(np.int8)
    scores = rng.random((200, 1)).astype(np.float32)
    known = rng.random(200) < 0.7
    options = {"recall": 0.8, "confidence": 0.9}
    partial = guarantee_recall(scores, np.where(known[:, None], targets, -1), **options)
    alone = guarantee_recall(scores[known], targets[known], **options)
    np.testing.assert_array_equal(partial, alone)
