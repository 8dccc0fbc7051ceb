"""What audits find and give back, and what labelling in the order of `mlcls next` saves.

python -m benchmarks.curation WORK [--seeds 0 1 2] [--photos FOLDER ...]
    [--only train audit again next] [--model RUN] [--weights FILE]

WORK gets a data set and a run for each set and seed, which are minutes of training each, and used
again if they are there. Sets are the digits (3,000 boards written as images) and the folders, in
MLClsDataset form. Their training labels are made wrong on purpose: of the digits each of the 10
entries of an image is flipped with a chance of 5 %; of photographs 5 % of the marks of each label
are taken away, and as many are put on other images. Networks are trained on these labels from
random weights, so features are those of short trainings. With `--model` no network is trained:
the features of all sets are those of this run, whose backbone should not have learnt from them.
With `--weights`, ImageNet weights of EfficientNet-Lite0, networks of photographs are heads trained
for 12 epochs on cached features of that backbone, 160 x 160.

`found` is the average precision of the doubts as a ranking of all entries, of marks, and of
entries without a mark; `chance` is the share of them that is wrong. What is given back: an
ideal person looks at the entries that the audit lists, or at twice as many as are wrong, and
confirms what is wrong; a linear head on the embeddings is fitted anew each time. With `again` the
network is trained anew instead, with right labels, and with lists that `mlcls audit` and `--apply`
corrected: the person looks at as many entries, from the first of the list on, as are wrong.

`next` labels boards of a pool in steps of 100, drawn or chosen, and fits the head on them; the
network is that of the demo, which saw other boards. Of the pool with a long tail, boards with
high digits are rarer, down to a thirtieth. With `--model` it labels the training images of the
photographs, too, whose labels are right then.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.timing import print_table
from mlcls_jax import create_model
from mlcls_jax.config import Data
from mlcls_jax.curation import heads
from mlcls_jax.curation.audit import audit
from mlcls_jax.curation.features import Embedded, embed
from mlcls_jax.curation.judge import FOLDS, fold_numbers, suspects
from mlcls_jax.curation.subject import find_subject
from mlcls_jax.curation.teach import choose, label_worth
from mlcls_jax.data.sources import open_split
from mlcls_jax.data.sources.repeated import Repeated
from mlcls_jax.metrics import average_precision, mean_average_precision

BOARDS, VALIDATION = 3000, 1000
SHARE = 0.05
DECAY = 0.1  # of the heads that labels are given for
STEP, LAST = 100, 1000  # boards labelled at once, and in the end
DIGITS = ["--config=lcnet:demo", "--config.data.source=mlcls", "--config.data.epoch_size=None",
          "--config.train.epochs=15"]  # fmt: skip
PHOTOS = ["--config=lcnet:small", "--config.model.name=PP-LCNet_x0_5_ML",
          "--config.model.weights=none", "--config.model.image_size=96,96",
          "--config.train.frozen_backbone=False", "--config.data.feature_views=0",
          "--config.optimizer.learning_rate=1e-3", "--config.train.epochs=20",
          "--config.train.patience=None", "--config.evaluate.batch_size=64"]  # fmt: skip
PRETRAINED = ["--config=lcnet:small", "--config.model.name=tf_efficientnet_lite0_ML",
              "--config.model.image_size=160,160", "--config.data.feature_views=2",
              "--config.train.epochs=12", "--config.train.fit_thresholds=never",
              "--config.log.tensorboard=False"]  # fmt: skip


def main():
    """Train what is missing, and print a table for each question."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--photos", type=Path, nargs="*", default=[])
    parser.add_argument("--no_digits", action="store_true")
    parser.add_argument(
        "--only", nargs="+", choices=("train", "audit", "again", "next"), default=("audit", "next")
    )
    parser.add_argument("--model", help="run whose frozen backbone gives the features")
    parser.add_argument("--weights", help="of EfficientNet-Lite0, for the networks of photographs")
    given = parser.parse_args()
    sources = [None] * (not given.no_digits) + given.photos
    sources *= given.only != ["next"]
    rows, others = [], []
    for source in sources:
        for seed in given.seeds:
            data, run = prepared(given.work, source, seed, given.model, given.weights)
            if "audit" in given.only:
                rows.append({"set": data.name} | audited(data, run))
                print(rows[-1], file=sys.stderr, flush=True)
            if "again" in given.only:
                others.append(
                    {"set": data.name} | retrained(data, run, source, seed, given.weights)
                )
                print(others[-1], file=sys.stderr, flush=True)
    for name, table in (("audits", rows), ("networks trained anew", others)):
        if table:
            print_table(name, table, None)
    if "next" in given.only:
        rows = []
        if not given.no_digits:
            run = given.work / "run-demo"
            trained(run, ["--config=lcnet:demo"], seed=0)
            for tail in (False, True):
                rows += taught(f"boards{', long tail' * tail}", *boards(run, tail), given.seeds)
        for photos in given.photos if given.model else ():
            subject = find_subject(given.model, str(photos))
            predictor = subject.predictor(None)
            pool, judged = (
                embed(predictor, subject.source(split)) for split in ("train", "validation")
            )
            rows += taught(photos.name, pool, judged, given.seeds)
        print_table("labels to give next", rows, None)


