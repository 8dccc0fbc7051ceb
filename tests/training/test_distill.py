"""Distillation against plain NumPy, and in the step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlcls_jax.config import Distill, Loss, Model, Train
from mlcls_jax.models.network import Network, Outputs, Variables
from mlcls_jax.training.distill import Compared, make_distillation, similarity_loss
from mlcls_jax.training.loss import make_loss
from mlcls_jax.training.state import init_state
from mlcls_jax.training.step import TrainStep


class Teacher(Network):
    """One layer on the mean colours of the picture's left and right half, which it also shows."""

    def __init__(self, config: Model):
        object.__setattr__(self, "config", config)  # all that a step asks for

    def trained(self, tree):
        return tree

    def apply(self, variables, images, *, train=False, key=None):
        assert images.shape[1:3] == self.config.image_size
        halves = jnp.stack(jnp.split(images / 255, 2, axis=2)).mean((2, 3))  # [2, B, 3]
        halves = halves.transpose(1, 0, 2)
        features = (halves.reshape(len(images), -1) @ variables.params["kernel"])[:, None, None]
        logits = features[:, 0, 0] + variables.params["bias"]
        return Outputs(logits, variables.batch_stats, features)


def network(size: int = 8) -> Teacher:
    return Teacher(Model(image_size=(size, size)))


