"""One label an image: the same loop from colours in a folder to labelled pictures."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from mlcls_jax import config as schema
from mlcls_jax.data.sources import open_data
from mlcls_jax.data.sources.single import single_label
from mlcls_jax.errors import DataError
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.models.classifier import probabilities
from mlcls_jax.modes.evaluate import evaluate
from mlcls_jax.modes.predict import predict
from mlcls_jax.modes.train import train
from tests.helpers.photos import Numbers, row, write_lines, write_photos

COLORS = {
    "red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1),
    "yellow": (1, 1, 0), "cyan": (0, 1, 1), "pink": (1, 0, 1),
}  # fmt: skip


def write_colors(root, *, train, val):
    """Noisy images of each colour in turn; returns `root`."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    write_lines(root / "label.txt", [f"{i} {name}" for i, name in enumerate(COLORS)])
    for split, count in (("train", train), ("val", val)):
        lines = []
        for index in range(count):
            label = index % len(COLORS)
            shade = 160 * np.array(list(COLORS.values())[label])
            name = f"images/{split}_{index}.png"
            pixels = rng.integers(0, 90, (32, 32, 3)) + shade
            Image.fromarray(pixels.astype(np.uint8)).save(root / name)
            lines.append(f"{name}\t{row(label, len(COLORS))}")
        write_lines(root / f"{split}.txt", lines)
    return root


SMALL = {
    "model.name": "Toy",
    "model.task": "single",
    "model.image_size": (32,),
    "data.fit": "crop",
    "data.mixup": 0.2,
    "train.epochs": 12,
    "train.eval_epochs": 6,
    "train.batch_size": 24,
    "train.ema_decay": 0.0,
    "optimizer.learning_rate": 1e-2,
    "optimizer.warmup_epochs": 0.0,
    "loss.name": "cross_entropy",
    "loss.label_smoothing": 0.1,
    "evaluate.batch_size": 20,
    "log.tensorboard": False,
    "log.pictures": 6,
}


def config(data, **predict):
    """The smallest model of one label an image, on the data set in `data`."""
    values = schema.default()
    options = {f"predict.{name}": str(value) for name, value in predict.items()}
    values.update_from_flattened_dict(SMALL | {"data.dir": str(data)} | options)
    return schema.parse(values)


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    """Data set, workdir and result of a finished training."""
    folder = tmp_path_factory.mktemp("single")
    data, workdir = write_colors(folder / "data", train=240, val=30), folder / "run"
    workdir.mkdir()
    return data, workdir, train(config(data), workdir).to_json()


@pytest.mark.slow
def test_training_tells_colours_apart(trained):
    _, workdir, result = trained
    assert result["Top1"] >= 0.5  # one in six by chance
    described = json.loads((workdir / "best_model" / "inference.json").read_text())
    assert described["model"]["task"] == "single"
    assert described["threshold"] is None
    assert described["metrics"]["Top5"] >= described["metrics"]["Top1"] == result["Top1"]
    logged = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert max(entry.get("raw/Top1", 0) for entry in logged) == result["Top1"]
    assert Image.open(workdir / "predictions.png").width > 100


@pytest.mark.slow
def test_evaluation_gives_exactly_the_number_of_training(trained):
    data, workdir, result = trained
    evaluated = evaluate(config(data), workdir).to_json()
    assert evaluated["Top1"] == result["Top1"]
    assert list(evaluated["recall"]) == list(COLORS)
    assert np.mean(list(evaluated["recall"].values())) == pytest.approx(
        evaluated["BalancedAccuracy"]
    )
    assert evaluated["images"] == 30
    assert "average_precision" not in evaluated and "threshold" not in evaluated


@pytest.mark.slow
def test_prediction_reports_the_five_best_whatever_their_scores(trained, tmp_path):
    data, workdir, _ = trained
    path = data / "images" / "val_0.png"
    predict(config(data, input=path, output=tmp_path), workdir)
    found = json.loads((tmp_path / "val_0_res.json").read_text())["res"]
    assert len(found["class_ids"]) == 5
    assert found["scores"] == sorted(found["scores"], reverse=True)
    assert found["scores"] == [round(score, 5) for score in found["scores"]]
    assert found["label_names"] == [list(COLORS)[i] for i in found["class_ids"]]
    assert (tmp_path / "val_0_res.png").exists()

    predictor = Predictor(read_bundle(workdir / "best_model"))
    best, *_ = predictor.predict([path])
    np.testing.assert_allclose(best.all_scores.sum(), 1, rtol=1e-5)
    second = float(best.all_scores[best["class_ids"][1]])  # "scores" are rounded, perhaps down
    above, *_ = predictor.predict([path], threshold=second)
    assert above["class_ids"] == best["class_ids"][:1]


def test_scores_of_one_label_add_up_to_one_and_those_of_several_do_not():
    logits = jax.numpy.float32([[1.0, 2.0, -0.5]])
    grown = np.exp(logits)
    np.testing.assert_allclose(probabilities(logits, "single"), grown / grown.sum(), rtol=1e-6)
    np.testing.assert_allclose(probabilities(logits, "multilabel"), grown / (1 + grown), rtol=1e-6)
    assert probabilities(jax.numpy.bfloat16(logits), "single").dtype == np.float32


def write_bad_photos(root):
    """Of the training images the second has two labels, the third none, the fourth is unknown."""
    write_photos(root, train=4)
    lines = (root / "train.txt").read_text().splitlines()
    lines[1], lines[2] = (
        lines[i].split("\t")[0] + f"\t{r}" for i, r in ((1, "1,1,0"), (2, "0,0,0"))
    )
    lines[3] = lines[3].split("\t")[0] + "\t-1,-1,-1"
    write_lines(root / "train.txt", lines)
    return root


def test_images_without_exactly_one_label_stop_a_run_before_it_begins(toy, tmp_path):
    data = write_bad_photos(tmp_path / "data")
    workdir = tmp_path / "run"
    workdir.mkdir()
    with pytest.raises(DataError) as caught:
        train(config(data), workdir)
    told = caught.value.message.splitlines()
    assert len(told) == 2
    for line, message, count in ((2, told[0], 2), (3, told[1], 0)):
        assert message.startswith(f"{data / 'train.txt'}:{line}: ")
        assert message.endswith(f"has {count} labels; model.task=single needs exactly one")
    assert not list(workdir.iterdir())


def test_images_without_exactly_one_label_can_be_left_out(tmp_path):
    data = schema.Data(dir=str(write_bad_photos(tmp_path / "data")))
    source = single_label(open_data(data).train, on_error="skip")
    np.testing.assert_array_equal(source[0][1], [1, 0, 0])
    np.testing.assert_array_equal(source[3][1], [-1, -1, -1])
    for index in (1, 2):
        with pytest.raises(DataError, match=f"train.txt:{index + 1}: .* needs exactly one"):
            source[index]


def test_a_source_without_all_its_targets_at_hand_is_checked_as_it_is_read():
    source = single_label(Numbers(3, broken=(2,)), on_error="raise")
    assert (len(source), source.labels, source.name(1)) == (3, ("even", "odd"), "1")
    np.testing.assert_array_equal(source[1][1], [0, 1])
    with pytest.raises(DataError, match=r"list.txt:3: image 2 is broken"):
        source[2]
