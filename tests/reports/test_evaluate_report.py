"""The evaluation's page and the thresholds mode: what they show, change and keep."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from PIL import Image
from sklearn.metrics import precision_recall_curve

from mlcls_jax import config as schema
from mlcls_jax.curation.judge import neighbours
from mlcls_jax.errors import ConfigError
from mlcls_jax.inference.bundle import read_bundle, write_bundle
from mlcls_jax.metrics import average_precision, class_recall, metrics_of
from mlcls_jax.models.network import Network
from mlcls_jax.modes.evaluate import evaluate
from mlcls_jax.modes.thresholds import thresholds
from mlcls_jax.reports import charts, mistakes, similar
from mlcls_jax.reports.charts import precision_recall, score_counts
from mlcls_jax.reports.evaluate_page import Evaluation, write_report
from mlcls_jax.reports.gallery import write_gallery
from mlcls_jax.reports.mistakes import (
    Decisions,
    Illustration,
    confident_mistakes,
    confusion,
)
from mlcls_jax.reports.page import shorten
from mlcls_jax.reports.similar import Similar
from tests.helpers.browser import chromium, needs_chromium, open_tab
from tests.helpers.page import Page
from tests.helpers.photos import write_photos
from tests.helpers.server_process import wait

HOSTILE = "<script src='https://evil.example/x.js'></script>\"><img src=x onerror=alert(1)>&amp;"


def outputs(count, classes, seed=0, unknown=0.1):
    """Scores that have something to do with the targets, of which some are unknown."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((count, classes)) < 0.3).astype(np.float32)
    logits = rng.normal(size=targets.shape) * 1.5 + 2 * targets - 1.5
    targets[rng.random(targets.shape) < unknown] = -1
    return (1 / (1 + np.exp(-logits))).astype(np.float32), targets


