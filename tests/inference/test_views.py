"""Test-time augmentation: which views there are, and what becomes of their scores."""

import asyncio
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from mlcls_jax.commands import predict
from mlcls_jax.config import Config, default, parse
from mlcls_jax.data.frame import Frame
from mlcls_jax.data.images import read_image
from mlcls_jax.errors import ConfigError, InputError, WorkdirError
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.inference.views import Views, averaged
from mlcls_jax.modes.evaluate import run_bundle
from mlcls_jax.scoring import run_job
from mlcls_jax.scoring.job import Request
from mlcls_jax.serving import Options
from mlcls_jax.serving.requests import ParsedRequest
from mlcls_jax.serving.schemas import ClassifyOptions, ClassifyResult
from mlcls_jax.serving.service import Service
from tests.helpers.bundles import LABELS, write_images, write_small

TTA = ("flip", "scale:1.5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set with a bundle in it."""
    root = tmp_path_factory.mktemp("views")
    write_small(root / "best_model", size=(64, 96), frame=Frame((64, 96), "crop"))
    paths = write_images(root / "images", 5)
    rows = [f"images/{p.name}\t{','.join('01'[(i + k) % 2] for k in range(5))}" for i, p in
            enumerate(paths)]  # fmt: skip
    (root / "val.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    labels = "\n".join(f"{index} {name}" for index, name in enumerate(LABELS))
    (root / "label.txt").write_text(labels + "\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor(read_bundle(folder / "best_model"), batch_size=5)


@pytest.fixture(scope="module")
def wanted(folder, predictor):
    """Logits [5, K] averaged over four views of which each is computed alone."""
    pictures = [read_image(path) for path in sorted((folder / "images").iterdir())]
    logits = []
    for size, short in (((64, 96), 73), ((96, 128), 110)):
        images = np.stack([Frame(size, "crop", short)(picture) for picture in pictures])
        for view in (images, images[:, :, ::-1]):
            scores = predictor.run(view)
            logits.append(np.log(scores / (1 - scores)))
    return np.mean(logits, axis=0)


def test_a_scale_enlarges_the_images_by_whole_cells_and_keeps_the_part(folder):
    views = Views.of(read_bundle(folder / "best_model"), TTA)
    assert views.frames == (Frame((64, 96), "crop", 73), Frame((96, 128), "crop", 110))
    assert views.is_mirrored


def test_predictions_average_the_logits_of_all_views(folder, predictor, wanted):
    results = [*predictor.predict(folder / "images", tta=TTA)]
    scores = 1 / (1 + np.exp(-wanted))
    np.testing.assert_allclose([r.all_scores for r in results], scores, atol=1e-5)
    plain = [r.all_scores for r in predictor.predict(folder / "images")]
    assert np.abs(plain - scores).max() > 1e-3


def test_batch_scoring_averages_them_too(folder, predictor, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(run_job, "open_predictor", lambda request, bundle: predictor)
    request = Request(
        model_dir=str(folder / "best_model"), input=str(folder / "images"), all_scores=True,
        output=str(tmp_path / "scores"), tta=TTA, batch_size=5,
    )  # fmt: skip
    run_job.score(request)
    rows = pq.read_table(request.output)
    scores = rows["scores"].to_pylist()
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-wanted)), atol=1e-5)
    with pytest.raises(WorkdirError, match="tta: .* when the job began, now null"):
        run_job.score(replace(request, tta=()))
    with pytest.raises(InputError, match="tta has 'mirror'"):
        run_job.score(replace(request, tta=("mirror",), output=str(tmp_path / "other")))


@pytest.mark.slow
def test_a_server_averages_them_too(folder, wanted):
    predictor = Predictor(read_bundle(folder / "best_model"), batch_size=1)
    service = Service(predictor, Options(tta=TTA, decoders=1))
    service.warm_up()
    image = next(iter(sorted((folder / "images").iterdir()))).read_bytes()

    async def ask() -> ClassifyResult:
        options = ClassifyOptions(threshold=0.0, visualize=True, explain=True)
        return await service.answer(ParsedRequest((image,), options), asyncio.Event().wait)

    answer = asyncio.run(ask())
    service.close()
    scores = {category["id"]: category["score"] for category in answer.categories}
    found = [scores[k] for k in range(len(LABELS))]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-wanted[0])), atol=1e-5)
    assert answer.image and "evidence" in answer.categories[0]


