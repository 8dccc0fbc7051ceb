"""Published weights by their words: laid out by hand, from a mirror, or the way out without one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs import clip_vit, hgnetv2, lcnet, resnet
from mlcls_jax import models
from mlcls_jax.commands.weights import run
from mlcls_jax.config import Config, Model
from mlcls_jax.errors import InputError, WeightsError
from mlcls_jax.models import registry
from mlcls_jax.models.network import flatten
from mlcls_jax.models.pixels import HALVES, IMAGENET
from mlcls_jax.models.weights import load, save, sources
from mlcls_jax.training.run import initial_weights
from tests.helpers.bundles import write_small
from tests.helpers.toy_backbone import FAMILY

NAME = "PP-LCNet_x0_25_ML"
FILE = "PPLCNet_x0_25_pretrained.pdparams"


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("MLCLS_MODELS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A backbone with a plain classifier of 1,000 classes, in Paddle's names."""
    path = tmp_path_factory.mktemp("elsewhere") / FILE
    model = models.create(NAME.removesuffix("_ML"), num_classes=1000, seed=5)
    save(model, path, "paddle")
    return path, flatten(model.variables)["backbone/conv1/conv/kernel"]


def test_every_model_has_a_start_and_no_word_twice():
    for name in models.list_models():
        words = [source.word for source in sources.sources(name)]
        assert words and len(set(words)) == len(words), name
        assert set(words) <= set(sources.WORDS), name
        assert sources.find("auto", name) == sources.sources(name)[0], name
        assert ("official" in words) == (name in sources.official_models()), name


def test_a_folder_of_files_goes_before_any_network(monkeypatch, published):
    path, kernel = published
    monkeypatch.setenv("MLCLS_WEIGHTS", str(path.parent))
    model = models.create(NAME, num_classes=3)
    load(model, "auto")
    np.testing.assert_array_equal(flatten(model.variables)["backbone/conv1/conv/kernel"], kernel)


def test_a_file_that_was_added_is_found_again(published):
    path, kernel = published
    told = run(["add", str(path)])
    assert FILE in told and Path(told.split()[-1]).exists()
    assert run(["get", NAME, "--source", "backbone"]) == told.split()[-1]
    assert [line.split()[-1] for line in run(["list", NAME]).splitlines()[:2]] == ["here", "yes"]
    config = Config(model=Model(name=NAME, weights="auto"))
    _, variables = initial_weights(config, ("a", "b", "c"))
    np.testing.assert_array_equal(flatten(variables)["backbone/conv1/conv/kernel"], kernel)


def test_without_a_network_the_error_says_what_to_fetch_and_where_to_lay_it():
    with pytest.raises(WeightsError) as error:
        initial_weights(Config(model=Model(name=NAME, weights="auto")), ("a",))
    assert "model.weights=auto: http://127.0.0.1:9/" in error.value.message
    assert error.value.hint is not None
    for part in (
        f"bcebos.com/dygraph/legendary_models/{FILE}",
        f"mlcls weights add {FILE}",
        "MLCLS_WEIGHTS",
        "model.weights=none",
    ):
        assert part in error.value.hint


def test_words_that_mean_nothing_for_a_model_are_refused():
    with pytest.raises(WeightsError, match="model.weights=official: no such weights") as error:
        sources.find("official", "ResNet18_ML")
    assert error.value.hint == "There are timm."
    assert sources.find("photos/official.pth", NAME) is None
    found = sources.find("timm:resnet50.tv_in1k", "ResNet50_ML")
    assert found is not None and found.address == "hf://timm/resnet50.tv_in1k"
    with pytest.raises(InputError, match=r"other\.pth: there is no such file"):
        run(["add", "other.pth"])


def test_weights_with_a_tag_bring_the_pixels_of_their_training(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "Toy", replace(FAMILY, pixels=lambda name: HALVES))
    monkeypatch.setenv("MLCLS_WEIGHTS", str(tmp_path))
    model = models.create("Toy", num_classes=3, image_size=32)
    for tag in ("dino", "other"):
        save(model, tmp_path / f"Toy.{tag}.safetensors", "timm")
    for weights, name in (("timm:Toy.dino", "Toy.dino"), ("timm:Toy.other", "Toy")):
        found = models.create("Toy", num_classes=3, image_size=32, weights=weights).network
        assert found.config.name == name
        assert found.outline.pixels == (IMAGENET if name.endswith("dino") else HALVES)


def test_a_run_stands_for_its_best_model(tmp_path):
    write_small(tmp_path / "run" / "best_model", labels=("a", "b"))
    (tmp_path / "run" / "config.yaml").write_text("mode: train\n")
    small = {"embed_dim": 32, "hidden_dim": 32, "num_heads": 4, "image_size": (32, 32)}
    found = [
        flatten(initial_weights(Config(model=Model(name=NAME, weights=str(w), **small)), "ab")[1])
        for w in (tmp_path / "run", tmp_path / "run" / "best_model")
    ]
    np.testing.assert_array_equal(*(one["backbone/conv1/conv/kernel"] for one in found))


def test_random_weights_are_told_unless_asked_for(caplog):
    for weights, told in ((None, 1), ("none", 0)):
        caplog.clear()
        assert initial_weights(Config(model=Model(name=NAME, weights=weights)), ("a",))[1] is None
        assert caplog.text.count("starts from random weights") == told


def test_recipes_for_own_images_start_from_published_weights():
    for file in (clip_vit, hgnetv2, lcnet, resnet):
        for recipe, weights in (("demo", "none"), ("mlcls", "auto"), ("coco", "backbone")):
            assert file.get_config(recipe).model.weights == weights
