"""Scores of a bundle beside the labels of a data set, in the order of its names."""

import numpy as np
import pytest

from mlcls_jax.config import Data
from mlcls_jax.errors import InputError
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.studio.dataset import read_dataset
from mlcls_jax.studio.jobs import Job
from mlcls_jax.studio.scores import Scores
from tests.helpers.bundles import write_small
from tests.helpers.studio import LABELS, write_dataset

pytestmark = pytest.mark.slow


def compute(dataset, bundle):
    scores = Scores(dataset, str(bundle))
    job = Job("scores", scores.compute)
    job.start()
    while job.state == "running":
        job._thread.join(1)
    return scores, job


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
    assert (job.state, job.error, job.done, job.total) == ("done", "", 14, 14)
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
    found = scores.embeddings[good].astype(np.float32)
    assert (found @ found.T).argmax(1).tolist() == list(range(6))
    assert not scores.embeddings[3].any()

    assert scores.can_explain
    assert scores.seen(0, 0).size[0] >= 64
    assert scores.seen(0, 3) is None  # a label that the model does not know
    # The next start has all of them, and looks at what has changed alone.
    monkeypatch.setattr(Predictor, "embed", None)
    monkeypatch.setattr(Predictor, "predict", lambda _, paths, **__: iter([]))
    again, job = compute(dataset, bundle)
    assert job.state == "done", job.error
    np.testing.assert_array_equal(again.values, scores.values)
    np.testing.assert_array_equal(again.embeddings, scores.embeddings)


def test_a_bundle_of_other_labels_is_told(toy, tmp_path):
    dataset = read_dataset(Data(dir=str(write_dataset(tmp_path / "data"))))
    bundle = write_small(tmp_path / "bundle", "Toy_ML", labels=("a", "b"), size=(64, 96))
    _, job = compute(dataset, bundle)
    assert job.state == "failed" and "knows no label" in job.error
    with pytest.raises(InputError, match="knows no label"):
        Scores(dataset, str(bundle)).compute(job)
