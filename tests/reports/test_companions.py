"""Thing or company: networks whose scores are read off known places, and what is told of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from mlcls_jax.errors import DataError
from mlcls_jax.inference.masking import SIDE, WINDOWS, copies, falls, masked, shares
from mlcls_jax.modes.evaluate_result import sentences
from mlcls_jax.reports.companions import choose, measure_companions, usual_pairs
from mlcls_jax.reports.evaluate_page import Evaluation, write_report
from mlcls_jax.reports.mistakes import Illustration
from tests.helpers.page import Page

LABELS = ("ball", "player", "cat", "sofa", "noise")
COLOURS = np.eye(3, dtype=np.uint8) * 255
CELL = 5


def nameless(wrong):
    return [Illustration("", None, None, "no picture") for _ in wrong]


class Boards:
    """Grey pictures with up to four squares, a colour for each label, in corners by chance."""

    labels = LABELS
    broken = -1

    def __init__(self, targets):
        self.targets = targets
        rng = np.random.default_rng(1)
        self.corners = np.stack([rng.permutation(4) for _ in targets])

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        if index == self.broken:
            raise DataError("gone")
        image = np.full((SIDE * CELL, SIDE * CELL, 3), 100, np.uint8)
        for k in np.flatnonzero(self.targets[index][:4] > 0):
            y, x = divmod(int(self.corners[index][k]), 2)
            colour = (255, 255, 255) if k == 3 else COLOURS[k]
            image[20 * y : 20 * y + 12, 20 * x : 20 * x + 12] = colour
        return image, self.targets[index]

    def name(self, index):
        return f"{index}.png"

    place = name


def scores(images):
    """Each label is read off its own square, but the player off the ball, and noise off nothing."""
    flat = images.reshape(len(images), -1, 3)
    ball, cat = ((flat == COLOURS[k]).all(2).sum(1) for k in (0, 2))
    sofa = (flat == 255).all(2).sum(1)
    seen = np.stack([ball, ball, cat, sofa, 0 * ball], 1)
    return (1 / (1 + np.exp(5 - seen / 14))).astype(np.float32)


@pytest.fixture(scope="module")
def boards():
    """Balls with players, and cats with sofas; each of them sometimes alone."""
    rng = np.random.default_rng(0)
    there = np.zeros((120, 5), np.float32)
    there[:40, :2] = there[40:80, 2:4] = 1
    there[[*range(90, 98)], [0, 1, 2, 3] * 2] = 1
    there[:, 4] = there[:, 2] * (rng.random(120) < 0.8)
    return Boards(there)


def test_a_map_shows_what_a_score_is_read_off(boards):
    image = boards[0][0]
    y, x = divmod(int(boards.corners[0][0]), 2)
    plain, masked_scores = scores(image[None])[0], scores(copies(image))
    found = shares(plain, masked_scores)
    assert len(masked_scores) == WINDOWS
    assert found.shape == (5, SIDE, SIDE) and found.dtype == np.float32
    around = (slice(3 * y, 3 * y + 4), slice(3 * x, 3 * x + 4))
    assert found[0].sum() == pytest.approx(1, abs=1e-5) == found[0][around].sum()
    assert (found[4] == 0).all()
    # The definition, for one cell: the mean over the four windows that have it.
    cells = np.zeros((4, SIDE, SIDE), bool)
    for window, (dy, dx) in zip(cells, np.ndindex(2, 2), strict=True):
        window[1 + dy : 3 + dy, 1 + dx : 3 + dx] = True
    after = scores(masked(image, cells))
    odds = np.log(plain / (1 - plain)) - np.log(after / (1 - after))
    assert falls(plain, masked_scores)[:, 2, 2] == pytest.approx(odds.mean(0), abs=1e-4)
    assert (masked(image, cells)[0, 5:15, 5:15] == np.rint(image.mean((0, 1)))).all()


def test_labels_that_come_together_are_paired_and_images_chosen(boards):
    pairs = usual_pairs(boards.targets)
    assert {(p.label, p.companion) for p in pairs} == {(0, 1), (1, 0), (2, 3), (3, 2), (4, 2)}
    close = [
        np.corrcoef(boards.targets[:, p.label], boards.targets[:, p.companion])[0, 1] for p in pairs
    ]
    assert close == sorted(close, reverse=True)
    assert pairs[0].rows.tolist() in ([*range(40)], [*range(40, 80)])
    assert len(choose(pairs, 1000)) == 34 and len(choose(pairs, 20)) == 16 and not choose(pairs, 7)
    assert not usual_pairs(boards.targets[:7])


def test_a_label_that_is_read_off_its_companion_is_told(boards, tmp_path):
    def run(images):
        assert len(images) % WINDOWS == 0  # one program
        return scores(images)

    network = SimpleNamespace(
        run=run, prepare=lambda image: image, bundle=SimpleNamespace(frame=None)
    )
    boards.broken = choose(usual_pairs(boards.targets), 60)[0]
    said = scores(np.stack([Boards(boards.targets)[i][0] for i in range(120)]))
    found = measure_companions(network, boards, np.arange(120), said, boards.targets, 60)
    assert found.images == 33 and not found.untold
    told = found.to_json(LABELS)["labels"]
    assert told["player"]["companion"] == "ball" and told["player"]["share"] > 0.95
    assert told["player"]["hangs"] and not told["ball"]["hangs"]
    assert told["player"]["score"]["without_companion"] < 0.01
    for own in ("cat", "sofa"):
        assert told[own]["share"] < 0.05 and told[own]["interval"][1] < 0.2
        assert told[own]["score"]["own"] < 0.1 < 0.9 < told[own]["score"]["companion"]
    assert told["noise"]["share"] is None and not told["noise"]["hangs"]
    [sentence] = sentences({"companions": found.to_json(LABELS)})
    assert sentence.endswith("4 of which masking can tell, 1 hang on them: player on ball (100%)")

    evaluation = Evaluation(
        tmp_path, "multilabel", LABELS, said, boards.targets, {}, np.ones(5), 0.5, 1.0, None, 0,
        None, (sentence,), found,
    )  # fmt: skip
    report = write_report(tmp_path, evaluation, nameless)
    page = Page(report.read_text())
    assert "Thing or company?" in page.text and "cannot be told" in page.cells
    assert len(page.images) == 2 * len(found.pictures) == 8
    assert "100% (100% to" in " ".join(page.text.split())
