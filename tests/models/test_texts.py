"""Text towers give the embeddings of the originals, from the tokens that the originals see."""

from functools import partial
from importlib import import_module
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import save_file

from mlcls_jax.errors import InputError, WeightsError
from mlcls_jax.inference.words import open_words
from mlcls_jax.models.network import call, outline
from mlcls_jax.models.text_tokens import Tokenizer
from mlcls_jax.models.text_tower import TextTower, config_of, names
from mlcls_jax.models.texts import Texts, open_texts
from mlcls_jax.models.weights.foreign import gather
from mlcls_jax.trees import by_path, map_by_path
from tests.helpers import towers
from tests.helpers.tiers import slow


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    towers.register(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("golden", [*map(slow, towers.GOLDENS[:2]), towers.GOLDENS[2]])
def test_embeddings_and_logits_equal_the_originals(golden, tmp_path):
    """Errors that were seen: at most 1e-6."""
    expected, state = towers.read(golden)
    config, origin = config_of(state, {})
    tower, graphdef, shapes = outline(lambda: TextTower(config))
    found = gather(state, names(tower, config, origin), by_path(shapes), golden)
    params = map_by_path(lambda path, _: found[path], shapes)
    texts = np.asarray(jax.jit(partial(call, graphdef))(params, jnp.asarray(expected["ids"])))
    np.testing.assert_allclose(texts, expected["text_embeddings"], atol=1e-5)

    name = towers.write(tmp_path / "towers", golden)
    opened = open_texts(tmp_path / "towers")
    words = open_words(name, opened)
    assert words.frame.size == (32, 32)
    images = np.random.Generator(np.random.PCG64(7)).standard_normal((2, 3, 32, 32))
    images = images.transpose(0, 2, 3, 1).astype(np.float32)
    model = words.bundle(()).model
    features = jax.jit(model.network.apply)(model.variables, images).features
    features = np.asarray(features)[:, 0, 0]
    embeddings = features @ opened.image_projection(features.shape[1])
    np.testing.assert_allclose(embeddings, expected["image_embeddings"], atol=1e-5)

    scale, bias = opened.scale_and_bias()
    units = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (embeddings, texts)]
    logits = scale * units[0] @ units[1].T + bias
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4)


def tokenizer_of(tmp_path, golden):
    towers.write(tmp_path / "towers", golden)
    config, _ = config_of(towers.read(golden)[1], {})
    return Tokenizer(tmp_path / "towers" / "tokenizer.json", config)


def test_tokens_begin_end_and_are_filled_as_the_originals(tmp_path):
    begin, end = 97, 98
    clip = tokenizer_of(tmp_path, "clip_huggingface")
    np.testing.assert_array_equal(
        clip(["a Dog", "", " ".join(["dog"] * 30)]),
        [[begin, 5, 8, *[end] * 13], [begin, *[end] * 15], [begin, *[8] * 14, end]],
    )
    siglip = tokenizer_of(tmp_path, "siglip_huggingface")
    np.testing.assert_array_equal(
        siglip(["a Dog", "WÖRDS", " ".join(["dog"] * 30)]),
        [[5, 8, 1, *[0] * 13], [16, 1, *[0] * 14], [*[8] * 15, 1]],
    )


def test_the_first_siglip_reads_no_punctuation(tmp_path):
    config, _ = config_of(towers.read("siglip_huggingface")[1], {})
    vocabulary = {"</s>": 1, "<unk>": 2, "a": 5, "dog": 6}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokens = Tokenizer(tmp_path / "tokenizer.json", config)(["A  'dog'!"])
    np.testing.assert_array_equal(tokens, [[5, 6, *[1] * 14]])


