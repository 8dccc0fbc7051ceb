"""The recipe for few images, from end to end."""

import jax.numpy as jnp
import pytest

from mlcls_jax.config import parse
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.modes.evaluate import run_bundle
from mlcls_jax.modes.train import train
from mlcls_jax.recipe_choice import choose
from mlcls_jax.recipes import BACKBONES, small_recipe
from mlcls_jax.training.run import prepare
from tests.helpers.photos import write_photos

LABELS = tuple("abcdefghij")
pytestmark = pytest.mark.usefixtures("toy")


def config_of(data, **settings):
    config = small_recipe(name="Toy_ML")
    config.data.dir = str(data)
    config.update_from_flattened_dict({
        "model.weights": "none",
        "model.image_size": (32, 32),
        "model.embed_dim": 64,
        "model.hidden_dim": 64,
        "log.pictures": 0,
        "log.tensorboard": False,
        **settings,
    })  # fmt: skip
    return parse(config)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
def test_few_images_end_early_and_never_with_every_label_on_every_image(tmp_path):
    # Noise, of which nothing can be learnt: the worst case.
    photos = write_photos(tmp_path / "photos", train=120, val=40, labels=LABELS)
    config = config_of(photos, **{"train.patience": 4, "data.feature_views": 2})
    result = train(config, tmp_path)
    assert result is not None and result.thresholds is not None
    assert result.epochs < config.train.epochs
    assert result.best_epoch is not None and result.epochs >= result.best_epoch + 4
    bundle = read_bundle(tmp_path / "best_model")
    outputs = run_bundle(config, tmp_path, thresholds=False)
    decided = bundle.decide(bundle.probabilities(jnp.asarray(outputs.logits)))
    assert decided.any() and decided.mean() < 0.9


@pytest.mark.parametrize("kind", BACKBONES)
def test_what_is_chosen_for_the_backbone_is_what_a_run_does(tmp_path, kind):
    photos = write_photos(tmp_path / "photos", labels=LABELS)
    run = prepare(config_of(photos, **BACKBONES[kind]), tmp_path / "run")
    assert run.network.frozen_backbone == run.network.reads_features == (kind == "frozen")
    assert ("backbone" in run.network.trained(run.abstract.params)) == (kind != "frozen")


def test_a_choice_is_a_configuration_that_parses(tmp_path):
    for images, has_weights, task in ((120, True, "single"), (3_000, True, "multilabel")):
        config = small_recipe(name="PP-LCNet_x1_0_ML")
        config.data.dir = str(tmp_path)
        choice = choose(images=images, labels=10, task=task, has_weights=has_weights)
        assert choice.recipe == "small"
        config.update_from_flattened_dict(choice.settings)
        parsed = parse(config)
        assert parsed.model.task == task and parsed.train.epochs == choice.settings["train.epochs"]
