"""loss.name=auto: what is chosen, that it is the same again, and that a resumed run keeps it."""

import logging

import numpy as np
import pytest

from mlcls_jax import config as schema
from mlcls_jax.data.label_counts import LabelCounts
from mlcls_jax.groups import Groups
from mlcls_jax.models.network import Network
from mlcls_jax.training import auto_loss
from mlcls_jax.training.auto_loss import USUAL, recall_loss, settle_loss
from mlcls_jax.training.run import frame_of, prepare
from mlcls_jax.workdir import check_owner, claim
from tests.helpers.photos import write_lines, write_photos

pytestmark = pytest.mark.usefixtures("toy")


def config_of(data, **settings):
    return schema.changed(
        schema.default(),
        {
            "model.name": "Toy",
            "model.weights": "none",
            "model.image_size": (32, 32),
            "data.dir": str(data),
            "loss.name": "auto",
            **settings,
        },
    )


def settled(config, place):
    """Return the run of this configuration without auto, and its loss as auto settles it."""
    run = prepare(schema.changed(config, {"loss.name": "asymmetric"}), place)
    weights = run.network.init(0)
    return settle_loss(config, run.data.train, run.network, weights, frame_of(config)).loss


def lines(caplog):
    return [r.getMessage() for r in caplog.records if "loss.name=auto" in r.getMessage()]


def test_a_run_has_the_chosen_loss_says_why_and_goes_on_with_it(tmp_path, caplog):
    data, workdir = write_photos(tmp_path / "photos", train=24, val=3), tmp_path / "run"
    config = config_of(data)
    with caplog.at_level(logging.INFO):
        run = prepare(config, workdir)
    (told,) = lines(caplog)
    assert "random weights" in told
    loss = run.config.loss
    assert (loss.name, loss.auto) == ("asymmetric", True)
    assert prepare(config, workdir).config == run.config
    workdir.mkdir()
    claim(workdir, run.config, run.facts)
    assert recall_loss(config, workdir) == config  # nothing is saved: it is chosen again
    (workdir / "checkpoints" / "7").mkdir(parents=True)
    stored = schema.changed(run.config, {"loss.gamma_neg": 1.25})
    (workdir / "config.yaml").write_text(schema.to_yaml(stored))
    assert recall_loss(config, workdir) == stored
    check_owner(workdir, recall_loss(config, workdir))


@pytest.mark.slow  # it compiles the head's gradient
def test_the_head_that_will_be_trained_judges_the_losses(tmp_path, caplog):
    data = write_photos(tmp_path / "photos", train=27, val=3)
    config = config_of(data, **{"train.batch_size": 6, "train.epochs": 1})
    with caplog.at_level(logging.INFO):
        loss = settled(config, tmp_path / "run")
    told = lines(caplog)
    assert len(told) == 3 and "3 labels" in told[0] and "27 training images" in told[0]
    assert all(name in told[1] for name in auto_loss.FORMS)
    assert loss.auto and loss.name == "asymmetric"
    assert settled(config, tmp_path / "run") == loss


def test_labels_that_exclude_others_need_no_choice(tmp_path):
    groups = Groups((), (0, 0, 0))
    data = write_photos(tmp_path / "photos")
    config = config_of(data)
    network = Network.of(
        schema.Model(name="Toy", num_classes=3, image_size=(32, 32), exclusive=groups.exclusive)
    )
    source = prepare(schema.changed(config, {"loss.name": "asymmetric"}), tmp_path).data.train
    found = settle_loss(config, source, network, None, frame_of(config))
    assert found.loss == schema.Loss(auto=True)


def test_another_loss_is_taken_only_if_its_gain_is_beyond_chance():
    usual = np.array([0.50, 0.52, 0.54, np.nan])
    steady, erratic = (
        usual + np.array(gain) for gain in ([0.02, 0.03, 0.025, 0], [0.2, -0.1, 0.01, 0])
    )
    assert auto_loss._choose({USUAL: usual, "b": steady})[0] == "b"
    assert auto_loss._choose({USUAL: usual, "b": erratic})[0] == USUAL
    assert auto_loss._choose({USUAL: usual, "b": usual - 0.1})[0] == USUAL
    assert not auto_loss._is_gain(usual * np.nan)
    assert auto_loss._choose({USUAL: usual * np.nan, "b": usual * np.nan})[0] == USUAL


def test_weights_are_tried_where_labels_are_uneven():
    def names(*positives):
        counts = LabelCounts(np.array(positives), np.array([500] * len(positives)), 500)
        return [name for name, _ in auto_loss._forms(counts)]

    assert len(names(20, 100)) == 3
    assert names(10, 100)[3:] == [
        "gamma_neg=4 and class_weights=effective",
        "cross-entropy and class_weights=effective",
    ]


def test_labels_annotated_as_present_alone_tell_nothing(tmp_path, caplog):
    data = write_photos(tmp_path / "photos", train=6, val=3)
    write_lines(data / "train.txt", [f"images/train_{i}.png\t-1,1,-1" for i in range(6)])
    config = config_of(data, **{"data.unknown": "negative"})
    with caplog.at_level(logging.INFO):
        loss = settled(config, tmp_path / "run")
    told = lines(caplog)
    assert len(told) == 2 and "6 training images" in told[0]
    assert "nothing tells losses apart" in told[1] and loss.gamma_neg == 4