def one_label(count, classes, seed=0):
    """The same for one label an image; the last image is not annotated."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, count)
    targets = np.eye(classes, dtype=np.float32)[truth]
    scores = np.exp(rng.normal(size=targets.shape) + 1.5 * targets)
    targets[-1] = -1
    return np.float32(scores / scores.sum(1, keepdims=True)), targets


def show(mistakes):
    picture = Image.new("RGB", (24, 16), (90, 120, 30))
    return [Illustration(f"images/{m.row}.png", picture, picture, None) for m in mistakes]


def evaluation(scores, targets, *, labels=None, task="multilabel", threshold=0.5, **more):
    by_class = (class_recall if task == "single" else average_precision)(scores, targets)
    limit = np.asarray(0.5 if threshold is None else threshold)
    values = {
        "model_dir": Path("runs/demo/best_model"),
        "task": task,
        "labels": labels or tuple(f"label {k}" for k in range(scores.shape[1])),
        "scores": scores,
        "targets": targets,
        "metrics": metrics_of(task, scores, targets, threshold=limit),
        "by_class": by_class,
        "threshold": threshold,
        "temperature": 1.0,
        "calibration": None,
        "skipped": 0,
        "chosen": None,
    }
    return Evaluation(**values | more)


def page_of(folder, scores, targets, illustrate=show, **options):
    path = write_report(folder / "evaluate", evaluation(scores, targets, **options), illustrate)
    assert path == folder / "evaluate" / "report.html"
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return Page(path.read_text(encoding="utf-8"))


def table(page):
    """Rows of the table of labels, without its head."""
    start = page.cells.index("index")
    width = 8 if page.cells[start + 7 :][:1] == ["threshold"] else 4
    cells = page.cells[start + width :]
    return [cells[i : i + width] for i in range(0, len(cells), width)]


# --- the page ---


def test_every_label_has_a_row_with_its_numbers_the_worst_first(tmp_path):
    scores, targets = outputs(80, 30)
    targets[:, 4] = 0
    rows = table(page_of(tmp_path, scores, targets))
    assert sorted(int(row[0]) for row in rows) == list(range(30))
    precision = average_precision(scores, targets)
    assert rows[-1][:4] == ["4", "label 4", "–", "0"]
    shown = [float(row[2]) for row in rows[:-1]]
    assert shown == sorted(shown)
    for row in rows[:-1]:
        k = int(row[0])
        reported, truth = scores[:, k] > 0.5, targets[:, k] == 1
        known = targets[:, k] >= 0
        hits = (reported & truth).sum()
        assert row[1] == f"label {k}" and float(row[2]) == round(precision[k], 4)
        assert int(row[3]) == truth.sum()
        assert float(row[4]) == pytest.approx(hits / (reported & known).sum(), abs=6e-4)
        assert float(row[5]) == pytest.approx(hits / truth.sum(), abs=6e-4)
        assert row[7] == "0.500"


def test_the_headline_numbers_are_those_of_the_metrics(tmp_path):
    scores, targets = outputs(60, 5)
    page = page_of(tmp_path, scores, targets, skipped=3)
    metrics = metrics_of("multilabel", scores, targets)
    for name in ("MultiLabelMAP", "OF1", "CF1", "OP", "OR", "CP", "CR"):
        assert f"{metrics[name]:.4f}{name}" in page.text
    assert "60 images, 5 labels. 3 unreadable images left out." in page.text


def test_hostile_names_are_only_text(tmp_path):
    scores, targets = outputs(40, 3, unknown=0)
    name = f"images/{HOSTILE}"

    def illustrate(mistakes):
        some = [item._replace(name=name) for item in show(mistakes)]
        return [Illustration(name, None, None, f"cannot be decoded {HOSTILE}"), *some[1:]]

    page = page_of(
        tmp_path, scores, targets, illustrate, labels=("a", HOSTILE, "c"),
        model_dir=Path(f"runs/{HOSTILE}"),
    )  # fmt: skip
    assert HOSTILE in [row[1] for row in table(page)]
    assert f"cannot be decoded {HOSTILE}" in page.text
    assert f"Evaluation of {Path('runs') / HOSTILE}" in page.text
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [{}]
    assert all(src.startswith("data:image/jpeg;base64,") for src in page.images)
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)


def test_the_page_loads_nothing_and_allows_only_its_own_script(tmp_path):
    page = page_of(tmp_path, *outputs(50, 6))
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    for _, attrs in page.tags:
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            link = attrs.get(key, "data:")
            assert link.startswith("data:") or link.removeprefix("#") in ids
    page.assert_closed()


def test_the_page_is_accessible(tmp_path):
    page = page_of(tmp_path, *outputs(50, 6))
    page.assert_accessible()
    labelled = [a for tag, a in page.tags if tag == "svg" and a.get("role") == "img"]
    assert len(labelled) == 3 and all(a["aria-label"] for a in labelled)


@pytest.mark.slow
def test_many_labels_make_a_page_of_a_few_megabytes(tmp_path):
    scores, targets = outputs(20, 9000)
    labels = tuple(f"a label with a rather long name {k}" for k in range(9000))
    page = page_of(tmp_path, scores, targets, labels=labels)
    assert len(page.source.encode()) < 3_000_000
    assert len(table(page)) == 9000


def test_many_images_make_the_page_no_longer(tmp_path):
    sizes = [len(page_of(tmp_path, *outputs(n, 4)).source) for n in (300, 30_000)]
    assert sizes[1] < 1.3 * sizes[0]


def test_thresholds_in_force_and_those_chosen_are_told(tmp_path):
    scores, targets = outputs(50, 3)
    page = page_of(tmp_path, scores, targets, threshold=0.25)
    assert "if its score is above 0.25;" in page.text
    facts = {"objective": "precision", "target": 0.9, "images": 1234}
    page = page_of(
        tmp_path, scores, targets, threshold=(0.2, 0.4, 0.7), temperature=1.5, calibration=facts
    )
    assert "Each label has its own, from 0.200 to 0.700, half of them below 0.400" in page.text
    assert "temperature of 1.500. They were chosen for precision 0.9 on 1,234 images." in page.text


def test_a_model_without_mistakes_has_a_page(tmp_path):
    targets = np.eye(3, dtype=np.float32)
    page = page_of(tmp_path, targets, targets)
    assert page.text.count("There are none.") == 3 and not page.images


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_data_set_without_a_positive_or_a_negative_has_a_page(tmp_path, value):
    page = page_of(tmp_path, np.float32([[0.2, 0.7]]), np.full((1, 2), value, np.float32))
    assert len(table(page)) == 2


def test_one_label_an_image_has_its_own_page(tmp_path):
    scores, targets = one_label(60, 4)
    page = page_of(tmp_path, scores, targets, task="single", threshold=None)
    metrics = metrics_of("single", scores, targets)
    assert f"{metrics['Top1']:.4f}Top1" in page.text
    for word in ("hreshold", "recall of all", "Missed"):
        assert word not in page.text
    recall = class_recall(scores, targets)
    rows = table(page)
    assert [float(row[2]) for row in rows] == sorted(np.round(recall, 4))
    wrong = round((1 - metrics["Top1"]) * 59)
    found = confusion(Decisions(scores, targets, None))
    assert found.counts.sum() == found.misses.sum() == wrong > 0


# --- mistakes ---


def plain_mistakes(scores, targets, threshold):
    """(score, row, label) of labels reported falsely, and of those missed."""
    false, missed = [], []
    for (i, k), score in np.ndenumerate(scores):
        if targets[i, k] == 0 and score > threshold[k]:
            false.append((score, i, k))
        if targets[i, k] == 1 and not score > threshold[k]:
            missed.append((score, i, k))
    return false, missed


def test_the_most_confident_mistakes_come_first(monkeypatch):
    monkeypatch.setattr("mlcls_jax.metrics.blocks.BLOCK", 200)
    scores, targets = outputs(300, 6)
    threshold = np.float32([0.3, 0.5, 0.7, 0.5, 0.4, 0.6])
    decisions = Decisions(scores, targets, threshold)
    false, missed = plain_mistakes(scores, targets, threshold)
    for found, plain, sign in (
        (confident_mistakes(decisions, missed=False), sorted(false, reverse=True), -1),
        (confident_mistakes(decisions, missed=True), sorted(missed), 1),
    ):
        assert len(found) == 12
        assert found[0] == (plain[0][1], plain[0][2], plain[0][0])
        values = [sign * mistake.score for mistake in found]
        assert values == sorted(values)
        assert len({mistake.row for mistake in found}) == 12
        assert {(m.score, m.row, m.label) for m in found} <= set(plain)
        assert max(np.bincount([m.label for m in found])) <= 3


def test_confusion_counts_images_with_both(monkeypatch):
    monkeypatch.setattr("mlcls_jax.metrics.blocks.BLOCK", 50)
    scores, targets = outputs(120, 7)
    threshold = np.full(7, 0.5, np.float32)
    found = confusion(Decisions(scores, targets, threshold))
    false, missed = plain_mistakes(scores, targets, threshold)
    plain = np.zeros((7, 7), int)
    for _, i, k in missed:
        for _, other, j in false:
            plain[k, j] += i == other
    np.testing.assert_array_equal(found.counts, plain[found.missed][:, found.instead])
    assert found.counts.sum() == plain.sum()
    np.testing.assert_array_equal(
        found.misses, np.bincount([k for *_, k in missed], minlength=7)[found.missed]
    )
    monkeypatch.setattr(mistakes, "MAX_CONFUSED", 3)
    assert confusion(Decisions(scores, targets, threshold)).counts.shape == (3, 3)


def test_the_page_lists_the_largest_confusions(tmp_path):
    targets = np.tile(np.float32([1, 0, 0]), (5, 1))
    scores = np.tile(np.float32([0.1, 0.9, 0.2]), (5, 1))
    scores[0, 0] = 0.8
    page = page_of(tmp_path, scores, targets, labels=("cat", "dog", "bird"))
    assert "cat → dog: 4 of 4" in page.text


# --- diagrams ---


def test_the_curve_is_that_of_scikit_learn(monkeypatch):
    monkeypatch.setattr("mlcls_jax.metrics.blocks.BLOCK", 64)
    monkeypatch.setattr(charts, "_POINTS", 10_000)
    scores, targets = outputs(150, 4)
    scores = np.round(scores * 64) / np.float32(64)  # told apart by their leading bits
    recall, precision = precision_recall(scores, targets)
    known = targets >= 0
    p, r, _ = precision_recall_curve(targets[known], scores[known])
    expected = {}
    for a, b in zip(r[::-1], p[::-1], strict=True):
        expected.setdefault(round(a, 9), b)  # of equal recall that of the highest threshold
    for a, b in zip(recall, precision, strict=True):
        assert expected[round(a, 9)] == pytest.approx(b)
    assert recall[-1] == 1 and len(recall) > 30


def test_a_long_curve_is_thinned_but_keeps_its_ends():
    scores, targets = outputs(5000, 4)
    recall, precision = precision_recall(scores, targets)
    assert 100 < len(recall) <= 200
    assert recall[-1] == 1 and recall[0] < 0.01
    claims = (scores[targets >= 0] >= scores[targets == 1].min()).sum()
    assert precision[-1] == pytest.approx((targets == 1).sum() / claims, rel=1e-3)


def test_scores_are_counted_in_their_bins():
    scores, targets = outputs(80, 3)
    scores[0, 0], targets[0, 0] = 1.0, 1
    expected = [np.histogram(scores[targets == t], 20, (0, 1))[0] for t in (0, 1)]
    np.testing.assert_array_equal(score_counts(scores, targets), expected)


# --- modes, with a small model of random weights ---

SMALL = {
    "model.name": "PP-LCNet_x0_25_ML",
    "model.image_size": (32,),
    "model.embed_dim": 16,
    "model.hidden_dim": 16,
    "model.num_classes": 3,
    "evaluate.batch_size": 8,
}


def config(data, **values):
    options = schema.default()
    options.update_from_flattened_dict(SMALL | {"data.dir": str(data)})
    options.update_from_flattened_dict(
        {key.replace("__", "."): value for key, value in values.items()}
    )
    return schema.parse(options)


@pytest.fixture
def bundle(tmp_path):
    """Data set and workdir with a bundle."""
    data, workdir = write_photos(tmp_path / "data", val=30), tmp_path / "run"
    workdir.mkdir()
    model = config(data).model
    network = Network.of(model)
    write_bundle(
        workdir / "best_model", model, network.init(3),
        labels=("cat", "dog", "bird"), threshold=0.5, facts={"epoch": 1},
    )  # fmt: skip
    return data, workdir


def described(workdir):
    return json.loads((workdir / "best_model" / "inference.json").read_text())


def test_thresholds_are_put_into_the_bundle_and_are_the_same_again(bundle):
    data, workdir = bundle
    before = evaluate(config(data, evaluate__report=False), workdir).to_json()
    assert before["threshold"] == 0.5
    assert "report" not in before and not (workdir / "evaluate").exists()
    parts = before["by_training_images"]
    assert [part["labels"] for part in parts.values()] == [0, 0, 3]
    assert parts["tail"]["MultiLabelMAP"] == before["MultiLabelMAP"]
    result = thresholds(config(data, thresholds__min_positives=3), workdir).to_json()
    kept, model = described(workdir), read_bundle(workdir / "best_model")
    assert not (workdir / "best_model" / "inference.json.bak").exists()  # it was as trained
    assert model.temperature == result["temperature"]["after"]
    assert list(model.threshold) == [row["threshold_after"] for row in result["classes"]]
    assert [row["threshold_before"] for row in result["classes"]] == [0.5] * 3
    assert kept["calibration"] == {
        "objective": "f1", "target": None, "min_positives": 3, "calibrated": True, "images": 30,
    }  # fmt: skip
    for key in ("OF1", "CF1", "OP", "OR", "CP", "CR"):
        assert result["before"][key] == pytest.approx(before[key], abs=1e-9)
    assert result["MultiLabelMAP"]["after"] == pytest.approx(before["MultiLabelMAP"], abs=1e-6)
    assert result["NLL"]["after"] < result["NLL"]["before"]

    after = evaluate(config(data), workdir).to_json()
    assert after["threshold"] == dict(zip(model.labels, model.threshold, strict=True))
    assert after["OF1"] == pytest.approx(result["after"]["OF1"], abs=1e-9)
    text = (workdir / "evaluate" / "report.html").read_text()
    assert "chosen for the best F1 on 30 images" in text
    gallery = workdir / "evaluate" / "images"
    assert {"index.html", "0.jpg"} < {path.name for path in gallery.iterdir()}
    (gallery / "mine.jpg").touch()

    again = thresholds(config(data, thresholds__min_positives=3), workdir).to_json()
    assert again["after"] == result["after"]
    assert again["cross_validated"] == result["cross_validated"]
    assert described(workdir) == kept
    assert not (workdir / "best_model" / "inference.json.bak").exists()

    options = {"thresholds__objective": "recall", "thresholds__target": 0.9}
    options["evaluate__gallery"] = 0
    more = config(data, **options, thresholds__calibrate=False, evaluate__thresholds=True)
    other = evaluate(more, workdir).to_json()
    assert [path.name for path in gallery.iterdir()] == ["mine.jpg"]  # a page of no other report
    assert other["OF1"] == after["OF1"]  # of the thresholds before
    assert other["thresholds"]["after"]["OR"] >= 0.9
    assert described(workdir)["temperature"] == 1.0
    assert json.loads((workdir / "best_model" / "inference.json.bak").read_text()) == kept
    page = Page((workdir / "evaluate" / "report.html").read_text())
    assert "cross-validated" in page.cells
    assert f"{other['thresholds']['cross_validated']['OF1']:.4f}" in page.cells


def test_mistakes_are_shown_with_their_images_and_where_the_model_looked(bundle, monkeypatch):
    data, workdir = bundle
    (data / "images" / "val_0.png").write_bytes(b"no image")
    options = {"data__on_error": "skip", "evaluate__threshold": 0.01, "evaluate__labels": ("dog",)}
    options["evaluate__companions"] = 8
    lines = (data / "val.txt").read_text().splitlines()
    unknown = [line.rpartition(",")[0] + ",-1" for line in lines[3:6]]
    (data / "val.txt").write_text("\n".join([*lines[:3], *unknown, *lines[6:]]))
    shown = []
    illustrator = mistakes.Illustrator.__call__

    def remember(self, mistakes):
        shown.extend(zip(mistakes, result := illustrator(self, mistakes), strict=True))
        return result

    monkeypatch.setattr(mistakes.Illustrator, "__call__", remember)
    result = evaluate(config(data, **options), workdir).to_json()
    page = Page(Path(result["report"]).read_text())
    low, high = result["bounds"]["MultiLabelMAP"]
    assert low < result["MultiLabelMAP"] < high
    assert f"MultiLabelMAP is between {low:.4f} and {high:.4f}" in page.text
    chosen = result["chosen_labels"]
    assert chosen["labels"] == ["dog"]
    assert chosen["MultiLabelMAP"] == result["average_precision"]["dog"]
    assert result["companions"] == {"images": 0, "labels": {}}  # an image has one label
    assert "no two labels" in page.text
    with pytest.raises(ConfigError, match="evaluate.labels has 'dug', which is no label"):
        evaluate(config(data, evaluate__labels=("dug",)), workdir)
    assert result["images"] == 29 and "1 unreadable image left out" in page.text
    assert len(page.images) == (2 + 4) * len(shown) > 10  # four similar ones below each
    for mistake, illustration in shown:  # row 0 is the second image
        assert illustration.name.endswith(f"val_{mistake.row + 1}.png")
        with Image.open(data / "images" / f"val_{mistake.row + 1}.png") as image:
            expected = np.asarray(image.resize(illustration.picture.size))
        np.testing.assert_array_equal(np.asarray(illustration.picture), expected)
        assert illustration.evidence.size == illustration.picture.size
        assert (np.asarray(illustration.evidence) != expected).any()
    for source in page.images:
        data_bytes = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
        side = max(Image.open(io.BytesIO(data_bytes)).size)
        assert side == mistakes.PICTURE_SIDE or side <= similar.SIDE


def test_one_label_an_image_has_no_thresholds(tmp_path):
    data, workdir = write_photos(tmp_path / "data"), tmp_path / "run"
    workdir.mkdir()
    single = config(
        data, model__name="PP-LCNet_x0_25", model__task="single", loss__name="cross_entropy"
    )
    network = Network.of(single.model)
    write_bundle(
        workdir / "best_model", single.model, network.init(0),
        labels=("cat", "dog", "bird"), threshold=0.5, facts={},
    )  # fmt: skip
    with pytest.raises(ConfigError, match="thresholds are not for model.task=single"):
        thresholds(single, workdir)


def test_what_is_longer_than_a_line_is_cut():
    assert shorten("x" * 61) == "x" * 59 + "…"
    assert shorten("x" * 60) == "x" * 60


def test_similar_images_stand_below_mistakes_and_on_a_map(tmp_path):
    scores, targets = outputs(30, 3)
    source = Pictures(30, targets)
    vectors = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    alike = Similar(source, np.arange(30), targets, vectors)
    path = write_report(tmp_path, evaluation(scores, targets), show, alike)
    page = Page(path.read_text(encoding="utf-8"))
    near = [attrs for tag, attrs in page.tags if tag == "img" and "the label" in attrs["alt"]]
    plain = page_of(tmp_path / "plain", scores, targets)
    assert len(near) == 4 * page.text.count("most similar:") == len(page.images) - len(plain.images)
    expected = neighbours(vectors, np.array([7]), 4)[0]
    assert [one.labels for one in alike([7])[0]] == [
        np.flatnonzero(targets[row] >= 1).tolist() for row in expected
    ]
    [chart] = alike.charts()
    assert len(chart.bars) == 30 and chart.names[-1] == "others"
    assert Similar(source, None, targets, None)([1]) == [[]]


class Pictures:
    """Flat images."""

    labels = ("label 0", "label 1", "label 2")

    def __init__(self, count, targets):
        self.count, self.own = count, targets

    def __getitem__(self, index):
        return np.full((20, 30, 3), 8 * (index % 32), np.uint8), self.own[index]

    def name(self, index):
        return str(index)

    place = name


def gallery_of(folder, count=30, classes=3, limit=28, *, labels=("<i>cat", "dog", "ape")):
    """A gallery of images in shades of grey, which a label reported at 0.5 has or has not."""
    scores, targets = outputs(count, classes)
    decisions = Decisions(scores, targets, np.full(classes, 0.5, np.float32))
    source = Pictures(count, targets)
    shown = write_gallery(folder, decisions, labels, source, np.arange(count), limit)
    return decisions, shown, (folder / "index.html").read_text(encoding="utf-8")


def test_all_images_can_be_looked_through_beside_the_report(tmp_path):
    folder = tmp_path / "images"
    decisions, shown, text = gallery_of(folder)
    assert shown == 28 and "28 images with the largest mistakes, of 30" in Page(text).text
    assert text.count("<i>") == 0 and "img-src &#39;self&#39; file:;" in text
    assert sorted(path.name for path in folder.iterdir()) == ["0.jpg", "1.jpg", "index.html"]
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert data["labels"] == ["<i>cat", "dog", "ape"]
    above, targets = decisions.scores - 0.5, decisions.targets
    wrong = np.where(targets == 1, -above, np.where(targets == 0, above, -np.inf)).max(1)
    order = np.argsort(-wrong, kind="stable")[:28]
    assert [int(name) for name, *_ in data["rows"]] == order.tolist()
    sheets = [np.asarray(Image.open(folder / name)) for name in ("0.jpg", "1.jpg")]
    for place, (row, (_, width, height, more, told)) in enumerate(
        zip(order, data["rows"], strict=True)
    ):
        assert (width, height, more) == (30, 20, 0)
        y, x = (120 * n for n in divmod(place % 25, 5))
        part = sheets[place // 25][y : y + height, x : x + width].astype(int)
        assert abs(part.mean() - 8 * row) < 4
        states = {(1, True): 3, (1, False): 1, (0, True): 2, (-1, True): 4}
        assert {(k, state) for k, _, state in told} == {
            (k, states[key])
            for k in range(3)
            if (key := (int(targets[row, k]), bool(above[row, k] > 0))) in states
        }
    gallery_of(folder, count=3)  # in the place of the first
    assert sorted(path.name for path in folder.iterdir()) == ["0.jpg", "index.html"]


def test_of_one_label_an_image_the_surest_mistakes_come_first(tmp_path):
    scores, targets = one_label(9, 3)
    shown = write_gallery(
        tmp_path / "images", Decisions(scores, targets, None), "abc", Pictures(9, targets),
        np.arange(9), 100,
    )  # fmt: skip
    text = (tmp_path / "images/index.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert shown == 9 and data["limits"] is None and len(data["rows"]) == 9
    name, *_, told = data["rows"][0]
    truth = int(targets[int(name)].argmax())
    assert {(k, state) for k, _, state in told} == {(truth, 1), (scores[int(name)].argmax(), 2)}


@needs_chromium
@pytest.mark.slow
def test_the_images_are_filtered_sorted_and_turned_over_in_a_browser(tmp_path):
    decisions, _, _ = gallery_of(tmp_path / "images", count=130, limit=130)
    reported, targets = decisions.scores > 0.5, decisions.targets
    (tmp_path / "browser").mkdir()
    with chromium(tmp_path / "browser") as port:
        tab = open_tab(port, width=400, height=900)
        tab.send("Page.navigate", url=(tmp_path / "images/index.html").as_uri())
        status = "document.querySelector('#status')?.textContent"
        wait(lambda: tab.run(status) == "1 to 60 of 130 images")
        wait(lambda: tab.run("[...document.images].every((i) => i.naturalWidth === 600)"))
        tab.press("ArrowRight", 39)
        tab.run("$('after').click()")
        assert tab.run(status) == "121 to 130 of 130 images" and tab.run("$('after').disabled")

        def choose(name, value):
            tab.run(f"$('{name}').value = '{value}'; $('{name}').dispatchEvent(new Event('input'))")
            return [int(name) for name in tab.run("found.map(({ row }) => row.name)")]

        choose("label", 1)
        false = choose("kind", 2)
        expected = np.flatnonzero(reported[:, 1] & (targets[:, 1] == 0))
        assert sorted(false) == expected.tolist() and len(expected) > 3
        scores = decisions.scores[false, 1]
        assert (np.diff(scores) <= 1e-4).all()
        assert choose("order", "name") == expected.tolist()
        assert choose("name", str(expected[0])) == [
            n for n in expected if str(expected[0]) in str(n)
        ]
        assert choose("name", "no such") == [] and tab.run(status) == "There is no such image."
        assert tab.run("document.documentElement.scrollWidth") == 400
    assert tab.problems == []


@needs_chromium
@pytest.mark.slow
def test_all_labels_are_printed_below_a_head_on_every_page(tmp_path):
    page_of(tmp_path, *outputs(40, 120))
    (tmp_path / "browser").mkdir()
    with chromium(tmp_path / "browser") as port:
        tab = open_tab(port, width=1280, height=900)
        tab.send("Page.navigate", url=(tmp_path / "evaluate/report.html").as_uri())
        wait(
            lambda: tab.run(
                "document.readyState == 'complete' && !!document.querySelector('#classes')"
            )
        )
        printed = base64.b64decode(tab.send("Page.printToPDF")["data"])
    pages = [page.get_textpage().get_text_bounded() for page in pypdfium2.PdfDocument(printed)]
    rows = [re.findall(r"^(\d+) label \1", text, re.MULTILINE) for text in pages]
    assert len({row for found in rows for row in found}) == 120
    assert sum(map(bool, rows)) > 2
    assert all("precision" in text for text, found in zip(pages, rows, strict=True) if found)
    assert "Show names with" not in "".join(pages)