def audited(data: Path, run: Path) -> dict[str, str]:
    """What the audit of a set finds, and what comes back by it."""
    subject = find_subject(str(run), str(data))
    done = audit(subject)
    vectors, targets = done.found.vectors, done.found.targets
    clean = np.load(data / "clean.npy")[done.found.indices]
    wrong, doubt = targets != clean, done.judged.doubt
    row = {}
    for name, some in (("all", targets >= 0), ("marks", targets > 0), ("others", targets == 0)):
        found = average_precision(doubt[some][:, None], wrong[some][:, None].astype(float))[0]
        row[name] = f"{found:.3f} (chance {wrong[some].mean():.4f})"
    right = sum(wrong[one.row, one.label] for one in done.suspects)
    row["listed"] = f"{right} of {len(done.suspects)} right"
    judged = embed(subject.predictor(None), subject.source("validation"))
    space = heads.principal(vectors)

    def reached(labels: np.ndarray) -> float:
        everything = np.ones((1, len(labels)), bool)
        weights = heads.fit(space(vectors), labels, everything, done.judged.decay)
        said = heads.logits(space(judged.vectors), weights)[0]
        return float(mean_average_precision(said, judged.targets))

    best, worst = reached(clean), reached(targets)
    row |= {"mAP, right labels": f"{best:.4f}", "wrong": f"{worst:.4f}"}
    listed = suspects(done.judged, vectors, targets, at_least=0, most=2 * int(wrong.sum()))
    for name, looked_at in (("listed", done.suspects), ("2 x", listed)):
        mended = targets.copy()
        for one in looked_at:
            mended[one.row, one.label] = clean[one.row, one.label]
        value = reached(mended)
        row[f"mended, {name}"] = f"{value:.4f} ({(value - worst) / (best - worst):.0%} back)"
    return row


def retrained(
    data: Path, run: Path, source: Path | None, seed: int, weights: str | None
) -> dict[str, str]:
    """What networks reach that are trained anew on right labels, and on what the audit mends."""
    clean = np.load(data / "clean.npy")
    images, wrong = read_list(data / "train.txt")
    values = [best_map(run)]
    for name, targets in (("right", clean), ("mended", wrong)):
        other, again = data.with_name(f"{data.name}-{name}"), run.with_name(f"{run.name}-{name}")
        if not other.exists():
            other.mkdir()
            for file in ("images", "label.txt", "val.txt"):
                (other / file).symlink_to((data / file).resolve())
        if not again.exists():
            write_list(other / "train.txt", images, targets)
            if name == "mended":
                mend(other, run, images, clean, int((wrong != clean).sum()))
        trained(again, flags_of(source, other, weights), seed)
        values.append(best_map(again))
    _, mended = read_list(data.with_name(f"{data.name}-mended") / "train.txt")
    worst, best, back = values
    return {
        "mAP, right labels": f"{best:.4f}",
        "wrong": f"{worst:.4f}",
        "mended": f"{back:.4f} ({(back - worst) / (best - worst):.0%} back)",
        "confirmed": f"{(mended != wrong).sum()} of {(wrong != clean).sum()} wrong entries",
    }


