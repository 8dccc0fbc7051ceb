"""Losses on labels with faults made on purpose: mAP of trainings by the product's own command.

python -m benchmarks.labels_trained FOLDER [--faults half single missing tail none forms]
    [--weights FILE] [--seeds 0 1 2] [--size 96] [--epochs 6] [--rate 1e-3] [--json FILE]

FOLDER has MLClsDataset form. The faults are those of `benchmarks.labels`, made in the training list
alone; `forms` leaves the labels as they are, and compares `loss.name=auto` with the forms among
which it chooses. The trainings are those of `benchmarks.accuracy`, of whole networks from random
weights, with one learning rate for all ways. With `--weights`, ImageNet weights of
EfficientNet-Lite0, they are those of `benchmarks.curation`: heads on features of that backbone.

mAP is that of the best weights of a run, judged on the untouched validation labels. `±` is the
standard deviation between seeds, `more` the mean difference to the first way, seed by seed. With
`tail`, `head` and `tail` are the mAP of a third of the labels each. Runs that the file of `--json`
has are not done again.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.accuracy import OURS, config_of, run
from benchmarks.curation import flags_of, trained
from benchmarks.labels import damaged, table
from benchmarks.timing import describe, print_table
from mlcls_jax.metrics import average_precision
from mlcls_jax.modes.evaluate import run_bundle
from mlcls_jax.workdir import FEATURES

BCE = ("loss.name=multilabel",)
NEGATIVE = ("data.unknown=negative",)
PARTIAL = {
    "asymmetric, ignore": (),
    "asymmetric, negative": NEGATIVE,
    "asymmetric, selective": ("data.unknown=selective",),
    "BCE, negative": BCE + NEGATIVE,
    "hill, negative": ("loss.name=hill", *NEGATIVE),
    "entropy": ("loss.name=entropy",),
}
WHOLE = {
    "asymmetric": (),
    "BCE": BCE,
    "asymmetric, gamma_neg=2": ("loss.gamma_neg=2.0",),
    "focal": ("loss.name=focal",),
    "hill": ("loss.name=hill",),
    "distribution_balanced": ("loss.name=distribution_balanced",),
    "asymmetric, effective weights": ("loss.class_weights=effective",),
    "asymmetric, inverse weights": ("loss.class_weights=inverse",),
    "asymmetric, repeat_below=0.1": ("data.repeat_below=0.1",),
    "auto": ("loss.name=auto",),
}
CROSS_ENTROPY, EFFECTIVE = ("loss.gamma_neg=0.0", "loss.clip=0.0"), "loss.class_weights=effective"
FORMS = {
    "gamma_neg=4": (),
    "gamma_neg=2": ("loss.gamma_neg=2.0",),
    "cross-entropy": CROSS_ENTROPY,
    "gamma_neg=4, effective weights": (EFFECTIVE,),
    "cross-entropy, effective weights": (*CROSS_ENTROPY, EFFECTIVE),
    "auto": ("loss.name=auto",),
}
WAYS = {
    **{"half": PARTIAL, "single": PARTIAL, "missing": WHOLE, "tail": WHOLE, "none": WHOLE},
    "forms": FORMS,
}


def main() -> None:
    """Print a table per fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--model", default="PP-LCNet_x0_5_ML", help="without --weights")
    parser.add_argument("--weights", help="of EfficientNet-Lite0, for heads on its features")
    parser.add_argument("--faults", nargs="+", default=[*WAYS], choices=[*WAYS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=96, help="of the images, without --weights")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--json", help="file for AP per label of every run")
    given = parser.parse_args()
    file = Path(given.json) if given.json else None
    runs = json.loads(file.read_text(encoding="utf-8")) if file and file.exists() else {}
    facts = describe("jax", "flax")
    for fault in given.faults:
        aps = {name: [] for name in WAYS[fault]}  # each [seeds] of [1, K]
        shares = []
        for seed in given.seeds:
            with tempfile.TemporaryDirectory() as folder:
                shares.append(write_damaged(Path(given.folder), Path(folder), fault, seed))
                for name, flags in WAYS[fault].items():
                    run = f"{fault}, seed {seed}, {name}"
                    if run not in runs:
                        runs[run] = train(given, Path(folder), seed, flags).tolist()
                        print(run, round(np.nanmean(runs[run]), 4), file=sys.stderr)
                        if file:
                            file.write_text(json.dumps(runs) + "\n", encoding="utf-8")
                    aps[name].append(np.array([runs[run]]))
        network = "heads" if given.weights else f"{given.model}, {given.size} x {given.size}"
        case = f"{fault}: {Path(given.folder).name}, {network}"
        rows = table(aps, shares, fault, (given.rate,))
        print_table(f"{case}, {given.epochs} epochs, seeds {given.seeds}; {facts}", rows, None)


def write_damaged(whole: Path, folder: Path, fault: str, seed: int) -> np.ndarray:
    """Write an MLClsDataset with faulty training labels; return the images per label.

    It has links to the images of `whole`, and its labels and validation list.
    """
    for name in ("images", "label.txt", "val.txt"):
        (folder / name).symlink_to((whole / name).resolve())
    lines = (whole / "train.txt").read_text(encoding="utf-8").splitlines()
    names, values = zip(*(line.split("\t") for line in lines), strict=True)
    targets = np.array([row.split(",") for row in values], np.int8)
    kept, targets = damaged(targets, fault, np.random.default_rng(seed))
    written = (
        f"{names[i]}\t{','.join(map(str, row))}\n"
        for i, row in zip(kept.tolist(), targets.tolist(), strict=True)
    )
    (folder / "train.txt").write_text("".join(written), encoding="utf-8")
    return (targets >= 1).sum(0)


def train(given: argparse.Namespace, folder: Path, seed: int, flags: tuple[str, ...]) -> np.ndarray:
    """Train on the data in `folder`; return the average precision [K] of the best weights.

    Raises:
      CalledProcessError: the run failed; what it said is on standard error.
    """
    own = {"folder": str(folder), "weights": "none"}
    config = config_of(argparse.Namespace(**vars(given) | own), seed)
    words = [f"--config.{flag}" for flag in flags]
    with tempfile.TemporaryDirectory() as place:
        if given.weights:
            workdir, features = Path(place) / "run", folder / FEATURES
            features.mkdir(exist_ok=True)  # of all ways
            workdir.mkdir()
            (workdir / FEATURES).symlink_to(features)
            plan = {
                "train.epochs": given.epochs,
                "train.batch_size": given.batch,
                "optimizer.learning_rate": given.rate,
            }
            words += [f"--config.{key}={value}" for key, value in plan.items()]
            trained(workdir, [*flags_of(folder, folder, given.weights), *words], seed)
        else:
            workdir = run(OURS, config, words, Path(place))
        outputs = run_bundle(config, workdir, thresholds=False)
    return average_precision(outputs.logits, outputs.targets)


if __name__ == "__main__":
    main()
