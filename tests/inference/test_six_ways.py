"""The same images, six ways: Python, command line, server, StableHLO, ONNX Runtime, batch job."""

import json
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from mlcls_jax import create_model
from mlcls_jax.data.images import read_image, resize
from mlcls_jax.inference import exports
from mlcls_jax.inference.backends import onnxruntime
from mlcls_jax.inference.bundle import read_bundle, update_bundle
from tests.helpers.bundles import LABELS, write_images, write_small
from tests.helpers.commands import mlcls
from tests.helpers.server_process import start

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A calibrated bundle, eleven images of two sizes, and what Python says of them."""
    root = tmp_path_factory.mktemp("ways")
    bundle = write_small(root / "bundle", size=(64, 96))
    images = write_images(root / "images", 7)
    images += write_images(root / "images" / "more", 4, size=(90, 70))
    scores = [r.all_scores for r in create_model(model_dir=bundle).predict(images)]
    # Between the scores that there are: none is so near that runtimes could disagree.
    limits = tuple(_widest_gap(np.sort(column)) for column in np.transpose(scores))
    update_bundle(bundle, threshold=limits, temperature=1.25, calibration={})
    results = list(create_model(model_dir=bundle, batch_size=4).predict(images))
    assert 0 < sum(len(r["class_ids"]) for r in results) < len(images) * len(LABELS)
    return root, bundle, images, results


def _widest_gap(rising):
    """The middle of the widest gap of sorted scores, as the temperature of the fixture moves it."""
    gap = np.diff(rising).argmax()
    logit = np.log(rising / (1 - rising))[gap : gap + 2].mean() / 1.25
    return float(1 / (1 + np.exp(-logit)))


def assert_same(rows, results):
    """`rows` hold class ids and scores of each image, in order."""
    assert len(rows) == len(results)
    for (class_ids, scores), result in zip(rows, results, strict=True):
        assert list(class_ids) == result["class_ids"]
        np.testing.assert_allclose(scores, result["scores"], atol=1e-4)


def reported(all_scores, results, bundle):
    """Class ids and scores that a runtime's bare scores [n, K] lead to."""
    limits = np.float32(read_bundle(bundle).threshold)
    rows = []
    for scores in all_scores:
        ids = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] > limits[i]]
        rows.append((ids, scores[ids]))
    return rows


def prepared(images, bundle):
    size = read_bundle(bundle).image_size
    return np.stack([resize(read_image(path), size) for path in images])


@pytest.mark.slow
def test_the_command_line(asked):
    root, bundle, images, results = asked
    flags = ("--model_dir", bundle, "--input", root / "images", "--save_path", "out")
    process = mlcls("predict", *flags, cwd=root)
    assert process.returncode == 0, process.stderr
    # The second folder's names are those of the first: its files stand in a folder of their own.
    found = [json.loads(path.read_text())["res"] for path in (root / "out").rglob("*.json")]
    by_path = {row["input_path"]: (row["class_ids"], row["scores"]) for row in found}
    assert_same([by_path[str(path)] for path in images], results)


@pytest.mark.slow
def test_the_server(asked):
    root, bundle, images, results = asked
    switches = root / "switches"
    switches.mkdir()
    server = start(bundle, switches, max_batch=4)
    try:
        server.wait_for("/ready", 200)
        answers = [server.classify(path.read_bytes())["categories"] for path in images]
    finally:
        server.process.kill()
    rows = [([c["id"] for c in a], [c["score"] for c in a]) for a in answers]
    assert_same(rows, results)


@pytest.mark.slow
def test_exported_files(asked):
    root, bundle, images, results = asked
    files = exports.export(bundle, root / "export", ["stablehlo", "onnx"])
    batch = prepared(images, bundle)
    program = jax.export.deserialize(bytearray(files["stablehlo"].path.read_bytes()))
    assert_same(reported(np.asarray(program.call(batch)), results, bundle), results)
    run = onnxruntime.load(files["onnx"].path)
    assert_same(reported(run(batch), results, bundle), results)


@pytest.mark.slow
def test_the_batch_job(asked):
    root, bundle, images, results = asked
    flags = ("--model_dir", bundle, "--input", root / "images", "--output", "scores")
    process = mlcls("score", *flags, "--batch_size", "4", cwd=root)
    assert process.returncode == 0, process.stderr
    table = pq.read_table(root / "scores").to_pylist()
    by_path = {Path(row["path"]).name: row for row in table if "more" not in row["path"]}
    by_path |= {f"more/{Path(r['path']).name}": r for r in table if "more" in r["path"]}
    names = [str(path.relative_to(root / "images")) for path in images]
    rows = [(by_path[name]["class_ids"], by_path[name]["scores"]) for name in names]
    assert_same(rows, results)
    for name, result in zip(names, results, strict=True):
        assert by_path[name]["label_names"] == result["label_names"]