def mend(data: Path, run: Path, images: tuple[str, ...], clean: np.ndarray, looked_at: int) -> None:
    """Audit the lists of `data`, and apply what is wrong among the first so many of its list."""
    command = [sys.executable, "-m", "mlcls_jax.main", "audit", str(run), f"--data={data}"]
    subprocess.run([*command, f"--output={data / 'audit'}"], check=True, stdout=sys.stderr)
    confirmed = confirm(data, images, clean, looked_at)
    subprocess.run([*command, f"--apply={confirmed}"], check=True, stdout=sys.stderr)


def confirm(data: Path, images: Sequence[str], clean: np.ndarray, looked_at: int) -> Path:
    """Put a 1 beside what is wrong among the first so many of an audit's list; return the file."""
    labels = [
        line.split(maxsplit=1)[1].strip() for line in (data / "label.txt").read_text().splitlines()
    ]
    rows, columns = ({name: i for i, name in enumerate(names)} for names in (images, labels))
    with (data / "audit" / "audit.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        listed = list(reader)
    confirmed = data / "audit" / "confirmed.csv"
    with confirmed.open("w", newline="") as file:
        writer = csv.DictWriter(file, reader.fieldnames or ())
        writer.writeheader()
        for one in listed[:looked_at]:
            right = clean[rows[one["image"]], columns[one["label"]]]
            writer.writerow(one | {"confirmed": int(right == int(one["suggested"]))})
    return confirmed


def boards(run: Path, has_tail: bool) -> tuple[Embedded, Embedded]:
    """A pool of boards that the run of the demo did not see, and boards to judge heads by."""
    predictor = create_model(model_dir=run, batch_size=32)
    training, validation = (
        open_split(Data(source="digits", val_size=VALIDATION), split)
        for split in ("train", "validation")
    )
    numbers = 500_000 + np.arange(8000 if has_tail else BOARDS)
    if has_tail:
        there = np.array([training[int(i)][1] for i in numbers]) > 0
        kept = np.prod(np.where(there, 10 ** (-1.5 * np.arange(10) / 9), 1), 1)
        numbers = numbers[np.random.default_rng(5).random(len(numbers)) < kept]
    pool = embed(predictor, Repeated(training, numbers))
    return pool, embed(predictor, Repeated(validation, np.arange(VALIDATION)))


def taught(name: str, pool: Embedded, judged: Embedded, seeds: list[int]) -> list[dict[str, str]]:
    """mAP of heads by the number of labelled images of a pool, drawn and chosen."""
    space = heads.principal(pool.vectors)
    points, others = space(pool.vectors), space(judged.vectors)
    curves: dict[str, list[list[float]]] = {"drawn": [], "chosen": []}
    for seed in seeds:
        for way, found in curves.items():
            rng = np.random.default_rng(seed)
            labelled = rng.choice(len(points), STEP, replace=False)
            reached = []
            while True:
                own, known = points[labelled], pool.targets[labelled]
                weights = heads.fit(own, known, np.ones((1, len(own)), bool), DECAY)
                said = heads.logits(others, weights)[0]
                reached.append(float(mean_average_precision(said, judged.targets)))
                if len(reached) == LAST // STEP:
                    break
                rest = np.setdiff1d(np.arange(len(points)), labelled)
                if way == "chosen":
                    used = fold_numbers(known, FOLDS, seed) != np.arange(FOLDS)[:, None]
                    weights = heads.fit(own, known, used, DECAY)
                    scores = heads.sigmoid(heads.logits(points[rest], weights)).mean(0)
                    turn = (seed, len(labelled))
                    order = choose(points[rest], scores, label_worth(known), own, STEP, seed=turn)
                else:
                    order = rng.choice(len(rest), STEP, replace=False)
                labelled = np.concatenate([labelled, rest[order]])
            found.append(reached)
            print(way, name, seed, np.round(reached, 4).tolist(), file=sys.stderr, flush=True)
    return [
        _row(way, np.array(found), curves, f"{len(points)} {name}") for way, found in curves.items()
    ]


def _row(way: str, found: np.ndarray, curves: dict, pool: str) -> dict[str, str]:
    row = {"pool": pool, "labelled": way}
    row |= {
        str(STEP * (i + 1)): f"{found[:, i].mean():.4f} ± {found[:, i].std():.4f}"
        for i in range(0, LAST // STEP, 2)
    }
    sizes = STEP * np.arange(1, LAST // STEP + 1)
    needed = [
        float(np.interp(drawn[-1], np.maximum.accumulate(own), sizes))
        for own, drawn in zip(found, curves["drawn"], strict=True)
    ]
    row["labels for what the last drawn reach"] = f"{np.mean(needed):.0f} ± {np.std(needed):.0f}"
    return row


def prepared(
    work: Path, source: Path | None, seed: int, model: str | None, weights: str | None
) -> tuple[Path, Path]:
    """The data with wrong labels, and a run on it; both are made if they are not there.

    With `model` that is the run.
    """
    name = f"{source.name if source else 'digits'}-{seed}"
    data, run = work / name, work / f"run-{name}"
    if not (data / "clean.npy").exists():
        (data / "images").parent.mkdir(parents=True, exist_ok=True)
        write_photos(data, source, seed) if source else write_digits(data, seed)
    if model:
        return data, Path(model)
    trained(run, flags_of(source, data, weights), seed)
    return data, run


def flags_of(source: Path | None, data: Path, weights: str | None) -> list[str]:
    """Of a training on some data of a set."""
    flags = PHOTOS if source else DIGITS
    if source and weights:
        flags = [*PRETRAINED, f"--config.model.weights={weights}"]
    return [*flags, f"--config.data.dir={data}"]


def best_map(run: Path) -> float:
    """mAP of a run's best weights."""
    return json.loads((run / "train_result.json").read_text())["MultiLabelMAP"]


def trained(run: Path, flags: list[str], seed: int) -> None:
    """Train a run, or what is left of it."""
    result = run / "train_result.json"
    if not (result.exists() and json.loads(result.read_text())["done_flag"]):
        command = [sys.executable, "-m", "mlcls_jax.main", "train", *flags, f"--workdir={run}"]
        command += [f"--config.seed={seed}", "--quiet"]
        subprocess.run(command, check=True, stdout=sys.stderr)


def write_digits(data: Path, seed: int) -> None:
    (data / "images").mkdir()
    (data / "label.txt").write_text("".join(f"{k} {k}\n" for k in range(10)))
    for split, count in (("train", BOARDS), ("validation", VALIDATION)):
        boards = open_split(Data(source="digits", val_size=VALIDATION), split)
        images, rows = [], []
        for i in range(count):
            image, target = boards[i]
            pixels = np.asarray(image)  # of the digits, which are drawn
            images.append(f"images/{split}_{i:05d}.png")
            cv2.imwrite(str(data / images[-1]), pixels[:, :, ::-1])
            rows.append(target)
        targets = np.array(rows, np.int8)
        if split == "train":
            np.save(data / "clean.npy", targets)
            targets ^= np.random.default_rng(seed).random(targets.shape) < SHARE
        write_list(data / ("train.txt" if split == "train" else "val.txt"), images, targets)


def write_photos(data: Path, source: Path, seed: int) -> None:
    (data / "images").symlink_to((source / "images").resolve())
    for name in ("label.txt", "val.txt"):
        (data / name).write_bytes((source / name).read_bytes())
    images, clean = read_list(source / "train.txt")
    np.save(data / "clean.npy", clean)
    rng, targets = np.random.default_rng(seed), clean.copy()
    for k in range(clean.shape[1]):
        there, absent = np.flatnonzero(clean[:, k] == 1), np.flatnonzero(clean[:, k] == 0)
        moved = rng.binomial(len(there), SHARE)
        targets[rng.choice(there, moved, replace=False), k] = 0
        targets[rng.choice(absent, moved, replace=False), k] = 1
    write_list(data / "train.txt", images, targets)


def read_list(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    images, values = zip(*map(str.split, path.read_text().splitlines()), strict=True)
    return images, np.array([row.split(",") for row in values], np.int8)


def write_list(path: Path, images, targets: np.ndarray) -> None:
    rows = (
        f"{name}\t{','.join(map(str, row))}\n" for name, row in zip(images, targets, strict=True)
    )
    path.write_text("".join(rows))


if __name__ == "__main__":
    main()
