"""The loss of a configuration: options, weights of classes, missing labels, and what is refused."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from mlcls_jax import losses
from mlcls_jax.config import Loss
from mlcls_jax.data.label_counts import LabelCounts
from mlcls_jax.errors import ConfigError
from mlcls_jax.losses import LOSSES
from mlcls_jax.training.loss import is_summed, make_loss

LOGITS = np.array([[0.3, -2.1, 1.0], [-1.2, 0.7, 0.4]], np.float32)
TARGETS = np.array([[1, 0, -1], [0, 1, -1]], np.float32)
COUNTS = LabelCounts(np.array([3, 1, 0]), np.array([9, 9, 4]), 9)
LABELS = ("cat", "dog", "fox")


@jax.jit
def values(logits):
    """Return the value of each loss, chosen by its name."""
    return {
        name: make_loss(Loss(name=name), counts=COUNTS)(logits, TARGETS, mask=np.ones(2, bool))
        for name in LOSSES
        if name != "cross_entropy"
    }


def test_every_loss_of_several_labels_is_chosen_by_its_name():
    found = values(LOGITS)
    assert np.isfinite(list(found.values())).all()
    assert len({float(value) for value in found.values()}) == len(LOSSES) - 1


def test_options_are_arguments_of_the_loss():
    loss = make_loss(Loss(name="focal", options=("gamma=1", "alpha=0.25"), reduction="mean"))
    expected = losses.focal_loss(LOGITS, TARGETS, gamma=1, alpha=0.25, reduction="mean")
    assert loss(LOGITS, TARGETS) == expected
    loss = make_loss(Loss(name="overlap", options=("of=jaccard",)))
    assert loss(LOGITS, TARGETS) == losses.overlap_loss(LOGITS, TARGETS, of="jaccard")


def test_classes_are_weighed_by_their_counts_or_by_a_file(tmp_path):
    file = tmp_path / "weights.json"
    file.write_text(json.dumps({"dog": 2, "cat": 0.5}), encoding="utf-8")
    for how, weights in {
        "inverse": losses.weights_of_classes("inverse", COUNTS.positives),
        str(file): [0.5, 2, 1],
    }.items():
        config = Loss(class_weights=how, positive_weight=3.0)
        loss = make_loss(config, labels=LABELS, counts=COUNTS)
        weights = np.asarray(weights, np.float32)
        expected = losses.asymmetric_loss(
            LOGITS, TARGETS, class_weights=weights, positive_weight=3.0
        )
        np.testing.assert_allclose(loss(LOGITS, TARGETS), expected, rtol=1e-6)


def test_missing_labels_are_counted_as_asked():
    loss = make_loss(Loss(), unknown="negative")
    expected = losses.asymmetric_loss(LOGITS, np.maximum(TARGETS, 0))
    assert loss(LOGITS, TARGETS) == expected
    loss = make_loss(Loss(), unknown="selective", counts=COUNTS)
    assert loss(LOGITS, TARGETS) == losses.asymmetric_loss(LOGITS, TARGETS)  # the likeliest are few


def test_a_label_that_is_annotated_as_present_alone_is_no_common_one():
    counts = LabelCounts(np.array([30, 4, 90]), np.array([30, 4, 100]), 100)
    np.testing.assert_allclose(counts.shares(), [0.3, 0.04, 0.9])
    logits, targets = np.zeros((1, 20)), np.full((1, 20), -1)
    targets[0, 0] = 1  # the only label that the image is known to have
    single = LabelCounts(np.full(20, 4), np.full(20, 4), 100)
    loss = make_loss(Loss(), unknown="selective", counts=single)
    assert loss(logits, targets) > losses.asymmetric_loss(logits, targets)  # 14 count as absent


def test_only_sums_over_entries_grow_with_the_batch():
    assert [name for name in LOSSES if is_summed(Loss(name=name))] == [
        *("asymmetric", "focal", "angular", "hill", "distribution_balanced", "entropy")
    ]
    assert not is_summed(Loss(reduction="mean"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "hinge"}, "loss.name=hinge: there are asymmetric, multilabel"),
        ({"name": "focal", "options": ("gama=2",)}, "'gama=2'.*no such option"),
        ({"name": "focal", "options": ("gamma=two",)}, "'gamma=two': must be a number"),
        ({"options": ("gamma_neg=2",)}, "no such option"),  # it is loss.gamma_neg
        ({"name": "two_way", "positive_weight": 2.0}, "loss.positive_weight.*does not take it"),
        ({"class_weights": "inverse"}, "how often each label occurs"),
        ({"class_weights": "no/such.json"}, r"no/such.json: cannot be read"),
        ({"name": "distribution_balanced"}, "how often each label occurs"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, told):
    with pytest.raises(ConfigError, match=told):
        make_loss(replace(Loss(), **changes))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[1]", "weights by label"),
        ('{"cow": 1}', "no label 'cow'"),
        ('{"cat": -1}', "must be >= 0"),
    ],
)
def test_a_malformed_file_of_weights_is_refused(tmp_path, content, told):
    file = tmp_path / "weights.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        make_loss(Loss(class_weights=str(file)), labels=LABELS)