@pytest.mark.slow
def test_the_first_siglip_may_have_a_file_of_sentencepiece(tmp_path):
    """Equal to `SiglipTokenizer` of transformers, where that is installed."""
    sentencepiece = pytest.importorskip("sentencepiece")
    texts = [
        "a photo of a dog",
        "Snow, and  a cat!",
        "it's",
        "",
        "ﬁne wörds on snow",
        " ".join(["dog"] * 30),
    ]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 20), model_prefix=str(tmp_path / "spiece"), vocab_size=60,
        hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    towers.write(tmp_path / "towers", "siglip_huggingface")
    (tmp_path / "towers/tokenizer.json").unlink()
    (tmp_path / "spiece.model").rename(tmp_path / "towers/spiece.model")
    found = open_texts(tmp_path / "towers")
    assert found.embed(["a dog", "snow"]).shape[0] == 2
    tokens = found._tokens(texts)
    assert (tokens[3] == 1).all() and tokens.max() < 60
    if find_spec("transformers"):
        theirs = import_module("transformers").SiglipTokenizer(
            str(tmp_path / "towers/spiece.model")
        )
        expected = theirs(texts, padding="max_length", max_length=16, truncation=True)["input_ids"]
        np.testing.assert_array_equal(tokens, expected)
    (tmp_path / "towers/spiece.model").write_bytes(b"none")
    with pytest.raises(WeightsError, match=r"spiece\.model: cannot be read by SentencePiece"):
        open_texts(tmp_path / "towers").embed(["a cat"])


def test_templates_are_averaged_and_texts_computed_once(tmp_path, monkeypatch):
    towers.write(tmp_path / "towers", "clip_openai")
    texts = open_texts(tmp_path / "towers")
    both = texts.embed(["a dog", "snow"], ["a photo of {}", "{}"])
    alone = [texts.embed(["a dog", "snow"], [t]) for t in ("a photo of {}", "{}")]
    mean = np.mean(alone, 0)
    np.testing.assert_allclose(both, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-6)

    monkeypatch.setattr(Texts, "_tower", property(lambda self: 1 / 0))
    again = open_texts(tmp_path / "towers").embed(["snow", "a dog"], ["a photo of {}", "{}"])
    np.testing.assert_array_equal(again, both[::-1])
    with pytest.raises(ZeroDivisionError):  # another text is not in the cache
        texts.embed(["cat"])
    towers.write(tmp_path / "others", "clip_openai")
    with pytest.raises(ZeroDivisionError):  # nor are those of another file
        open_texts(tmp_path / "others").embed(["snow"], ["{}"])


def test_what_is_no_text_tower_is_named(tmp_path):
    name = towers.write(tmp_path / "towers", "clip_huggingface")
    texts = open_texts(tmp_path / "towers")
    with pytest.raises(InputError, match="' ' is no text"):
        texts.embed([" "])
    with pytest.raises(InputError, match=r"has no \{\}"):
        texts.embed(["a dog"], ["a photo"])
    tokenizer = tmp_path / "towers" / "tokenizer.json"
    towers.write_tokenizer(tokenizer, is_clip=True)
    tokenizer.write_text(tokenizer.read_text().replace("98", "99"))
    with pytest.raises(WeightsError, match=r"tokenizer\.json: is not the tokenizer"):
        texts.embed(["a dog"])
    settings = tmp_path / "towers" / "config.json"
    for content, told in [
        ("[" * 99_999, "nested too deeply"),
        ('{"text_config": "x"}', "is no JSON object"),
        ('{"text_config": {"num_attention_heads": 0}}', "num_attention_heads=0"),
        ('{"text_config": {"hidden_act": "relu"}}', "hidden_act='relu'"),
    ]:
        settings.write_text(content)
        with pytest.raises(WeightsError, match=told):
            open_texts(tmp_path / "towers").embed(["dog"])
    settings.unlink()
    tokenizer.write_text("{")
    with pytest.raises(WeightsError, match=r"tokenizer\.json: cannot be read"):
        open_texts(tmp_path / "towers").embed(["a dog"])
    tokenizer.unlink()
    with pytest.raises(WeightsError, match="no tokenizer beside"):
        open_texts(tmp_path / "towers")
    with pytest.raises(WeightsError, match="there are no weights"):
        open_texts(tmp_path / "nowhere")
    images = {k: v for k, v in towers.read("clip_huggingface")[1].items() if "vision" in k}
    save_file(images, tmp_path / "towers" / "model.safetensors")
    towers.write_tokenizer(tokenizer, is_clip=True)
    with pytest.raises(WeightsError, match="holds no text tower"):
        open_words(name, open_texts(tmp_path / "towers"))
