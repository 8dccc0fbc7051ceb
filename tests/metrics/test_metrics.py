"""Metrics: the originals' numbers, scikit-learn's, and what must not depend on order or scale."""

import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from mlcls_jax.metrics import (
    MAIN_METRIC,
    SHOWN_METRICS,
    as_text,
    average_precision,
    best_mean_accuracy,
    blocks,
    class_recall,
    for_json,
    hamming_distance,
    label_accuracy,
    mean_average_precision,
    metrics_of,
    multilabel_metrics,
    precision_recall_f1,
    sample_accuracy,
    single_label_metrics,
    top_k_accuracy,
)

GOLDENS = np.load(Path(__file__).parents[1] / "data" / "paddle" / "metrics.npz")
METHODS = ["integral", "11point"]
KEYS = [
    *("MultiLabelMAP", "HammingDistance", "LabelAccuracy", "SampleAccuracy"),
    *("OF1", "CF1", "OP", "OR", "CP", "CR"),
]
NO_POSITIVES = 2  # a class of the goldens

Arrays = tuple[np.ndarray, np.ndarray]


def golden(name: str) -> Arrays:
    logits = GOLDENS[f"{name}/logits"]
    return np.exp(-np.logaddexp(0, -logits)), GOLDENS[f"{name}/target"]


