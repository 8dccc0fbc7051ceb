"""Other labels of a trained model: what stays keeps its logits."""

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlcls_jax import models
from mlcls_jax.config import Config, Data, Model
from mlcls_jax.errors import ConfigError
from mlcls_jax.models import Network
from mlcls_jax.models.network import flatten
from mlcls_jax.models.texts import open_texts
from mlcls_jax.training.run import initial_weights, with_classes
from tests.helpers import towers
from tests.helpers.tiers import slow

OLD = ["dog", "cat", "snow", "cup", "bus"]
NEW = ["vehicle", "snow", "hound", "pup", "cat", "tree"]
ORIGINS = {"vehicle": ["bus", "cup"], "hound": "dog", "pup": "dog"}  # merged, split
IMAGES = np.random.default_rng(1).integers(0, 255, (2, 32, 32, 3), np.uint8)


def logits(model):
    return np.asarray(model(IMAGES))


def create(name, **options):
    """A small model whose weights are all drawn, biases too, so that none of them is 0."""
    values = {"num_classes": len(OLD), "image_size": (32, 32), "embed_dim": 16, "hidden_dim": 16}
    network = Network.of(Model(name=name, num_heads=2, **(values | options)))
    model = models.Model(network, network.init(0))
    head, rng = model.variables.params["head"], np.random.default_rng(0)
    for name in ("group_bias", "text_embed"):
        if name in head:
            head[name] = rng.normal(size=head[name].shape).astype(np.float32)
    if "fc" in head:
        head["fc"]["bias"] = rng.normal(size=len(OLD)).astype(np.float32)
    return model


@pytest.mark.parametrize("queries", [slow(80), 2])  # two: three labels share a query
def test_an_ml_decoder_keeps_its_old_scores(toy, queries):
    model = create("Toy_ML", query_num=queries)
    before = logits(model)
    after = logits(models.with_labels(model, NEW, old=OLD, origins=ORIGINS))
    np.testing.assert_allclose(after[:, [1, 2, 3, 4]], before[:, [2, 0, 0, 1]], atol=1e-5)
    assert np.isfinite(after).all()
    # Renamed, in another order, and some are gone.
    back = models.with_labels(model, ["bus", "hound"], old=OLD, origins={"hound": "dog"})
    np.testing.assert_allclose(logits(back), before[:, [4, 0]], atol=1e-5)


def test_a_plain_classifier_merges_by_the_mean(toy):
    model = create("Toy")
    before = logits(model)
    after = logits(models.with_labels(model, NEW, old=OLD, origins=ORIGINS))
    np.testing.assert_allclose(after[:, 0], before[:, 3:].mean(1), atol=1e-5)
    np.testing.assert_allclose(after[:, [1, 2, 3, 4]], before[:, [2, 0, 0, 1]], atol=1e-5)


def test_queries_are_made_from_the_names_of_labels(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    towers.write(tmp_path / "towers", "clip_huggingface")
    section = Model(
        name="Toy_ML", image_size=(32, 32), embed_dim=16, hidden_dim=16, num_heads=2,
        text=str(tmp_path / "towers"),
    )  # fmt: skip
    network = Network.of(with_classes(section, tuple(OLD)))
    model = models.Model(network, network.init(0))
    texts = open_texts(tmp_path / "towers")
    embedded = model.variables.params["head"]["text_embed"]
    np.testing.assert_allclose(embedded, texts.embed(OLD), atol=1e-6)

    before = logits(model)
    after = models.with_labels(model, NEW, old=OLD, origins=ORIGINS, text=tmp_path / "towers")
    np.testing.assert_allclose(logits(after)[:, [1, 2, 3, 4]], before[:, [2, 0, 0, 1]], atol=1e-5)
    embedded = after.variables.params["head"]["text_embed"]
    np.testing.assert_allclose(embedded[-1], texts.embed(["tree"])[0], atol=1e-6)
    with pytest.raises(ConfigError, match="some labels are new"):
        models.with_labels(model, NEW, old=OLD, origins=ORIGINS)


def test_a_start_from_weights_keeps_the_embeddings_of_the_new_labels(toy, tmp_path):
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(2, len(OLD), 4)).astype(np.float32)
    np.save(tmp_path / "new.npy", new)
    trained = create("Toy_ML", text_dim=4)
    trained.variables.params["head"]["text_embed"] = old
    arrays = {path: np.asarray(array) for path, array in flatten(trained.variables).items()}
    save_file(arrays, tmp_path / "weights.safetensors")
    config = dataclasses.replace(
        trained.network.config, text_dim=None, text_embeddings=str(tmp_path / "new.npy"),
        weights=str(tmp_path / "weights.safetensors"),
    )  # fmt: skip
    _, variables = initial_weights(Config(model=config, data=Data(dir=".")), tuple(OLD))
    head = variables.params["head"]
    np.testing.assert_array_equal(head["text_embed"], new)
    np.testing.assert_array_equal(head["text_proj"]["kernel"], arrays["head/text_proj/kernel"])


def test_labels_that_are_not_the_models_are_named(toy):
    model = create("Toy")
    with pytest.raises(ConfigError, match="there are 1, but the model has 5"):
        models.with_labels(model, NEW, old=["dog"])
    with pytest.raises(
        ConfigError, match=r"\['pup'\]: there is no such old label; did you mean dog"
    ):
        models.with_labels(model, ["pup"], old=OLD, origins={"pup": "dgo"})
    with pytest.raises(ConfigError, match="Toy has no ML-Decoder"):
        with_classes(Model(name="Toy", text="towers"), tuple(OLD))
