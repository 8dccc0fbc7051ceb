"""Thresholds and temperature: against brute force, and honest about images they were chosen on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import log_loss as reference_log_loss

from mlcls_jax import thresholds
from mlcls_jax.metrics import average_precision, blocks, precision_recall_f1
from mlcls_jax.thresholds import (
    calibration_bins,
    choose_thresholds,
    fit_temperature,
    held_out_decisions,
    log_loss,
)

# Few different values, so that many are equal; 0 and 1, too.
SCORES = arrays.arrays(np.float32, (12, 2), elements=st.sampled_from(np.float32([*range(9)]) / 8))
TARGETS = arrays.arrays(np.float32, (12, 2), elements=st.sampled_from([-1.0, 0.0, 1.0]))


def measures(scores, positives, threshold):
    """Precision, recall and F1 of one class, plainly."""
    reported = scores > np.float32(threshold)
    hits = (reported & positives).sum()
    precision = hits / reported.sum() if reported.any() else 0.0
    recall = hits / positives.sum()
    return precision, recall, 2 * hits / (reported.sum() + positives.sum())


def test_a_label_can_be_reported_as_often_as_it_occurs():
    rng = np.random.default_rng(0)
    scores = rng.random((400, 3)).astype(np.float32)
    targets = (rng.random((400, 3)) < (0.1, 0.5, 0.9)).astype(np.float32)  # scores say nothing
    choice = choose_thresholds(scores, targets, objective="prevalence")
    reported, positives = (scores > choice.thresholds).sum(0), targets.sum(0)
    slack = thresholds.PLATEAU / np.sqrt(positives)
    assert (np.abs(reported / positives - 1) <= slack).all() and not choice.unreached.any()
    # The best F1 of such scores is reached by reporting the label nearly everywhere.
    assert (scores > choose_thresholds(scores, targets).thresholds).mean() > 0.8


@settings(max_examples=300)
@given(SCORES, TARGETS, st.sampled_from([("f1", None), ("precision", 0.7), ("recall", 0.6)]))
def test_no_cut_is_much_better(scores, targets, wanted):
    objective, target = wanted
    choice = choose_thresholds(scores, targets, objective=objective, target=target, min_positives=1)
    for k in range(2):
        known = targets[:, k] >= 0
        values, positives = scores[known, k], targets[known, k] >= 1
        if not values[positives].any():
            assert choice.thresholds[k] == 0.5
            continue
        cuts = [measures(values, positives, t) for t in np.append(np.unique(values), 0.0)]
        chosen = measures(values, positives, choice.thresholds[k])
        slack = thresholds.PLATEAU / np.sqrt(positives.sum())
        if objective == "f1":
            assert chosen[2] >= max(cut[2] for cut in cuts) - slack
            assert not choice.unreached[k]
            continue
        limited, free = (0, 1) if objective == "precision" else (1, 0)
        reached = min(target, max(cut[limited] for cut in cuts))
        assert choice.unreached[k] == (reached < target)
        assert chosen[limited] >= reached
        best = max(cut[free] for cut in cuts if cut[limited] >= reached)
        assert chosen[free] >= best - slack


@given(SCORES, TARGETS)
def test_without_slack_the_best_is_found(scores, targets):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thresholds, "PLATEAU", 0.0)
        choice = choose_thresholds(scores, targets, min_positives=1)
    for k in range(2):
        known = targets[:, k] >= 0
        values, positives = scores[known, k], targets[known, k] >= 1
        if values[positives].any():
            best = max(measures(values, positives, t)[2] for t in np.append(values, 0.0))
            assert measures(values, positives, choice.thresholds[k])[2] == pytest.approx(best)


def column(*values):
    return np.float32(values)[:, None]


def test_a_threshold_lies_in_the_middle_of_the_gap():
    choice = choose_thresholds(column(0.9, 0.8, 0.4, 0.1), column(1, 1, 0, 0), min_positives=1)
    assert choice.thresholds == pytest.approx([0.6])
    everything = choose_thresholds(column(0.9, 0.4), column(1, 1), min_positives=1)
    assert everything.thresholds == pytest.approx([0.2])


def test_neighbouring_numbers_are_told_apart():
    upper = np.float32(0.7)
    lower = np.nextafter(upper, np.float32(0))
    choice = choose_thresholds(column(upper, lower), column(1, 0), min_positives=1)
    assert lower <= choice.thresholds[0] < upper
    assert choice.thresholds.dtype == np.float32


def test_of_cuts_that_are_nearly_as_good_the_middle_one_is_taken():
    # 400 positives above 0.8; between 0.2 and 0.8 six positives and six negatives change nearly
    # nothing; below 0.2 there are negatives only.
    rng = np.random.default_rng(0)
    scores = [*rng.uniform(0.8, 1, 400), *np.linspace(0.21, 0.79, 12), *rng.uniform(0, 0.2, 400)]
    targets = [1] * 400 + [1, 0] * 6 + [0] * 400
    choice = choose_thresholds(column(*scores), column(*targets))
    assert 0.4 < choice.thresholds[0] < 0.6


def test_rare_classes_share_a_threshold():
    scores = np.float32([[0.9, 0.7, 0.3], [0.8, 0.2, 0.6], [0.1, 0.1, 0.1], [0.2, 0.15, 0.05]])
    targets = np.float32([[1, 1, 0], [1, 0, 1], [0, 0, 0], [1, 0, 0]])
    choice = choose_thresholds(scores, targets, min_positives=2)
    np.testing.assert_array_equal(choice.shared, [False, True, True])
    # Both together: positives at 0.7 and 0.6, the best negative at 0.3.
    np.testing.assert_allclose(choice.thresholds[1:], 0.45, rtol=1e-6)


def test_a_shared_threshold_is_that_of_all_their_decisions_as_of_one_class():
    rng = np.random.default_rng(1)
    scores = rng.random((60, 7), np.float32)
    targets = (rng.random((60, 7)) < 0.1 + 0.3 * scores).astype(np.float32)
    targets[rng.random((60, 7)) < 0.1] = -1
    scores[targets[:, 0] == 1, 0] = 0  # positives that no threshold lets pass
    for objective, target in (("f1", None), ("precision", 0.4), ("recall", 0.7)):
        options = {"objective": objective, "target": target}
        shared = choose_thresholds(scores, targets, min_positives=1000, **options)
        one = choose_thresholds(
            scores.reshape(-1, 1), targets.reshape(-1, 1), min_positives=1, **options
        )
        assert set(shared.thresholds) == set(one.thresholds)


def test_where_no_label_is_ever_present_the_threshold_is_a_half():
    choice = choose_thresholds(np.full((3, 2), 0.9, np.float32), np.zeros((3, 2)))
    np.testing.assert_array_equal(choice.thresholds, [0.5, 0.5])


def test_what_cannot_be_reached_is_told_and_approached():
    scores, targets = column(0.9, 0.8, 0.7, 0.6), column(0, 1, 1, 0)
    choice = choose_thresholds(scores, targets, objective="precision", target=0.9, min_positives=1)
    assert choice.unreached[0]
    assert choice.thresholds == pytest.approx([0.65])  # precision 2/3, the most there is
    reached = choose_thresholds(scores, targets, objective="precision", target=0.6, min_positives=1)
    assert not reached.unreached[0]


def test_faults_of_the_caller_are_told():
    with pytest.raises(ValueError, match="must be alike"):
        choose_thresholds(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="'recall' needs a target"):
        choose_thresholds(np.zeros((3, 2)), np.zeros((3, 2)), objective="recall")


# --- images that thresholds were not chosen on ---


def noise(count, classes=20):
    rng = np.random.default_rng(2)
    return rng.random((count, classes), np.float32), (rng.random((count, classes)) < 0.3) * 1.0


@pytest.mark.parametrize("count", [2, 3, 40])
def test_an_image_has_no_say_in_its_own_decisions(count):
    scores, targets = noise(count)
    before = held_out_decisions(scores, targets, min_positives=1)
    for row in range(count):
        changed = targets.copy()
        changed[row] = 1 - changed[row]
        after = held_out_decisions(scores, changed, min_positives=1)
        np.testing.assert_array_equal(after[row], before[row])
        if count == 3:
            assert (after != before).any()  # but in those of others


def test_luck_on_noise_vanishes_on_held_out_images():
    scores, targets = noise(60, classes=200)
    choice = choose_thresholds(scores, targets, objective="precision", target=0.9)
    same = precision_recall_f1(scores, targets, threshold=choice.thresholds)["CP"]
    decisions = held_out_decisions(scores, targets, objective="precision", target=0.9)
    other = precision_recall_f1(decisions.astype(np.float32), targets, threshold=0.5)["CP"]
    assert other < 0.4 < 0.6 < same  # 0.3 of all labels are present


def test_a_single_image_cannot_be_held_out():
    assert held_out_decisions(*noise(1)) is None


# --- temperature ---


def labelled_logits(seed, *, true_temperature, size=(400, 6)):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 3, size).astype(np.float32)
    targets = (rng.random(size) < 1 / (1 + np.exp(-logits / true_temperature))).astype(np.float32)
    targets[rng.random(size) < 0.1] = -1
    return logits, targets


@pytest.mark.parametrize("true_temperature", [1.0, 1.7, 4.0])
def test_the_temperature_is_the_best_of_a_fine_grid(true_temperature):
    logits, targets = labelled_logits(3, true_temperature=true_temperature)
    found = fit_temperature(logits, targets)
    grid = np.geomspace(0.2, 8, 2000)
    losses = [log_loss(logits, targets, temperature=t) for t in grid]
    assert found == pytest.approx(grid[np.argmin(losses)], rel=2e-3)
    assert log_loss(logits, targets, temperature=found) <= min(losses) + 1e-9
    assert found == pytest.approx(true_temperature, rel=0.15)


def test_perfect_logits_do_not_grow_until_their_order_is_lost():
    logits = np.linspace(-30, 30, 400, dtype=np.float32).reshape(-1, 2)
    targets = (logits > 0).astype(np.float32)
    found = fit_temperature(logits, targets)
    assert found == 1  # larger logits than these would all have a score of 1
    found = fit_temperature(logits / 10, targets)
    scores = 1 / (1 + np.exp(-logits / 10 / np.float32(found)))
    assert len(np.unique(scores)) == scores.size


def test_calibration_leaves_the_average_precision_as_it_is():
    logits, targets = labelled_logits(4, true_temperature=0.4)
    found = fit_temperature(logits, targets)
    assert found < 0.8
    before, after = (1 / (1 + np.exp(-logits / np.float32(t))) for t in (1, found))
    np.testing.assert_array_equal(
        average_precision(before, targets), average_precision(after, targets)
    )


def test_crowded_logits_are_not_divided_until_their_order_is_lost():
    logits = np.random.default_rng(0).normal(0, 1e-4, (30, 3)).astype(np.float32)
    targets = (logits < 0).astype(np.float32)  # the smaller the logits, the likelier
    found = fit_temperature(logits, targets)
    before, after, limit = (1 / (1 + np.exp(-logits / np.float32(t))) for t in (1, found, 10))
    precisions = [average_precision(scores, targets) for scores in (before, after, limit)]
    np.testing.assert_array_equal(precisions[0], precisions[1])
    assert (precisions[0] != precisions[2]).any()  # where the search would end by itself


def test_nothing_annotated_leaves_the_logits_alone():
    assert fit_temperature(np.ones((3, 2), np.float32), np.full((3, 2), -1.0)) == 1.0


def test_the_likelihood_is_that_of_scikit_learn(monkeypatch):
    logits, targets = labelled_logits(5, true_temperature=2)
    known = targets >= 0
    expected = reference_log_loss(targets[known], 1 / (1 + np.exp(-logits[known] / 3.0)))
    assert log_loss(logits, targets, temperature=3) == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(blocks, "BLOCK", 100)
    assert log_loss(logits, targets, temperature=3) == pytest.approx(expected, rel=1e-6)


def test_the_calibration_error_is_the_mean_distance_over_bins(monkeypatch):
    rng = np.random.default_rng(6)
    scores = rng.random((50, 4), np.float32) ** 2
    scores[0] = 1.0
    targets = rng.integers(-1, 2, (50, 4))
    known = targets >= 0
    s, y = scores[known].astype(float), targets[known]
    total = 0.0
    for b in range(15):
        inside = (s >= b / 15) & ((s < (b + 1) / 15) | (b == 14))
        if inside.any():
            total += inside.sum() * abs(s[inside].mean() - y[inside].mean())
    assert calibration_bins(scores, targets).error == pytest.approx(total / len(s))
    monkeypatch.setattr(blocks, "BLOCK", 30)
    bins = calibration_bins(scores, targets)
    assert bins.error == pytest.approx(total / len(s))
    assert bins.decisions.sum() == known.sum()