def example(seed: int, *, images: int = 60, classes: int = 7, levels: int = 1000) -> Arrays:
    """Random scores, tied when `levels` is small, and targets."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels + 1, (images, classes)) / levels
    return scores, (rng.random((images, classes)) < 0.3).astype(np.float32)


@st.composite
def tied_examples(draw: st.DrawFn) -> Arrays:
    """Few images and few levels, so that ties and classes without positives are frequent."""
    size = {"images": draw(st.integers(1, 12)), "classes": draw(st.integers(1, 4))}
    return example(draw(st.integers(0, 2**32)), **size, levels=draw(st.integers(1, 12)))


@pytest.mark.parametrize("method", METHODS)
def test_map_equals_the_original_without_ties(method: str) -> None:
    value = mean_average_precision(*golden("noties"), method=method)
    assert value == pytest.approx(float(GOLDENS[f"noties/{method}/value"]), abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_map_without_positives_is_not_a_number_where_the_original_says_zero(method: str) -> None:
    assert GOLDENS[f"nopos/{method}/value"] == 0
    assert np.isnan(mean_average_precision(*golden("nopos"), method=method))
    assert for_json({"a": math.nan, "b": 0.5}) == {"a": None, "b": 0.5}
    assert [as_text(value) for value in (math.nan, None, 0.5)] == ["undefined"] * 2 + ["0.5000"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["ties", "saturated"])
def test_map_lies_between_the_orders_of_ties(name: str, method: str) -> None:
    low, high = (float(GOLDENS[f"{name}/{method}/tie_{x}_first"]) for x in ("neg", "pos"))
    assert low <= mean_average_precision(*golden(name), method=method) <= high


@pytest.mark.parametrize("name", ["noties", "ties", "good"])
def test_decisions_match_the_original(name: str) -> None:
    """The original averages float32-rounded batches, which limits the first tolerance."""
    scores, targets = golden(name)
    expected = {key: float(GOLDENS[f"{name}/{key}/value"]) for key in ("hamming", "acc_label")}
    assert hamming_distance(scores, targets) == pytest.approx(expected["hamming"], abs=2e-8)
    assert label_accuracy(scores, targets) == pytest.approx(expected["acc_label"], abs=1e-12)
    exact = float(GOLDENS[f"{name}/acc_sample/value"])
    assert sample_accuracy(scores, targets) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("name", ["noties", "ties", "saturated"])
def test_average_precision_equals_sklearn_on_goldens(name: str) -> None:
    scores, targets = golden(name)
    values = average_precision(scores, targets)
    assert values.dtype == np.float64
    assert np.isnan(values[NO_POSITIVES])
    for k in np.flatnonzero(np.arange(len(values)) != NO_POSITIVES):
        expected = sklearn_metrics.average_precision_score(targets[:, k], scores[:, k])
        assert values[k] == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60)
@given(tied_examples())
def test_average_precision_equals_sklearn_with_ties(arrays: Arrays) -> None:
    scores, targets = arrays
    for k, value in enumerate(average_precision(scores, targets)):
        if not targets[:, k].any():
            assert np.isnan(value)
            continue
        expected = sklearn_metrics.average_precision_score(targets[:, k], scores[:, k])
        assert value == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60)
@given(tied_examples())
def test_eleven_points_equal_their_definition(arrays: Arrays) -> None:
    scores, targets = arrays
    for k, value in enumerate(average_precision(scores, targets, method="11point")):
        if not targets[:, k].any():
            assert np.isnan(value)
            continue
        precision, recall, _ = sklearn_metrics.precision_recall_curve(targets[:, k], scores[:, k])
        precision, recall = precision[:-1], recall[:-1]  # the last point is scikit-learn's own
        best = [precision[recall >= j / 10].max() for j in range(11)]
        assert value == pytest.approx(np.mean(best), abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40)
@given(arrays=tied_examples(), seed=st.integers(0, 2**32))
def test_order_of_images_does_not_change_average_precision(
    method: str, arrays: Arrays, seed: int
) -> None:
    scores, targets = arrays
    order = np.random.default_rng(seed).permutation(len(scores))
    expected = average_precision(scores, targets, method=method)
    shuffled = average_precision(scores[order], targets[order], method=method)
    np.testing.assert_array_equal(shuffled, expected)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40)
@given(tied_examples())
def test_monotone_transform_does_not_change_average_precision(method: str, arrays: Arrays) -> None:
    scores, targets = arrays
    expected = average_precision(scores, targets, method=method)
    for transformed in (scores**3, 0.5 + scores / 4, np.log(scores + 1e-3)):
        changed = average_precision(transformed, targets, method=method)
        np.testing.assert_array_equal(changed, expected)


@settings(max_examples=40)
@given(arrays=tied_examples(), column=st.integers(0, 4))
def test_classes_without_positives_are_left_out_of_the_mean(arrays: Arrays, column: int) -> None:
    scores, targets = arrays
    assume(column <= scores.shape[1])
    expected = mean_average_precision(scores, targets)
    scores, targets = (np.insert(x, column, 0, axis=1) for x in (scores, targets))
    assert np.isnan(average_precision(scores, targets)[column])
    np.testing.assert_equal(mean_average_precision(scores, targets), expected)


def test_perfect_ranking_scores_one() -> None:
    targets = np.asarray([[1, 0], [0, 1], [1, 0]])
    for method in METHODS:
        assert mean_average_precision(targets.astype(float), targets, method=method) == 1.0


def test_equal_scores_give_the_share_of_positives() -> None:
    scores, targets = np.full((4, 1), 0.7), np.asarray([[1], [0], [0], [0]])
    for method in METHODS:
        assert mean_average_precision(scores, targets, method=method) == 0.25


def test_only_an_integer_part_of_one_is_positive() -> None:
    scores = np.asarray([[0.9], [0.8], [0.7], [0.6], [0.5]])
    targets = np.asarray([[2.0], [3.5], [0.9], [1.0], [0.0]])
    assert mean_average_precision(scores, targets) == 0.25
    assert precision_recall_f1(scores, targets, threshold=0.55)["OP"] == 0.25


@settings(max_examples=40)
@given(arrays=tied_examples(), seed=st.integers(0, 99))
def test_what_is_not_annotated_is_left_out_of_every_count(arrays: Arrays, seed: int) -> None:
    scores, targets = arrays
    known = np.random.default_rng(seed).random(targets.shape) < 0.6
    known[0] = True
    partial = np.where(known, targets, -1)
    of_class = [
        (scores[known[:, k], k : k + 1], targets[known[:, k], k : k + 1])
        for k in range(targets.shape[1])
    ]
    for method in METHODS:
        alone = np.concatenate([average_precision(*pair, method=method) for pair in of_class])
        np.testing.assert_array_equal(average_precision(scores, partial, method=method), alone)
    predicted = scores > 0.5
    right = (predicted == targets)[known]
    assert label_accuracy(scores, partial) == pytest.approx(right.mean())
    assert hamming_distance(scores, partial) == pytest.approx(1 - right.mean())
    exact = [
        (row == truth)[has].all()
        for row, truth, has in zip(predicted, targets, known, strict=True)
        if has.any()
    ]
    assert sample_accuracy(scores, partial) == pytest.approx(np.mean(exact))
    f1 = precision_recall_f1(scores, partial)
    np.testing.assert_array_equal(
        f1["f1"], [precision_recall_f1(*pair)["f1"][0] for pair in of_class]
    )


def test_nothing_annotated_at_all_gives_zeros_and_no_mean_average_precision() -> None:
    metrics = multilabel_metrics(np.full((2, 3), 0.9), np.full((2, 3), -1))
    assert np.isnan(metrics.pop("MultiLabelMAP"))
    assert set(metrics.values()) == {0.0}


@settings(max_examples=40)
@given(arrays=tied_examples(), threshold=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_decisions_equal_sklearn(arrays: Arrays, threshold: float) -> None:
    scores, targets = arrays
    predicted = (scores > threshold).astype(int)
    options = {"threshold": threshold}
    hamming = np.mean(predicted != targets)  # hamming_loss refuses a single class
    if scores.shape[1] > 1:
        hamming = sklearn_metrics.hamming_loss(targets, predicted)
        exact = sklearn_metrics.accuracy_score(targets, predicted)
        assert sample_accuracy(scores, targets, **options) == pytest.approx(exact)
    assert hamming_distance(scores, targets, **options) == pytest.approx(hamming)
    assert label_accuracy(scores, targets, **options) == pytest.approx(1 - hamming)


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("threshold", [0.2, 0.5, 1.0])  # 1.0: nothing is predicted
def test_precision_recall_f1_equal_sklearn(levels: int, threshold: float) -> None:
    scores, targets = example(3, levels=levels)
    targets[:, 0] = 0
    ours = precision_recall_f1(scores, targets, threshold=threshold)

    def theirs(average: str | None) -> tuple[np.ndarray, ...]:
        return sklearn_metrics.precision_recall_fscore_support(
            targets, scores > threshold, average=average, zero_division=0
        )[:3]

    np.testing.assert_allclose([ours[key] for key in ("OP", "OR", "OF1")], theirs("micro"))
    np.testing.assert_allclose([ours["CP"], ours["CR"]], theirs("macro")[:2])
    np.testing.assert_allclose([ours[key] for key in ("precision", "recall", "f1")], theirs(None))


def test_cf1_is_the_harmonic_mean_of_cp_and_cr() -> None:
    ours = precision_recall_f1(*example(4))
    assert ours["CF1"] == pytest.approx(2 * ours["CP"] * ours["CR"] / (ours["CP"] + ours["CR"]))
    assert ours["CF1"] != pytest.approx(ours["f1"].mean(), abs=1e-4)


def test_threshold_is_strict_and_compared_in_the_type_of_the_scores() -> None:
    scores = np.asarray([[0.3, 0.7]], np.float32)  # float32(0.3) is above 0.3 in float64
    targets = np.asarray([[1, 1]])
    assert hamming_distance(scores, targets, threshold=0.3) == 0.5
    assert hamming_distance(scores, targets, threshold=np.asarray([0.3, 0.7])) == 1.0


def test_threshold_may_differ_by_class() -> None:
    scores, targets = example(5)
    thresholds = np.linspace(0.1, 0.9, scores.shape[1])
    together = precision_recall_f1(scores, targets, threshold=thresholds)
    for k, threshold in enumerate(thresholds):
        alone = precision_recall_f1(scores[:, [k]], targets[:, [k]], threshold=float(threshold))
        assert together["f1"][k] == alone["OF1"]


def test_multilabel_metrics_are_the_single_metrics() -> None:
    scores, targets = example(6)
    options = {"threshold": 0.4}
    numbers = multilabel_metrics(scores, targets, method="11point", **options)
    assert list(numbers) == KEYS
    assert all(type(number) is float for number in numbers.values())
    assert numbers["MultiLabelMAP"] == mean_average_precision(scores, targets, method="11point")
    assert numbers["HammingDistance"] == hamming_distance(scores, targets, **options)
    assert numbers["LabelAccuracy"] == label_accuracy(scores, targets, **options)
    assert numbers["SampleAccuracy"] == sample_accuracy(scores, targets, **options)
    assert numbers["CF1"] == precision_recall_f1(scores, targets, **options)["CF1"]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_narrow_scores_give_the_metrics_of_their_values(dtype: type) -> None:
    scores, targets = example(7)
    narrow = scores.astype(dtype)
    expected = multilabel_metrics(narrow.astype(np.float64), targets)
    assert multilabel_metrics(narrow, targets.astype(bool)) == expected


@pytest.mark.parametrize("block", [1, 50])
@pytest.mark.parametrize("task", MAIN_METRIC)
def test_blocks_do_not_change_the_metrics(
    task: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, targets = example(11)
    targets[3] = -1
    if task == "single":
        targets = np.eye(scores.shape[1])[np.arange(len(scores)) % scores.shape[1]]
    expected = metrics_of(task, scores, targets)
    monkeypatch.setattr(blocks, "BLOCK", block)
    assert metrics_of(task, scores, targets) == expected


@pytest.mark.parametrize("task", MAIN_METRIC)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("target_dtype", [np.uint8, np.int8, bool, np.float32])
def test_memory_besides_the_arrays_is_a_fraction_of_theirs(
    task: str, dtype: type, target_dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 2**12)
    rng = np.random.default_rng(0)
    scores = rng.random((20_000, 100)).astype(dtype)
    targets = np.eye(100, dtype=target_dtype)[rng.integers(0, 100, len(scores))]
    tracemalloc.start()
    try:
        metrics_of(task, scores, targets)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < scores.size / 2  # bytes; some numbers an image are needed, and a block's


FUNCTIONS = [
    average_precision,
    mean_average_precision,
    hamming_distance,
    label_accuracy,
    sample_accuracy,
    precision_recall_f1,
    multilabel_metrics,
    single_label_metrics,
    class_recall,
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("shapes", [((4, 3), (4, 2)), ((4,), (4,)), ((0, 3), (0, 3))])
def test_shapes_that_do_not_fit_are_named(
    function: Callable[..., object], shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    with pytest.raises(ValueError) as error:
        function(np.zeros(shapes[0]), np.zeros(shapes[1]))
    assert str(shapes[0]) in str(error.value)
    assert str(shapes[1]) in str(error.value)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_scores_that_are_not_finite_are_counted_and_located(
    function: Callable[..., object],
) -> None:
    scores, targets = example(8)
    scores[5, 2], scores[9, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"^2 of 420 .* nan of image 5, class 2"):
        function(scores, targets)


def test_unknown_method_is_named() -> None:
    for function in (average_precision, mean_average_precision):
        with pytest.raises(ValueError, match=r"'voc'.*integral, 11point"):
            function(*example(9), method="voc")


def test_threshold_of_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\).*\[7\]"):
        hamming_distance(*example(10), threshold=np.asarray([0.5, 0.5]))


def test_top_k_and_best_mean_accuracy_equal_the_original() -> None:
    scores, targets = golden("noties")
    labels = GOLDENS["topk/label"]
    for k in (1, 5):
        expected = float(GOLDENS[f"topk/top{k}"])  # rounded to float32 there
        assert top_k_accuracy(scores, labels, k=k) == pytest.approx(expected, abs=1e-7)
    assert top_k_accuracy(scores, labels, k=13) == 1.0  # more than there are classes
    threshold, accuracy = best_mean_accuracy(scores.astype(np.float32), targets)
    assert accuracy == pytest.approx(float(GOLDENS["mlmeanacc/value"]), abs=1e-12)
    assert f"threshold: {threshold}" in str(GOLDENS["mlmeanacc/info"])


def test_top_k_accuracy_equals_sklearn() -> None:
    scores, _ = example(3)
    labels = np.random.default_rng(4).integers(0, scores.shape[1], len(scores))
    for k in (1, 3):
        every = range(scores.shape[1])
        expected = sklearn_metrics.top_k_accuracy_score(labels, scores, k=k, labels=every)
        assert top_k_accuracy(scores, labels, k=k) == pytest.approx(expected)
    with pytest.raises(ValueError, match="do not fit"):
        top_k_accuracy(scores, labels[:-1])


def single_example(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and the class of each image; the last of the seven classes has none."""
    scores, _ = example(seed)
    return scores, np.random.default_rng(seed).integers(0, scores.shape[1] - 1, len(scores))


