"""Rankings, single images, ROC: scikit-learn's numbers; missing labels left out."""

import numpy as np
import pytest
from sklearn import metrics as reference

from mlcls_jax.metrics import (
    blocks,
    example_metrics,
    further_metrics,
    matthews_correlation,
    ranking_metrics,
    roc_auc,
    top_k_f1,
)


def arrays(*, levels: int, unknown: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and targets with rows and columns of one kind."""
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels + 1, (200, 6)) / levels
    targets = (rng.random((200, 6)) < 0.35).astype(np.int8)
    targets[0], targets[1], targets[:, 5] = 0, 1, 0
    targets[rng.random(targets.shape) < unknown] = -1
    return scores, targets


@pytest.fixture(params=[5, 10_000], ids=["ties", "distinct"])
def tied(request, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 100)  # several blocks
    return arrays(levels=request.param)


def test_rankings_are_those_of_scikit_learn(tied):
    scores, targets = tied
    found = ranking_metrics(scores, targets)
    for name, theirs in {
        "LRAP": reference.label_ranking_average_precision_score,
        "RankingLoss": reference.label_ranking_loss,
        "CoverageError": reference.coverage_error,
    }.items():
        np.testing.assert_allclose(found[name], theirs(targets, scores), rtol=1e-12, err_msg=name)


def test_numbers_of_single_images_are_those_of_scikit_learn(tied):
    scores, targets = tied
    threshold = np.linspace(0.3, 0.8, 6)
    found = example_metrics(scores, targets, threshold=threshold)
    for name, theirs in {
        "ExampleP": reference.precision_score,
        "ExampleR": reference.recall_score,
        "ExampleF1": reference.f1_score,
        "Jaccard": reference.jaccard_score,
    }.items():
        expected = theirs(targets, scores > threshold, average="samples", zero_division=0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-12, err_msg=name)


def test_areas_and_correlations_are_those_of_scikit_learn(tied):
    scores, targets = tied
    areas, correlations = roc_auc(scores, targets), matthews_correlation(scores, targets)
    for k in range(5):
        theirs = reference.roc_auc_score(targets[:, k], scores[:, k])
        np.testing.assert_allclose(areas[k], theirs, rtol=1e-12)
        theirs = reference.matthews_corrcoef(targets[:, k], scores[:, k] > 0.5)
        np.testing.assert_allclose(correlations[k], theirs, rtol=1e-12)
    assert np.isnan(areas[5])
    assert correlations[5] == 0


def test_the_highest_labels_are_counted_as_reported():
    scores, targets = arrays(levels=10_000)
    predicted = scores >= np.sort(scores, axis=1)[:, [-3]]
    assert (predicted.sum(1) == 3).all()
    precision, recall, _, _ = reference.precision_recall_fscore_support(
        targets, predicted, average="macro", zero_division=0
    )
    overall, by_class = top_k_f1(scores, targets)
    np.testing.assert_allclose(overall, reference.f1_score(targets, predicted, average="micro"))
    np.testing.assert_allclose(by_class, 2 * precision * recall / (precision + recall))


def test_labels_that_are_not_annotated_count_nowhere():
    """Each image, and each class, as if it had only what is annotated."""
    scores, targets = arrays(levels=5, unknown=0.4)
    targets[2] = -1
    known, total, images = targets >= 0, np.zeros(3), 0
    for row in np.flatnonzero(known.any(1)):
        part = known[row]
        total += list(ranking_metrics(scores[[row]][:, part], targets[[row]][:, part]).values())
        images += 1
    np.testing.assert_allclose(list(ranking_metrics(scores, targets).values()), total / images)
    for k in range(6):
        part = known[:, k], [k]
        for metric in (roc_auc, matthews_correlation):
            alone = metric(scores[part[0]][:, [k]], targets[part[0]][:, [k]])[0]
            np.testing.assert_allclose(metric(scores, targets)[k], alone)
    np.testing.assert_allclose(
        list(further_metrics(scores, np.where(known, targets, -1)).values()),
        list(further_metrics(np.where(known, scores, 0.77), targets).values()),
    )
