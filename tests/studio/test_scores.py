"""Scores of a bundle beside the labels of a data set, in the order of its names."""

import asyncio

import numpy as np
import pytest
from starlette.requests import Request

from mlcls_jax.config import Data
from mlcls_jax.errors import DataError, InputError
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.models.texts import open_texts
from mlcls_jax.studio.dataset import read_dataset
from mlcls_jax.studio.jobs import Job
from mlcls_jax.studio.pictures import Pictures
from mlcls_jax.studio.scores import Scores
from mlcls_jax.studio.text_search import Words
from tests.helpers import towers
from tests.helpers.bundles import write_small
from tests.helpers.studio import LABELS, write_dataset

pytestmark = pytest.mark.slow


def compute(dataset, bundle):
    scores = Scores(dataset, str(bundle))
    return scores, run(scores)


def run(model):
    job = Job("model", model.compute)
    job.start()
    while job.state == "running":
        job._thread.join(1)
    return job


def test_scores_are_those_of_predict_by_name_and_are_kept(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_dataset(tmp_path / "data")
    (folder / "images" / "00003.png").unlink()
    (folder / "images" / "00003.png").write_text("broken")
    labels = ("tree", "other", "dog", "cat")  # another order, and not all
    thresholds = (0.1, 0.2, 0.3, 0.4)
    bundle = write_small(
        tmp_path / "bundle", "Toy_ML", labels=labels, size=(64, 96), threshold=thresholds
    )
    dataset = read_dataset(Data(dir=str(folder)))
    scores, job = compute(dataset, bundle)
    assert (job.state, job.error, job.done, job.total) == ("done", "", 7, 7)
    predictor = Predictor(read_bundle(bundle))
    paths = [str(dataset.path(row)) for row in range(7)]
    results = list(predictor.predict(paths, on_error="yield"))
    for row, result in enumerate(results):
        for k, name in enumerate(LABELS):
            value = scores.values[row, k]
            if row == 3 or name not in labels:
                assert np.isnan(value)
            else:
                wanted = result.all_scores[labels.index(name)]
                np.testing.assert_allclose(value, wanted, atol=1e-5)
    assert scores.thresholds.tolist() == np.float32([0.4, 0.3, 0.5, 0.5, 0.1]).tolist()
    # Embeddings keep their angles, and each image is most like itself.
    good = [0, 1, 2, 4, 5, 6]
    found = scores.embeddings.values[good].astype(np.float32)
    assert (found @ found.T).argmax(1).tolist() == list(range(6))
    assert scores.embeddings.is_known.tolist() == [row != 3 for row in range(7)]

    # So is a picture from elsewhere, which decodes in another process; what is no picture is told.
    pictures = Pictures(scores)
    contents = [dataset.path(row).read_bytes() for row in (4, 3)]
    name, error = asyncio.run(send(pictures, contents))
    assert np.nanargmax(pictures.nearness(name)) == 4 and isinstance(error, DataError)
    with pytest.raises(InputError, match="not known"):
        pictures.nearness("other")

    assert scores.seen(0, 0).size[0] >= 64
    assert scores.seen(0, 3) is None  # a label that the model does not know
    # The next start has all of them, and looks at what has changed alone.
    asked, none = [], lambda _: (_ for _ in ())
    monkeypatch.setattr(Predictor, "predict", lambda _, paths, **__: none(asked.extend(paths)))
    again, job = compute(dataset, bundle)
    assert job.state == "done", job.error
    np.testing.assert_array_equal(again.values, scores.values)
    np.testing.assert_array_equal(again.embeddings.values, scores.embeddings.values)
    assert asked == [str(dataset.path(3))]


def test_a_pooling_head_shows_where_by_masking(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    dataset = read_dataset(Data(dir=str(write_dataset(tmp_path / "data"))))
    scores, job = compute(dataset, write_small(tmp_path / "bundle", "Toy", labels=LABELS))
    assert job.state == "done" and scores.can_explain
    assert scores.seen(0, 0).size[0] >= 64


async def send(pictures, contents):
    """Names, or errors, of pictures that are sent in pieces."""

    def request(content):
        parts = iter((content[:100], content[100:]))

        async def receive():
            part = next(parts)
            return {"type": "http.request", "body": part, "more_body": part == content[:100]}

        return Request({"type": "http", "headers": []}, receive)

    try:
        added = [pictures.add(request(content)) for content in contents]
        return await asyncio.gather(*added, return_exceptions=True)
    finally:
        pictures.close()


def test_words_find_the_images_that_the_towers_put_nearest(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    towers.register(monkeypatch)
    name = towers.write(tmp_path / "towers", "siglip_huggingface")
    folder = write_dataset(tmp_path / "data")
    (folder / "images" / "00002.png").unlink()  # there is no such file, which is no end
    dataset = read_dataset(Data(dir=str(folder)))
    words = Words(dataset, name, str(tmp_path / "towers"))
    with pytest.raises(InputError, match="not open"):
        words.nearness("a dog")
    job = run(words)
    assert (job.state, job.error, job.done) == ("done", "", 7)
    texts = open_texts(tmp_path / "towers")
    good = [0, 1, 3, 4, 5, 6]
    x = words.predictor.embed([str(dataset.path(row)) for row in good])
    x = x @ texts.image_projection(x.shape[1])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for text in ("a dog", "snow"):
        near = words.nearness(text)
        np.testing.assert_allclose(near[good], x @ texts.embed([text])[0], atol=2e-3)
        assert np.isnan(near[2])
    monkeypatch.setattr(Predictor, "predict", lambda _, paths, **__: (_ for _ in paths[1:]))
    again = Words(dataset, name, str(tmp_path / "towers"))
    assert run(again).state == "done"
    np.testing.assert_array_equal(again.embeddings.values, words.embeddings.values)


def test_a_bundle_of_other_labels_is_told(toy, tmp_path):
    dataset = read_dataset(Data(dir=str(write_dataset(tmp_path / "data"))))
    bundle = write_small(tmp_path / "bundle", "Toy_ML", labels=("a", "b"), size=(64, 96))
    _, job = compute(dataset, bundle)
    assert job.state == "failed" and "knows no label" in job.error
    with pytest.raises(InputError, match="knows no label"):
        Scores(dataset, str(bundle)).compute(job)
