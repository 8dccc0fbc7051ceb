"""What a run says of settings, data and outcomes that make it useless."""

import logging
import re
from typing import NamedTuple

import numpy as np
import pytest

from mlcls_jax import config as schema
from mlcls_jax.config import Config
from mlcls_jax.data.sources import DataSplits
from mlcls_jax.metrics import multilabel_metrics
from mlcls_jax.models import Network
from mlcls_jax.training.advice import (
    Advice,
    about_data,
    about_decisions,
    about_lanes,
    about_map,
    about_plan,
    about_positives,
    about_rare,
    about_start,
)
from mlcls_jax.training.cadence import Plan


class Targets(NamedTuple):
    """A source of targets alone."""

    targets: np.ndarray
    labels: tuple[str, ...] = ("cat", "dog", "emu")


def plan_advice(images: int, **sections) -> list[str]:
    config = Config(**sections)
    plan = Plan.of(config.train, epoch_size=images)
    return about_plan(config, plan, DataSplits(range(images), range(1)))


def network(name: str = "PP-LCNet_x0_25") -> Network:
    return Network.of(schema.Model(name=name, num_classes=3))


def test_a_batch_above_its_data_is_told():
    (told,) = plan_advice(90, train=schema.Train(batch_size=128))
    assert told.startswith("train.batch_size=128 is more than the 90 images of an epoch")
    assert not plan_advice(128, train=schema.Train(batch_size=128))


def test_a_warm_up_as_long_as_the_run_is_told():
    train = schema.Train(epochs=3)
    (told,) = plan_advice(90, train=train)
    assert told.startswith("optimizer.warmup_epochs=5 is as long as the run, train.epochs=3")
    assert not plan_advice(90, train=train, optimizer=schema.Optimizer(schedule="onecycle"))
    assert not plan_advice(90, train=train, optimizer=schema.Optimizer(warmup_epochs=2.5))


def test_an_average_that_is_mostly_the_initial_weights_is_told():
    slow = schema.Train(epochs=10, ema_warmup=False, batch_size=10)
    short = schema.Optimizer(warmup_epochs=1.0)
    (told,) = plan_advice(600, train=slow, optimizer=short)
    assert "keeps 84% of the initial weights in the average after all 600 steps" in told
    assert "take 0.9833, or train.ema_warmup=True" in told
    assert not plan_advice(600, train=schema.Train(epochs=10, batch_size=10), optimizer=short)
    assert not plan_advice(100_000, train=slow, optimizer=short)


def test_random_weights_are_told_where_images_are_few_or_the_backbone_stays():
    few, many = (DataSplits(range(n), range(1)) for n in (120, 50_000))
    frozen = Config(train=schema.Train(frozen_backbone=True))
    assert "120 images are few" in (about_start(Config(), few, has_weights=False) or "")
    assert "keeps a backbone of random" in (about_start(frozen, many, has_weights=False) or "")
    assert about_start(Config(), many, has_weights=False) is None
    assert about_start(frozen, few, has_weights=True) is None


def test_images_that_leave_one_cell_to_look_at_are_told():
    def told(name: str, size: int) -> str | None:
        return about_map(
            Network.of(schema.Model(name=name, num_classes=3, image_size=(size, size)))
        )

    assert "a single cell" in (told("PP-LCNet_x0_25_ML", 32) or "")
    assert told("PP-LCNet_x0_25_ML", 64) is None
    assert told("PP-LCNet_x0_25", 32) is None  # a mean needs no choice


def test_labels_of_few_images_are_told_with_their_number():
    told = about_rare(("cat", "dog", "emu"), np.array([9, 10, 0]))
    assert told is not None and told.startswith("1 of 3 labels have fewer than 10 training images")
    assert "cat (9)." in told and "dog" not in told
    assert about_rare(("cat",), np.array([10])) is None


@pytest.mark.parametrize(
    ("train", "devices", "told"),
    [
        ({"batch_size": 128}, 4, "=128 puts 32 images on .* take train.batch_size=512.$"),
        ({"batch_size": 512, "accumulate": 4}, 1, None),
        ({"batch_size": 512, "accumulate": 4}, 2, "puts 64 images .* take train.accumulate=2.$"),
        ({"batch_size": 500, "accumulate": 2}, 1, "2 parts puts 250 .* train.batch_size=512.$"),
        ({"batch_size": 1024}, 4, None),
    ],
)
def test_lanes_of_tpus_that_stay_empty_are_told(train, devices, told):
    said = about_lanes(schema.Train(**train), network(), platform="tpu", devices=devices)
    assert re.search(told, said) if told else said is None


def test_lanes_matter_to_convolutions_on_tpus_alone():
    train = schema.Train(batch_size=32)
    transformer = network("CLIP_vit_base_patch16_448_ML")
    assert about_lanes(train, network(), platform="gpu", devices=1) is None
    assert about_lanes(train, transformer, platform="tpu", devices=1) is None


def test_labels_without_positives_are_named():
    train = Targets(np.tile(np.array([[1, 0, -1], [1, 1, 0]], np.int8), (10, 1)))
    validation = Targets(np.array([[0, 0, -1], [0, 0, 0]], np.int8))
    told = about_data(DataSplits(train, validation))
    assert list(filter(None, told)) == [
        "no training image has 1 of 3 labels, which cannot be learnt: emu",
        "no validation image has any of the 3 labels, so that no metric can tell which weights are"
        " the best: cat, dog, emu",
    ]
    assert about_positives("training", ("cat", "dog"), np.array([1, 2])) is None


def test_labels_of_every_validation_image_are_named():
    """Their mean average precision of 1 looked like a perfect model."""
    train = Targets(np.tile(np.eye(3, dtype=np.int8), (10, 1)))
    validation = Targets(np.array([[1, 1, 1], [1, -1, 0]], np.int8))
    (told,) = filter(None, about_data(DataSplits(train, validation)))
    assert told.startswith("2 of 3 labels are present in all validation images that tell of them")
    assert "is 1, however they are scored: cat, dog." in told


def test_a_model_that_reports_everything_is_told():
    targets = np.eye(4)
    everything = multilabel_metrics(np.full((4, 4), 0.9), targets)
    assert "every label is reported on every image, of which 25% are right" in about_decisions(
        everything, 0.5
    )
    assert about_decisions(multilabel_metrics(targets, targets), 0.5) is None
    nearly = np.where(np.tri(4, k=2) > 0, 0.9, 0.1)  # 15 of 16
    told = about_decisions(multilabel_metrics(nearly, targets), 0.5)
    assert told and "nearly every label is reported on every image, of which 27% are" in told
    fewer = np.where(np.tri(4, k=1) > 0, 0.9, 0.1)  # 13 of 16, and misses none
    assert about_decisions(multilabel_metrics(fewer, targets), 0.5) is None
    assert "no label is reported that is right" in (
        about_decisions(multilabel_metrics(np.zeros((4, 4)), targets), 0.5) or ""
    )
    assert about_decisions({}, 0.5) is None  # the record of an older run


def test_everything_is_told_once(caplog):
    advice = Advice()
    with caplog.at_level(logging.WARNING):
        advice.tell("a", None, "b")
        advice.tell("a")
    assert advice.told == ["a", "b"] == [record.getMessage() for record in caplog.records]
