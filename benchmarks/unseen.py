"""Labels left out of training: mAP by queries made from words.

python -m benchmarks.unseen FOLDER EMBEDDINGS [--model tf_efficientnet_lite0] [--weights FILE]
    [--size 160] [--epochs 12] [--seeds 0 1 2] [--share 0.2] [--json FILE] [--work FOLDER]

FOLDER has MLClsDataset form, and EMBEDDINGS is a `.npy` file [labels, size] of any text encoder, in
the order of label.txt. Each seed draws a share of the labels, and trains an ML-Decoder with
`model.text_embeddings` on the others alone, with the same images. The backbone stays as it is where
it has `--weights`. All numbers are of the validation images and, but for `seen`, of the labels left
out: `chance` is the share of images that have them, `nearest` gives each the score of the trained
label whose words are most similar, `queries` makes its query from its words, and `trained` is the
same network trained on all labels.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import describe, print_table
from mlcls_jax import config as schema
from mlcls_jax.data.lists import label_names
from mlcls_jax.inference.bundle import write_bundle
from mlcls_jax.metrics import average_precision
from mlcls_jax.models import with_labels
from mlcls_jax.modes.evaluate import run_bundle
from mlcls_jax.modes.train import train
from mlcls_jax.workdir import FEATURES

COLUMNS = ("chance", "nearest", "queries", "trained", "seen")


def main() -> None:
    """Train twice with every seed, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", help="of the backbone, which is not trained then")
    parser.add_argument("--size", type=int, default=160, help="side of the images")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--share", type=float, default=0.2, help="of labels that are left out")
    parser.add_argument("--json", help="file for the rows of every seed")
    parser.add_argument("--work", help="folder for the runs, which go on where they stopped")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            rows.append({"seed": seed} | run(arguments, Path(arguments.work or scratch), seed))
        print(rows[-1], file=sys.stderr, flush=True)
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    spread = {key: [100 * row[key] for row in rows] for key in COLUMNS}
    mean = {
        key: f"{statistics.mean(v):.1f} ± {statistics.stdev(v) if len(v) > 1 else 0:.1f}"
        for key, v in spread.items()
    }
    title = f"{arguments.folder.name}, {arguments.model}, {describe('jax', 'flax')}"
    print_table(title, [{k: f"{100 * r[k]:.1f}" for k in COLUMNS} for r in rows] + [mean], None)


def run(arguments: argparse.Namespace, work: Path, seed: int) -> dict[str, float]:
    """Train without some labels, and with all; return the mAPs."""
    embeddings = np.load(arguments.embeddings)  # [labels, size]
    count = len(embeddings)
    drawn = np.random.default_rng(seed).permutation(count)
    out = np.sort(drawn[: round(arguments.share * count)])
    kept = np.setdiff1d(np.arange(count), out)
    seen = part(arguments.folder, work / f"data-{seed}", kept)
    np.save(work / f"seen-{seed}.npy", embeddings[kept])

    own = configured(arguments, seen, seed, work / f"seen-{seed}.npy")
    place = workdir(work, f"run-{seed}")
    train(own, place)
    outputs = run_bundle(own, place, thresholds=False)
    scored = {"seen": average_precision(outputs.logits, outputs.targets).mean()}

    everything = configured(arguments, arguments.folder, seed, arguments.embeddings)
    wider = with_labels(outputs.bundle.model, embeddings)
    write_bundle(
        work / f"wider-{seed}", wider.network.config, wider.variables, threshold=0.5, facts={},
        labels=label_names(arguments.folder / "label.txt"), frame=outputs.bundle.frame,
    )  # fmt: skip
    asked = schema.changed(everything, {"evaluate.model_dir": str(work / f"wider-{seed}")})
    wide = run_bundle(asked, place, thresholds=False)
    scored["queries"] = average_precision(wide.logits, wide.targets)[out].mean()
    scored["chance"] = wide.targets.mean(0)[out].mean()
    words = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    nearest = kept[(words[out] @ words[kept].T).argmax(1)]
    scored["nearest"] = average_precision(wide.logits[:, nearest], wide.targets[:, out]).mean()

    place = workdir(work, f"run-all-{seed}")
    train(everything, place)
    full = run_bundle(everything, place, thresholds=False)
    scored["trained"] = average_precision(full.logits, full.targets)[out].mean()
    return {key: float(value) for key, value in scored.items()}


def workdir(work: Path, name: str) -> Path:
    """Make the folder of a run; features are those of all runs, which have the same images."""
    (work / FEATURES).mkdir(exist_ok=True)
    (work / name).mkdir(exist_ok=True)
    if not (work / name / FEATURES).exists():
        (work / name / FEATURES).symlink_to((work / FEATURES).resolve())
    return work / name


def part(folder: Path, target: Path, kept: np.ndarray) -> Path:
    """Write the data set with the labels `kept` alone; its images are a link."""
    target.mkdir(parents=True, exist_ok=True)
    if not (target / "images").exists():
        (target / "images").symlink_to((folder / "images").resolve())
    names = label_names(folder / "label.txt")
    lines = [f"{number} {names[label]}\n" for number, label in enumerate(kept)]
    (target / "label.txt").write_text("".join(lines), encoding="utf-8")
    for name in ("train.txt", "val.txt"):
        rows = (line.rpartition("\t") for line in (folder / name).read_text("utf-8").splitlines())
        kept_rows = ((image, np.array(values.split(","))[kept]) for image, _, values in rows)
        text = "".join(f"{image}\t{','.join(values)}\n" for image, values in kept_rows)
        (target / name).write_text(text, encoding="utf-8")
    return target


def configured(
    arguments: argparse.Namespace, folder: Path, seed: int, embeddings: Path
) -> schema.Config:
    """Return the configuration of a training on a data set."""
    return schema.Config(
        seed=seed,
        model=schema.Model(
            name=f"{arguments.model}_ML",
            weights=arguments.weights or "none",
            image_size=(arguments.size, arguments.size),
            text_embeddings=str(embeddings),
        ),
        data=schema.Data(
            dir=str(folder), augment=("flip",), feature_views=2 if arguments.weights else 0
        ),
        optimizer=schema.Optimizer(learning_rate=1e-3, warmup_epochs=1.0),
        train=schema.Train(
            epochs=arguments.epochs,
            batch_size=32,
            ema_decay=0.99,
            frozen_backbone=bool(arguments.weights),
            save_epochs=arguments.epochs,
        ),
        log=schema.Log(tensorboard=False, pictures=0),
    )


if __name__ == "__main__":
    main()
