"""The recipe that is chosen for a data set by its size."""

import pytest

from mlcls_jax.recipe_choice import choose


@pytest.mark.parametrize(
    ("images", "platform", "has_weights", "recipe", "frozen"),
    [
        (120, "gpu", True, "small", True),
        (3_000, "gpu", True, "small", False),
        (3_000, "cpu", True, "small", True),
        (50_000, "cpu", True, "mlcls", None),
        (120, "gpu", False, "small", False),
        (50_000, "tpu", False, "small", False),
    ],
)
def test_the_backbone_stays_where_images_are_few(images, platform, has_weights, recipe, frozen):
    choice = choose(images=images, labels=10, has_weights=has_weights, platform=platform)
    assert choice.recipe == recipe
    assert choice.settings.get("train.frozen_backbone") is frozen
    assert choice.settings["model.weights"] == ("auto" if has_weights else "none")


def test_few_images_get_small_batches_and_more_epochs():
    few, many = (choose(images=n, labels=10).settings for n in (40, 40_000))
    assert (few["train.batch_size"], many["train.batch_size"]) == (8, 32)
    assert few["train.epochs"] == 100 and many["train.epochs"] == 10


def test_one_label_an_image_is_told_to_the_loss():
    settings = choose(images=200, labels=3, task="single").settings
    assert (settings["model.task"], settings["loss.name"]) == ("single", "cross_entropy")
    assert choose(images=20_000, labels=3, task="single").recipe == "single"


def test_reasons_are_sentences_that_name_what_decided():
    reasons = choose(images=120, labels=100).reasons
    assert reasons[0].startswith("120 images are too few to fine-tune a backbone")
    assert any(
        "reliable scores take 20 images or more with each label" in reason for reason in reasons
    )
    assert all(reason.endswith(".") for reason in reasons)
