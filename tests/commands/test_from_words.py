"""`mlcls from_words`: labels by a teacher, how far to trust them, and a model that learnt them."""

import json

import numpy as np
import pytest
from PIL import Image

from mlcls_jax import create_model
from mlcls_jax.commands import from_words
from mlcls_jax.data.image_files import list_images
from mlcls_jax.errors import InputError
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.pseudo_labels import judge, scores
from mlcls_jax.inference.words import open_words
from mlcls_jax.models.texts import open_texts
from tests.helpers import towers

WORDS = ["a dog", "snow", "cat"]


def test_targets_are_open_where_the_teacher_is_unsure_and_labels_have_their_doubts():
    ways = np.full((3, 40, 3), 0.05)
    ways[:, :30, 0] = 0.95  # clear, and in all ways
    ways[:, 30:35, 0] = 0.55  # near to 0.5
    ways[:2, :30, 1] = 0.9  # one way does not find it
    ways[:, :4, 2] = 0.8
    target, trust = judge(ways, WORDS, margin=0.1)
    np.testing.assert_array_equal(target[:, 0], [1] * 30 + [-1] * 5 + [0] * 5)
    assert [one.positives for one in trust] == [30, 30, 4]
    assert [one.open for one in trust] == [5, 0, 0]
    assert [one.agreement for one in trust] == [1.0, 0.0, 1.0]
    np.testing.assert_allclose([one.confidence for one in trust], [0.95, (1.8 + 0.05) / 3, 0.8])
    assert trust[0].doubts == () and trust[2].doubts == ("few images",)
    assert trust[1].doubts == ("the ways to ask disagree", "low scores")


def test_words_come_from_a_file_or_a_text(tmp_path):
    (tmp_path / "words.txt").write_text("a dog\n\n snow \n")
    assert from_words.read_words(str(tmp_path / "words.txt")) == ["a dog", "snow"]
    assert from_words.read_words("a dog, snow,") == ["a dog", "snow"]
    many = [f"number {i} of many words" for i in range(30)]  # longer than a file's name may be
    assert from_words.read_words(", ".join(many)) == many
    for wrong in ("snow", "snow, snow"):
        with pytest.raises(InputError, match="two or more words"):
            from_words.read_words(wrong)


@pytest.mark.slow
def test_images_and_words_become_a_model(toy, tmp_path, monkeypatch):
    towers.register(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    name = towers.write(tmp_path / "towers", "siglip_huggingface")
    rng = np.random.default_rng(0)
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for index in range(24):
        cells = Image.fromarray(rng.integers(0, 255, (3, 3, 3), np.uint8))
        place = "more/" * (index % 2)
        cells.resize((40, 40)).save(tmp_path / "photos" / f"{place}{index}.png")
    # Such towers know nothing: at least about half of the labels shall be there.
    words = open_words(name, open_texts(tmp_path / "towers"))
    found = scores(words, WORDS, list_images(tmp_path / "photos")).mean(0)
    middle = float(np.median(found))
    told = from_words.run(
        [
            str(tmp_path / "photos"), ", ".join(WORDS), "--teacher", name, "--teacher_weights",
            str(tmp_path / "towers"), "--model", "Toy_ML", "--epochs", "1", "--image_size", "32",
            "--batch_size", "8", "--output", str(tmp_path / "out"), "--weights", "none",
            "--threshold", f"{middle}", "--margin", "0.001",
        ]
    )  # fmt: skip
    assert "not with the truth" in told and "few images" in told
    out = tmp_path / "out"
    teacher = read_bundle(out / "teacher")
    assert teacher.labels == tuple(WORDS)
    rows = (out / "labels" / "train.txt").read_text().splitlines()
    assert len(rows) == 24 and {v for row in rows for v in row.split("\t")[1].split(",")} <= {
        "0", "1", "-1",
    }  # fmt: skip
    trust = json.loads((out / "words.json").read_text())
    assert [one["label"] for one in trust] == WORDS
    model = create_model(model_dir=out / "run")
    assert model.bundle.labels == tuple(WORDS)
    assert isinstance(model.bundle.threshold, tuple)  # chosen on the validation images
    result = next(model.predict(tmp_path / "photos"))
    assert result.all_scores.shape == (3,)