def test_single_label_metrics_equal_sklearn() -> None:
    scores, labels = single_example(5)
    num_classes = scores.shape[1]
    ours = single_label_metrics(scores, np.eye(num_classes)[labels])
    every = range(num_classes)
    for name, k in (("Top1", 1), ("Top5", 5)):
        expected = sklearn_metrics.top_k_accuracy_score(labels, scores, k=k, labels=every)
        assert ours[name] == pytest.approx(expected)
    best = scores.argmax(axis=1)
    recall = sklearn_metrics.recall_score(labels, best, labels=every, average=None, zero_division=0)
    by_class = class_recall(scores, np.eye(num_classes)[labels])
    np.testing.assert_allclose(by_class[:-1], recall[:-1])
    assert np.isnan(by_class[-1])
    assert ours["BalancedAccuracy"] == pytest.approx(recall[:-1].mean())


def test_images_that_are_not_annotated_are_left_out_of_single_label_metrics() -> None:
    scores, labels = single_example(6)
    targets = np.eye(scores.shape[1])[labels]
    expected = single_label_metrics(scores[10:], targets[10:])
    targets[:5], targets[5:10, 2] = -1, -1
    assert single_label_metrics(scores, targets) == expected
    without = single_label_metrics(scores, np.full_like(targets, -1))
    assert without.keys() == expected.keys() and np.isnan([*without.values()]).all()


def test_images_without_exactly_one_label_have_no_single_label_metrics() -> None:
    targets = np.asarray([[1, 0], [1, 1], [0, 0]])
    with pytest.raises(ValueError, match="2 of 3 images .* the first is image 1 with 2"):
        single_label_metrics(np.ones((3, 2)), targets)


def test_with_few_classes_the_true_one_is_always_among_five() -> None:
    metrics = single_label_metrics(np.eye(3), np.roll(np.eye(3), 1, axis=0))
    assert metrics == {"Top1": 0.0, "Top5": 1.0, "BalancedAccuracy": 0.0}


@pytest.mark.parametrize("task", MAIN_METRIC)
def test_what_is_shown_of_a_task_is_among_its_metrics(task: str) -> None:
    scores, labels = single_example(7)
    metrics = metrics_of(task, scores, np.eye(scores.shape[1])[labels], threshold=0.9)
    assert {MAIN_METRIC[task], *SHOWN_METRICS[task]} <= metrics.keys()
    assert all(type(value) is float for value in metrics.values())
