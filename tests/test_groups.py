"""Labels that imply or exclude others: scores, targets, loss, thresholds and decisions agree."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlcls_jax import losses
from mlcls_jax.config import Loss, Model
from mlcls_jax.errors import ConfigError
from mlcls_jax.groups import (
    MOST,
    NO_GROUPS,
    Groups,
    close,
    consistent,
    contradictions,
    implied,
    inconsistent,
)
from mlcls_jax.thresholds import choose_thresholds
from mlcls_jax.training.loss import make_loss
from mlcls_jax.training.run import with_classes

LABELS = ("fruit", "milk", "apple", "gala", "pear", "ripe")
# fruit > apple > gala, fruit > pear; fruit or milk; apple or pear; ripe is free
GROUPS = Groups((-1, -1, 0, 2, 0, -1), (0, 0, 1, -1, 1, -1))
RNG = np.random.default_rng(0)


def test_scores_are_a_softmax_with_none_below_those_of_the_ancestors():
    logits = RNG.normal(size=(40, 6)) * 4
    found = np.asarray(jax.nn.sigmoid(consistent(jnp.array(logits, jnp.float32), GROUPS)))
    own = 1 / (1 + np.exp(-logits))
    for group in ([0, 1], [2, 4]):
        odds = np.exp(logits[:, group])
        own[:, group] = odds / (1 + odds.sum(1, keepdims=True))
    for label, parent in ((2, 0), (4, 0), (3, 2)):
        own[:, label] = np.minimum(own[:, label], own[:, parent])
    np.testing.assert_allclose(found, own, rtol=2e-5, atol=1e-7)
    assert (found[:, [2, 4]] <= found[:, [0]]).all() and (found[:, 3] <= found[:, 2]).all()
    assert not inconsistent(found > 0.5, GROUPS).any()
    trained = consistent(jnp.array(logits, jnp.float32), GROUPS, train=True)
    np.testing.assert_allclose(trained[:, 3], logits[:, 3], rtol=1e-6)


def test_extreme_logits_stay_finite():
    logits = jnp.array([[500.0, 499.0, -500.0, 80.0, 500.0, 0.0]], jnp.float32)
    value, grads = jax.value_and_grad(lambda x: consistent(x, GROUPS).sum())(logits)
    assert np.isfinite(value) and np.isfinite(grads).all()


def test_without_groups_logits_are_as_they_were():
    logits = jnp.array(RNG.normal(size=(2, 6)))
    assert consistent(logits, NO_GROUPS) is logits


def test_what_somebody_sets_takes_others_with_it():
    """Of fruit, milk, apple, gala, pear, ripe."""
    for target, label, value, wanted in [
        ([0, 1, 0, 0, 1, 1], 3, 1, [1, 0, 1, 1, 0, 1]),  # up to fruit: no milk; apple: no pear
        ([0, -1, 0, 0, 0, 0], 2, 1, [1, 0, 1, 0, 0, 0]),  # who looked at apple looked at milk
        ([1, 0, 1, 1, 0, 1], 0, 0, [0, 0, 0, 0, 0, 1]),
        ([1, 0, 1, 1, 0, 1], 1, 1, [0, 1, 0, 0, 0, 1]),  # what is excluded takes its kinds along
        ([1, 0, 1, 1, 0, 1], 0, -1, [-1, 0, -1, -1, 0, 1]),
        ([0, 1, 0, 0, 0, 0], 3, -1, [-1, 1, -1, -1, 0, 0]),  # not sure excludes nothing
        ([1, 0, 1, 1, 0, 0], 5, 1, [1, 0, 1, 1, 0, 1]),
        ([0, 0, 0, 0, 1, 0], 2, -1, [-1, 0, -1, 0, 1, 0]),  # what contradicted stays another's
    ]:
        found = implied(np.array(target, np.int8), label, value, GROUPS)
        assert label not in found and all(target[k] != new for k, new in found.items())
        assert [({label: value} | found).get(k, old) for k, old in enumerate(target)] == wanted
    assert implied(np.array([0, 1]), 0, 1, NO_GROUPS) == {}


def test_targets_are_closed_and_contradictions_told():
    targets = np.array(
        [
            [-1, -1, -1, 1, -1, -1],  # gala: an apple, a fruit, no milk and no pear
            [0, -1, -1, -1, -1, 1],  # no fruit: no apple, no gala, no pear
            [1, 0, 0, 1, 0, 0],  # gala, but no apple
            [1, 1, 0, 0, 0, 0],  # two of a group
            [0, 1, 1, 0, 0, 0],  # an apple makes a fruit, which excludes milk
        ],
        np.int8,
    )
    told = [
        [*contradictions(LABELS, np.flatnonzero(row == 1).tolist(), row == 0, GROUPS)]
        for row in targets
    ]
    wrong = close(targets, GROUPS)
    np.testing.assert_array_equal(
        targets,
        [
            [1, 0, 1, 1, 0, -1],
            [0, -1, 0, 0, 0, 1],
            [1, 0, 1, 1, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
        ],
    )
    np.testing.assert_array_equal(wrong, [bool(texts) for texts in told])
    assert told[2] == ["has 'gala', but not 'apple', of which it is a kind"]
    assert told[3] == ["has 'fruit' and 'milk', of which there can be one only"]
    assert len(told[4]) == 2


def test_decisions_against_the_groups_are_found():
    decisions = np.array([[1, 0, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0], [1, 0, 1, 0, 1, 0]], bool)
    np.testing.assert_array_equal(inconsistent(decisions, GROUPS), [False, True, True])


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (Groups((1, 0)), "does not end within 32"),
        (Groups((2, -1)), "no other label"),
        (Groups((0, -1)), "does not end within 32"),
        (Groups((), (0,)), "1 numbers for 2 labels"),
        (Groups((), (0,) * (MOST + 1)), "at most 4,096"),
    ],
)
def test_impossible_groups_are_refused(groups, told):
    with pytest.raises(ConfigError, match=told):
        groups.check(max(2, len(groups.exclusive) if len(groups.exclusive) > 2 else 0))


def test_thresholds_report_no_label_without_its_parent_and_one_of_a_group():
    logits = RNG.normal(size=(300, 6)).astype(np.float32) * 3
    scores = np.asarray(jax.nn.sigmoid(consistent(jnp.array(logits), GROUPS)))
    targets = (logits + RNG.normal(size=logits.shape) * 3 > 1).astype(np.int8)
    close(targets, GROUPS)
    for options in ({}, {"objective": "precision", "target": 0.7}):
        limits = choose_thresholds(scores, targets, groups=GROUPS, **options).thresholds
        assert limits[0] == limits[1] and limits[4] >= limits[2]
        assert not inconsistent(scores > limits, GROUPS).any()
    wanted = {"objective": "recall", "target": 0.9}
    alone = choose_thresholds(scores, targets, confidence=0.9, **wanted)
    choice = choose_thresholds(scores, targets, confidence=0.9, groups=GROUPS, **wanted)
    assert choice.guaranteed.all() and (choice.thresholds <= alone.thresholds).all()
    assert (choice.thresholds[[2, 4, 3]] >= choice.thresholds[[0, 0, 2]]).all()


def test_exclusive_labels_cost_the_cross_entropy_of_their_group():
    logits = RNG.normal(size=(5, 6)).astype(np.float32) * 2
    targets = np.array(
        [
            [1, 0, 1, 0, 0, 1],
            [0, 0, 0, 0, 0, 0],
            [-1, -1, -1, -1, -1, -1],
            [-1, 0, -1, 0, 1, -1],
            [0.7, 0.3, 0, 0, 0, 0],
        ],
        np.float32,
    )
    odds = np.exp(logits)
    chances = {
        tuple(g): odds[:, g] / (1 + odds[:, g].sum(1, keepdims=True)) for g in ([0, 1], [2, 4])
    }
    (milk, apple) = chances.values()
    expected = [
        -np.log(milk[0, 0]) - np.log(apple[0, 0]),
        -np.log(1 - milk[1].sum()) - np.log(1 - apple[1].sum()),
        0,
        -np.log(1 - milk[3, 1]) - np.log(apple[3, 1]),
        -0.7 * np.log(milk[4, 0]) - 0.3 * np.log(milk[4, 1]) - np.log(1 - apple[4].sum()),
    ]
    flat = Groups((), GROUPS.exclusive)
    whole = make_loss(Loss(name="multilabel", size_sum=True), groups=flat)
    for row, value in enumerate(expected):
        mask = np.arange(5) == row
        free = losses.multilabel_loss(
            logits[:, [3, 5]], targets[:, [3, 5]], size_sum=True, mask=mask
        )
        found = whole(consistent(jnp.array(logits), flat), targets, mask=mask)
        np.testing.assert_allclose(found, free + value, rtol=1e-5)


def test_a_mistake_that_is_certain_still_has_a_gradient():
    logits = jnp.array([[40.0, 0.0]])
    groups = Groups((), (0, 0))
    loss = make_loss(Loss(), groups=groups)
    slope = jax.grad(lambda x: loss(consistent(x, groups), jnp.zeros((1, 2))))(logits - 22)
    assert slope[0, 0] > 0.01


def test_the_entropy_of_missing_labels_is_not_for_exclusive_ones():
    with pytest.raises(ConfigError, match=r"loss\.name=entropy"):
        make_loss(Loss(name="entropy"), groups=GROUPS)


def test_a_model_has_the_groups_of_its_data_unless_it_has_its_own():
    model, labels = Model(name="PP-LCNet_x0_25"), LABELS
    found = with_classes(model, labels, GROUPS)
    assert (found.parents, found.exclusive) == (GROUPS.parents, GROUPS.exclusive)
    own = replace(model, parents=(-1,) * 6)
    assert with_classes(own, labels, GROUPS) == replace(own, num_classes=6)
    single = replace(model, task="single")
    assert with_classes(single, labels, GROUPS) == replace(single, num_classes=6)