def test_the_command_line_takes_views(folder, predictor, capsys):
    predict.run(
        [f"--model_dir={folder / 'best_model'}", f"--input={folder / 'images'}", "--tta", "flip",
         "--batch_size=5", "--threshold=0", "--format=jsonl"]
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    images = [read_image(path) for path in sorted((folder / "images").iterdir())]
    mirrored = Views.of(predictor.bundle, "flip")
    found, _ = predictor.compute(mirrored, [mirrored.prepare(image) for image in images])
    for line, scores in zip(lines, found, strict=True):
        np.testing.assert_allclose(json.loads(line)["scores"], -np.sort(-scores), atol=1e-4)


@pytest.mark.slow
def test_explanations_are_those_of_the_plain_view(folder, predictor, wanted):
    scores = 1 / (1 + np.exp(-wanted))
    explained = [*predictor.predict(folder / "images", tta=TTA, explain=True, threshold=0)]
    np.testing.assert_allclose([r.all_scores for r in explained], scores, atol=1e-5)
    alone = next(predictor.predict(folder / "images", explain=True, threshold=0))
    by_label = dict(zip(alone["class_ids"], alone["evidence"], strict=True))
    again = dict(zip(explained[0]["class_ids"], explained[0]["evidence"], strict=True))
    assert again == by_label


@pytest.mark.slow
def test_evaluation_averages_the_same_logits(folder, wanted):
    values = default()
    values.data.dir, values.evaluate.tta = str(folder), TTA
    values.evaluate.batch_size = 4
    outputs = run_bundle(parse(values), folder, thresholds=True)
    np.testing.assert_allclose(outputs.logits, wanted, atol=1e-3)
    assert outputs.targets.shape == (5, 5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_averages_commute_with_the_temperature(temperature):
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)) * 3
    mean = logits.mean(0) / temperature
    sigmoid = 1 / (1 + np.exp(-logits / temperature))
    expected = 1 / (1 + np.exp(-mean))
    np.testing.assert_allclose(averaged(np.float32(sigmoid), "multilabel"), expected, atol=1e-4)
    parts = np.exp(logits / temperature)
    softmax = np.float32(parts / parts.sum(-1, keepdims=True))
    expected = np.exp(mean) / np.exp(mean).sum(-1, keepdims=True)
    np.testing.assert_allclose(averaged(softmax, "single"), expected, atol=1e-4)


def test_certain_scores_stay_finite():
    scores = np.float32([[[0, 1, 0]], [[1, 1, 0]]])
    found = averaged(scores, "multilabel")
    assert np.isfinite(found).all()
    assert found[0, 1] > 0.999999
    assert found[0, 2] == pytest.approx(0, abs=1e-6)
    assert averaged(scores, "single").sum() == pytest.approx(1)


def test_views_that_are_none_are_refused(folder):
    bundle = read_bundle(folder / "best_model")
    for wrong in ("mirror", "scale:", "scale:9", "scale:-1", "flip,scale:2"):
        with pytest.raises(InputError, match="tta has .*: must be flip, or scale:FACTOR"):
            Views.of(bundle, (wrong,))
        values = default()
        values.data.dir, values.predict.tta = "x", (wrong,) if "," not in wrong else ("x",)
        with pytest.raises(ConfigError, match="predict.tta has .*: must be flip"):
            parse(values)
    with pytest.raises(InputError, match="scale:1.1: images of 64 x 96 are there already"):
        Views.of(bundle, ("scale:1.1",))
    assert Views.of(bundle, "flip").is_mirrored
    assert Config().evaluate.tta == ()


def test_only_jax_computes_other_sizes(folder):
    predictor = Predictor(read_bundle(folder / "best_model"))
    predictor.backend = type("Other", (), {"name": "onnxruntime", "replicas": 1})()
    with pytest.raises(InputError, match="onnxruntime computes images of one size alone"):
        predictor.predict(folder / "images", tta=TTA)
