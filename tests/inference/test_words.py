"""Labels given as words: scored without training, by a bundle like any other."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mlcls_jax import create_model
from mlcls_jax.errors import InputError, WeightsError
from mlcls_jax.inference.bundle import read_bundle, write_bundle
from mlcls_jax.inference.opening import open_model
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.inference.words import open_words
from mlcls_jax.models.texts import open_texts
from tests.helpers import towers

IMAGES = list(np.random.default_rng(3).integers(0, 255, (3, 40, 32, 3), np.uint8))
LABELS = ["a dog", "snow", "cat"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def tiny(monkeypatch, cache):
    towers.register(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def opened(tmp_path, golden):
    name = towers.write(tmp_path / "towers", golden)
    return name, create_model(name, weights=tmp_path / "towers")


def logits_of(tmp_path, predictor, labels, templates):
    """What the originals say of the images, from the embeddings of both towers."""
    texts = open_texts(tmp_path / "towers")
    features = predictor.embed(IMAGES)
    x = features @ texts.image_projection(features.shape[1])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    scale, bias = texts.scale_and_bias()
    return scale * x @ texts.embed(labels, templates).T + bias


def test_words_are_scored_as_siglip_does(tmp_path):
    _, predictor = opened(tmp_path, "siglip_huggingface")
    expected = logits_of(tmp_path, predictor, LABELS, ["a photo of {}."])
    found = predictor.of_words(tuple(LABELS)).scores(IMAGES)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-expected)), atol=1e-5)
    expected = logits_of(tmp_path, predictor, LABELS[:2], ["{}", "many {}"])
    found = predictor.of_words(tuple(LABELS[:2]), ("{}", "many {}")).scores(IMAGES)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-expected)), atol=1e-5)
    result = next(predictor.predict(IMAGES[0], labels=LABELS, threshold=0.0))
    assert sorted(result["label_names"]) == sorted(LABELS)


@pytest.mark.slow
def test_words_are_scored_as_clip_does_and_travel_in_a_bundle(tmp_path):
    name, predictor = opened(tmp_path, "clip_openai")
    words = open_words(name, open_texts(tmp_path / "towers"))
    single = words.bundle(LABELS, task="single")
    logits = logits_of(tmp_path, predictor, LABELS, ["a photo of {}."])
    plain = logits_of(tmp_path, predictor, ["a photo."], ["{}"])
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(
        Predictor(single).scores(IMAGES), exponents / exponents.sum(1, keepdims=True), atol=1e-5
    )
    # Of several labels an image, each is a question of two texts.
    pairs = 1 / (1 + np.exp(plain - logits))
    given = create_model(name, weights=tmp_path / "towers", labels=LABELS)
    assert given.bundle.labels == tuple(LABELS) and given.bundle.frame.fit == "crop"
    np.testing.assert_allclose(given.scores(IMAGES), pairs, atol=1e-5)

    bundle = given.bundle
    write_bundle(
        tmp_path / "bundle", bundle.model.network.config, bundle.model.variables,
        labels=bundle.labels, threshold=0.5, facts={}, frame=bundle.frame,
    )  # fmt: skip
    again = read_bundle(tmp_path / "bundle")
    np.testing.assert_allclose(Predictor(again).scores(IMAGES), pairs, atol=1e-5)
    with pytest.raises(InputError, match="was trained for its own"):
        next(Predictor(again).predict(IMAGES[0], labels=["snow"]))


def test_words_that_cannot_be_scored_are_named(tmp_path):
    name, predictor = opened(tmp_path, "clip_huggingface")
    with pytest.raises(InputError, match="no labels are given"):
        next(predictor.predict(IMAGES[0]))
    with pytest.raises(InputError, match="one is there twice"):
        next(predictor.predict(IMAGES[0], labels=["snow", "snow"]))
    weights = tmp_path / "towers" / "model.safetensors"
    arrays = load_file(weights)
    save_file({k: v for k, v in arrays.items() if "vision" not in k}, weights)
    with pytest.raises(WeightsError, match="model\\.safetensors: "):
        open_model(name, None, weights, ["snow"])
