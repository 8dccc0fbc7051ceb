"""Linear heads are logistic regression, and what they say of labels is held against the truth."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mlcls_jax.curation import heads
from mlcls_jax.curation.judge import doubts, fold_numbers, judge, neighbours, suspects


@pytest.fixture(scope="module")
def sample():
    """Embeddings with a direction for each of three labels, the last one rare."""
    rng = np.random.default_rng(0)
    truth = rng.random((400, 3)) < [0.5, 0.3, 0.08]
    vectors = rng.normal(size=(400, 12)) + truth @ rng.normal(size=(3, 12)) * 2.5
    return vectors.astype(np.float32), truth


def test_heads_are_those_of_scikit_learn(sample):
    vectors, truth = sample
    points = heads.principal(vectors)(vectors)
    assert np.isclose((points**2).sum(1).mean(), 1, rtol=1e-4)
    targets = truth.astype(np.float32)
    targets[::7, 1] = -1
    used = np.arange(400) % 3 != np.arange(2)[:, None]
    weights = heads.fit(points, targets, used, 0.5, steps=2000)
    found = heads.logits(points, weights)
    for head, rows in enumerate(used):
        for k in range(3):
            known = rows & (targets[:, k] >= 0)
            reference = LogisticRegression(C=2.0, tol=1e-8, max_iter=10_000)
            reference.fit(points[known], targets[known, k])
            expected = reference.decision_function(points)
            assert np.allclose(found[head, :, k], expected, atol=0.02)
    few = heads.fit(points[:30] + 3, targets[:30], np.ones((1, 30), bool), 0.05, steps=3000)
    reference = LogisticRegression(C=20.0, tol=1e-8, max_iter=10_000)
    reference.fit(points[:30] + 3, targets[:30, 0])
    said = heads.logits(points[:30] + 3, few)[0, :, 0]
    assert np.allclose(said, reference.decision_function(points[:30] + 3), atol=0.02)
    usual = heads.logits(points, heads.fit(points, targets, used, 0.5))
    assert np.abs(usual - found).max() < 0.3  # steps enough


def test_flipped_labels_are_doubted_in_both_directions(sample):
    vectors, truth = sample
    flipped = np.random.default_rng(1).random(truth.shape) < 0.05
    targets = np.where(flipped, ~truth, truth).astype(np.float32)
    targets[:5] = -1
    judged = judge(vectors, targets)
    found = suspects(judged, vectors, targets, at_least=0.5)
    right = [one for one in found if flipped[one.row, one.label]]
    assert len(right) > 0.8 * len(found) and len(right) > 0.3 * flipped[5:].sum()
    assert {one.given for one in right} == {0, 1}
    assert not judged.doubt[:5].any()
    for one in found[:5]:
        near = neighbours(vectors, np.array([one.row]))[0]
        assert one.alike == (targets[near, one.label] > 0).sum()
        assert targets[one.row, one.label] == one.given != one.suggested
    usual = suspects(judged, vectors, targets)  # twice as many as seem to be wrong
    assert len(usual) == np.ceil(2 * judged.doubt.sum()) and usual[: len(found)] == found
    assert sum(flipped[one.row, one.label] for one in usual) > 1.3 * len(right)
    assert len(suspects(judged, vectors, targets, most=7)) == 7
    clean = judge(vectors, truth.astype(np.float32))
    assert clean.wrong < judged.wrong


def test_doubt_is_bayes_rule_at_the_rates_that_it_estimates():
    rng = np.random.default_rng(0)
    truth = rng.random((20_000, 2)) < [0.3, 0.1]
    evidence = rng.normal(size=truth.shape) + 4 * truth
    likelier = np.exp(4 * evidence - 8) * np.array([0.3, 0.1]) / [0.7, 0.9]
    known = likelier / (1 + likelier)  # chance of the label
    lost, added = 0.1, np.array([0.02, 0.005])
    marks = np.where(truth, rng.random(truth.shape) >= lost, rng.random(truth.shape) < added)
    doubt, wrong, missing = doubts(known * (1 - lost) + (1 - known) * added, marks.astype(float))
    assert abs(wrong - (marks & ~truth).sum() / marks.sum()) < 0.02
    assert abs(missing - (truth & ~marks).sum() / truth.sum()) < 0.02
    is_wrong = marks != truth
    for low, high in ((0.2, 0.5), (0.5, 0.8), (0.8, 1.01)):
        some = (doubt >= low) & (doubt < high)
        assert abs(is_wrong[some].mean() - doubt[some].mean()) < 0.1


def test_neighbours_have_the_highest_cosines():
    vectors = np.random.default_rng(0).normal(size=(60, 5))
    centred = vectors - vectors.mean(0)
    for row in (0, 59):
        norms = np.linalg.norm(centred, axis=1)
        cosines = centred @ centred[row] / norms / norms[row]
        expected = [i for i in np.argsort(-cosines) if i != row][:10]
        assert neighbours(vectors, np.array([row]))[0].tolist() == expected


def test_every_label_has_its_share_in_each_fold(sample):
    _, truth = sample
    part = fold_numbers(truth.astype(np.float32), 4, seed=0)
    assert np.bincount(part).tolist() == [100] * 4
    for k in range(3):
        counts = np.bincount(part[truth[:, k]], minlength=4)
        assert counts.max() - counts.min() <= 1


def test_copies_of_an_image_do_not_confirm_its_label():
    rng = np.random.default_rng(0)
    truth = (rng.random((300, 1)) < 0.4).astype(np.float32)
    vectors = (truth + rng.normal(size=(300, 256))).astype(np.float32)
    marks, wrong = truth.copy(), np.arange(15)
    marks[wrong] = 1 - marks[wrong]
    alone = judge(vectors, marks).scores[:15]
    copied = np.concatenate([vectors, vectors[wrong], vectors[wrong]])
    scores = judge(copied, np.concatenate([marks, marks[wrong], marks[wrong]])).scores[:15]
    assert (abs(alone - marks[wrong]) > 0.5).all()
    assert (abs(scores - marks[wrong]) > 0.5).mean() > 0.9
