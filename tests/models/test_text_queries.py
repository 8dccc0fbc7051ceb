"""Queries made from the labels' text: one head for any labels, also such as it never saw."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from mlcls_jax import models
from mlcls_jax.config import Loss, Model, Optimizer, Train
from mlcls_jax.data.sources.digits import DigitBoards
from mlcls_jax.errors import ConfigError
from mlcls_jax.inference.bundle import read_bundle, write_bundle
from mlcls_jax.models import Network
from mlcls_jax.training.cadence import Plan
from mlcls_jax.training.loss import make_loss
from mlcls_jax.training.optimizer import make_optimizer, make_schedule
from mlcls_jax.training.state import init_state
from mlcls_jax.training.step import TrainStep

SEEN = 8


def config_of(embeddings, tmp_path, **options):
    path = tmp_path / "labels.npy"
    np.save(path, embeddings)
    return Model(
        name="PP-LCNet_x0_25_ML", num_classes=len(embeddings), image_size=(32, 32), embed_dim=32,
        hidden_dim=32, num_heads=4, text_embeddings=str(path), **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def embeddings():
    """Ten well separated directions."""
    return np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0][:10].astype(np.float32)


@pytest.fixture(scope="module")
def trained(embeddings, tmp_path_factory):
    """A head trained for some steps on boards of the digits 0 to 7."""
    config = config_of(embeddings[:SEEN], tmp_path_factory.mktemp("text"))
    network = Network.of(config).on(jax.devices())
    plan = Plan.of(Train(epochs=1, batch_size=16), epoch_size=16 * 12)
    options = Optimizer(schedule="constant", warmup_epochs=0, learning_rate=3e-3)
    schedule = make_schedule(options, plan)
    optimizer = make_optimizer(options, schedule, network)
    step = jax.jit(
        TrainStep(
            network,
            make_loss(Loss(name="multilabel")),
            optimizer,
            schedule,
            Train(ema_decay=0.0),
            seed=0,
        )
    )
    digits = load_digits()
    seen = digits.target < SEEN
    images, classes = digits.images[seen] / 16.0, digits.target[seen]
    boards = DigitBoards(images, classes, length=10_000, salt=5)
    state = init_state(network.init(0), optimizer=optimizer, ema=False)
    losses = []
    for number in range(12):
        examples = [boards[16 * number + i] for i in range(16)]
        batch = {
            "image": np.stack([image[::2, ::2] for image, _ in examples]),
            "target": np.stack([target[:SEEN] for _, target in examples]),
            "mask": np.ones(16, bool),
        }
        state, numbers = step(state, batch)
        losses.append(float(numbers["loss"]))
    return models.Model(network, state.variables), losses, batch["image"]


@pytest.mark.slow
def test_the_head_learns(trained):
    _, losses, _ = trained
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


@pytest.mark.slow
def test_labels_never_seen_get_finite_logits_and_the_seen_keep_theirs(trained, embeddings):
    model, _, images = trained
    wider = models.with_labels(model, embeddings)
    seen, all_logits = np.asarray(model(images)), np.asarray(wider(images))
    assert all_logits.shape == (len(images), 10)
    assert np.isfinite(all_logits).all()
    np.testing.assert_allclose(all_logits[:, :SEEN], seen, atol=1e-5)
    assert np.abs(all_logits[:, SEEN] - all_logits[:, SEEN + 1]).max() > 0  # each by its own text


@pytest.mark.slow
def test_the_order_of_labels_is_that_of_their_embeddings(trained, embeddings):
    model, _, images = trained
    turned = models.with_labels(model, embeddings[:SEEN][::-1])
    np.testing.assert_allclose(turned(images)[:, ::-1], model(images), atol=1e-5)


@pytest.mark.slow
def test_the_embeddings_travel_in_the_bundle(trained, tmp_path):
    model, _, images = trained
    labels = tuple(map(str, range(SEEN)))
    write_bundle(
        tmp_path / "bundle", model.network.config, model.variables,
        labels=labels, threshold=0.5, facts={},
    )  # fmt: skip
    again = read_bundle(tmp_path / "bundle").model
    np.testing.assert_array_equal(again(images), model(images))


def test_the_embeddings_are_frozen_and_their_projection_is_not(embeddings, tmp_path):
    network = Network.of(config_of(embeddings, tmp_path))
    assert network.frozen == {"head/text_embed", "backbone/feature_scale"}
    assert network.abstract.params["head"]["group_kernel"].shape == (1, 32, 1)


@pytest.mark.parametrize("shape", [(9, 16), (10,)])
def test_embeddings_that_do_not_fit_are_refused(embeddings, tmp_path, shape):
    config = config_of(embeddings, tmp_path)
    np.save(tmp_path / "labels.npy", np.zeros(shape))
    with pytest.raises(ConfigError, match=r"must be \(10, size\)"):
        Network.of(config)


def test_a_missing_file_of_embeddings_is_named(embeddings, tmp_path):
    config = config_of(embeddings, tmp_path)
    (tmp_path / "labels.npy").unlink()
    with pytest.raises(ConfigError, match=r"labels\.npy: is not a readable \.npy file"):
        Network.of(config)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda file: file.write(b""), "is not a readable"),
        (lambda file: np.savez(file, a=np.zeros((10, 4))), "holds no array of numbers"),
        (lambda file: np.save(file, np.full((10, 4), "x")), "holds no array of numbers"),
        (lambda file: np.save(file, np.zeros((10, 4), "f4,f4")), "holds no array of numbers"),
    ],
)
def test_files_that_hold_no_embeddings_are_named(embeddings, tmp_path, write, said):
    config = config_of(embeddings, tmp_path)
    with (tmp_path / "labels.npy").open("wb") as file:
        write(file)
    with pytest.raises(ConfigError, match=said):
        Network.of(config)


@pytest.mark.slow
def test_other_models_take_no_other_labels(trained, embeddings):
    plain = models.create("PP-LCNet_x0_25_ML", num_classes=3)
    with pytest.raises(ValueError, match="not made from text"):
        models.with_labels(plain, embeddings)
    with pytest.raises(ValueError, match=r"must be \[labels, 16\]"):
        models.with_labels(trained[0], embeddings[:, :4])


def test_queries_can_be_trained():
    config = Model(name="PP-LCNet_x0_25_ML", num_classes=3, trainable_queries=True)
    assert Network.of(config).frozen == {"backbone/feature_scale"}