def variables(seed: int) -> Variables:
    rng = np.random.default_rng(seed)
    kernel, bias = rng.normal(size=(6, 5)) * 2, rng.normal(size=5)
    return Variables({"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}, {})


def some_batch(size: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, (size, 5)).astype(np.float32)
    target[0, 1] = target[3, 3] = -1
    mask = np.arange(size) != 2
    images = rng.integers(0, 256, (size, 8, 8, 3), dtype=np.uint8)
    return {"image": images, "target": target, "mask": mask}


def some_logits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    student, teacher = np.random.default_rng(2).normal(size=(2, 4, 5)) * 3
    return student, teacher, np.array([True, True, False, True])


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


LOSSES = {  # our reduction → NumPy's of [rows, labels]
    "sum": (Loss(), np.sum),
    "mean": (Loss(reduction="mean"), np.mean),
    "multilabel": (Loss(name="multilabel"), np.mean),
    "size_sum": (Loss(name="multilabel", size_sum=True), lambda x: x.sum(1).mean()),
}


def combined(loss: Loss, target_loss: float, student, teacher, mask, **options) -> float:
    distillation = make_distillation(Distill(**options), loss, network())
    outputs = (Compared(jnp.asarray(logits, jnp.float32)) for logits in (student, teacher))
    loss = jax.jit(distillation.loss)  # compiled as one, not operation by operation
    return float(loss(jnp.float32(target_loss), *outputs, jnp.asarray(mask)))


@pytest.mark.parametrize("loss", LOSSES)
def test_scores_of_independent_labels(loss):
    student, teacher, mask = some_logits()
    config, reduce = LOSSES[loss]
    q, p = (1 / (1 + np.exp(-x[mask] / 2)) for x in (student, teacher))
    entries = -p * np.log(q) - (1 - p) * np.log(1 - q)
    student[2] = teacher[2] = np.nan  # padding
    result = combined(config, 7.0, student, teacher, mask, weight=0.3, temperature=2.0)
    assert result == pytest.approx(0.7 * 7 + 0.3 * 4 * reduce(entries), rel=1e-5)


def test_scores_of_one_label_an_image():
    student, teacher, mask = some_logits()
    q, p = softmax(student[mask] / 2), softmax(teacher[mask] / 2)
    divergence = (p * np.log(p / q)).sum(1).mean()
    student[2] = teacher[2] = np.nan
    loss = Loss(name="cross_entropy")
    result = combined(loss, 7.0, student, teacher, mask, weight=0.3, temperature=2.0)
    assert result == pytest.approx(0.7 * 7 + 0.3 * 4 * divergence, rel=1e-4)
    assert combined(loss, 0.0, teacher, teacher, mask) == pytest.approx(0, abs=1e-6)


def test_similarities_are_compared_over_pairs_of_images():
    rng = np.random.default_rng(3)
    student, teacher = rng.normal(size=(4, 3)), rng.normal(size=(4, 7))
    mask = np.array([True, True, False, True])

    def cosines(rows):
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return rows @ rows.T

    expected = np.mean((cosines(student[mask]) - cosines(teacher[mask])) ** 2)
    student[2] = teacher[2] = np.nan
    loss = jax.jit(similarity_loss)
    result = loss(jnp.float32(student), jnp.float32(teacher), jnp.asarray(mask))
    assert float(result) == pytest.approx(expected, rel=1e-5)


def test_features_of_zero_have_a_finite_gradient():
    ones = jnp.ones((2, 3))
    gradient = jax.jit(jax.grad(similarity_loss))(ones.at[0].set(0), ones, jnp.ones(2, bool))
    assert np.isfinite(gradient).all()


def step_of(distill, *, accumulate: int = 1):
    step = TrainStep(
        network(),
        make_loss(Loss(name="multilabel")),
        OPTIMIZER,
        optax.constant_schedule(0.1),
        Train(ema_decay=0.0, ema_warmup=False, accumulate=accumulate),
        seed=0,
        distill=distill,
    )
    return jax.jit(step)


OPTIMIZER = optax.sgd(0.1)
START = init_state(variables(1), optimizer=OPTIMIZER, ema=False)


def distillation(size: int = 8, **options):
    return make_distillation(Distill(**options), Loss(name="multilabel"), network(size))


def test_the_step_learns_from_the_teacher_that_it_is_given():
    batch, teacher = some_batch(), variables(2)
    step = step_of(distillation(weight=1.0, temperature=2.0, features=0.5))
    state, losses = START, []
    for _ in range(30):
        state, numbers = step(state, batch, teacher)
        losses.append(float(numbers["loss"]))
    assert losses[-1] < 0.9 * losses[0] and step._cache_size() == 1
    _, numbers = step(START, batch, variables(3))
    assert abs(float(numbers["loss"]) - losses[0]) > 1e-3 and step._cache_size() == 1


def test_a_student_that_equals_its_teacher_has_nothing_to_learn_from_it():
    batch = some_batch()
    _, numbers = step_of(distillation(weight=1.0, features=0.5))(START, batch, variables(1))
    assert numbers["grad_norm"] < 1e-6
    _, plain = step_of(None)(START, batch)
    assert plain["grad_norm"] > 1e-2


def test_parts_add_up_and_compare_features_within_a_part():
    batch, teacher = some_batch(), variables(2)
    distill = distillation(weight=0.4, temperature=2.0)
    whole, expected = step_of(distill)(START, batch, teacher)
    parts, numbers = step_of(distill, accumulate=2)(START, batch, teacher)
    assert float(numbers["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, parts.params, whole.params)

    distill = distillation(weight=0.0, features=2.0)
    _, expected = step_of(distill)(START, batch, teacher)
    parts, numbers = step_of(distill, accumulate=2)(START, batch, teacher)
    assert float(numbers["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)

    def features(variables, rows):
        images = batch["image"][rows]
        return network().apply(variables, images, train=True).features[:, 0, 0]

    @jax.jit
    @jax.grad
    def gradient(params):
        own = Variables(params, {})
        logits = network().apply(own, batch["image"], train=True).logits
        total = make_loss(Loss(name="multilabel"))(logits, batch["target"], mask=batch["mask"])
        for part in range(2):
            rows = slice(part, None, 2)
            share = batch["mask"][rows].sum() ** 2 / batch["mask"].sum() ** 2  # of all pairs
            outputs = features(own, rows), features(teacher, rows)
            total += 2.0 * share * similarity_loss(*outputs, jnp.asarray(batch["mask"][rows]))
        return total

    moved = jax.tree.map(lambda p, g: p - 0.1 * g, START.params, gradient(START.params))
    jax.tree.map(close, parts.params, moved)


def test_the_teacher_sees_images_of_its_own_size():
    batch, teacher = some_batch(), variables(2)
    # 16 x 16; the student takes any
    images = jnp.asarray(batch["image"].repeat(2, 1).repeat(2, 2))
    smaller = jax.jit(distillation(size=8, weight=1.0).teach)(teacher, images)
    exact = jax.jit(distillation(size=16, weight=1.0).teach)(teacher, images)
    # Halves mix where they meet, by the filter's width.
    np.testing.assert_allclose(smaller.logits, exact.logits, atol=0.2)
    grey = np.full((1, 12, 12, 3), 77, np.uint8)
    expected = jax.jit(network().apply)(teacher, grey[:, :8, :8]).logits
    found = jax.jit(distillation().teach)(teacher, grey).logits
    np.testing.assert_allclose(found, expected, rtol=1e-6)
