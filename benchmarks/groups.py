"""Groups of labels: mAP by level and contradicting answers, with and without them.

python -m benchmarks.groups FOLDER --label_file=NAME [--model PP-LCNet_x0_5] [--size 96]
    [--epochs 15] [--seeds 0 1 2] [--rate 1e-3] [--batch 32] [--forms names parents groups]
    [--losses asymmetric multilabel] [--json FILE] [--work FOLDER] [--weights FILE]

FOLDER has MLClsDataset form, and NAME is a label file in it with the columns parent= and group=.
Each form reads a part of them: `names` none, `parents` the first, `groups` both; all see the same
targets, closed by the parents. Runs start from random weights and differ in nothing else. With
`--weights` they start from those of the backbone, which stays as it is. The mAP of a level is the
mean over the labels with so many ancestors. Answers are judged at 0.5, and at thresholds chosen on
the same images by mode=thresholds.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import describe, print_table
from mlcls_jax import config as schema
from mlcls_jax.data.sources import open_split
from mlcls_jax.evaluation import to_scores
from mlcls_jax.groups import NO_GROUPS, Groups, inconsistent
from mlcls_jax.inference.threshold_fit import choose
from mlcls_jax.metrics import average_precision
from mlcls_jax.modes.evaluate import run_bundle
from mlcls_jax.modes.train import train

FORMS = {"names": (), "parents": ("parent",), "groups": ("parent", "group")}


def main() -> None:
    """Train every form with every loss and seed, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--label_file", required=True)
    parser.add_argument("--model", default="PP-LCNet_x0_5")
    parser.add_argument("--size", type=int, default=96, help="side of the images")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--forms", nargs="+", default=[*FORMS], choices=[*FORMS])
    parser.add_argument("--losses", nargs="+", default=["asymmetric", "multilabel"])
    parser.add_argument("--json", help="file for the rows of every run")
    parser.add_argument("--weights", help="of the backbone, which is not trained then")
    parser.add_argument("--work", help="folder for the runs, which go on where they stopped")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for form in arguments.forms:
            # Where all labels exclude others there is nothing left for another loss.
            for loss in arguments.losses[: 1 if form == "groups" else None]:
                rows.append({"form": form, "loss": loss, "seed": seed})
                rows[-1] |= run(arguments, form, loss, seed)
                print(rows[-1], file=sys.stderr, flush=True)
                if arguments.json:
                    text = json.dumps(rows, indent=2) + "\n"
                    Path(arguments.json).write_text(text, encoding="utf-8")
    case = f"{arguments.model}, {arguments.size} x {arguments.size}, {arguments.epochs} epochs"
    print_table(f"{case}, seeds {arguments.seeds}; {describe('jax', 'flax')}", summary(rows), None)


def run(arguments: argparse.Namespace, form: str, loss: str, seed: int) -> dict[str, float]:
    """Train once, and return what is told of the run."""
    data = schema.Data(
        dir=str(Path(arguments.folder).resolve()),
        label_file=arguments.label_file,
        augment=("flip",),
    )
    whole = open_split(data, "validation")
    if arguments.weights:
        data = dataclasses.replace(data, feature_views=2)
    groups: Groups = getattr(whole, "groups", NO_GROUPS)
    kept = FORMS[form]
    model = schema.Model(
        name=arguments.model,
        weights=arguments.weights or "none",
        image_size=(arguments.size, arguments.size),
        # A form without a part says so by numbers of its own, which come before the label file's.
        parents=groups.parents if "parent" in kept else (-1,) * len(whole.labels),
        exclusive=groups.exclusive if "group" in kept else (-1,) * len(whole.labels),
    )
    config = schema.Config(
        seed=seed,
        model=model,
        data=data,
        loss=schema.Loss(name=loss),
        optimizer=schema.Optimizer(learning_rate=arguments.rate, warmup_epochs=1.0),
        train=schema.Train(
            epochs=arguments.epochs,
            batch_size=arguments.batch,
            ema_decay=0.99,
            frozen_backbone=bool(arguments.weights),
            save_epochs=arguments.epochs,
        ),
        log=schema.Log(tensorboard=False, pictures=0),
    )
    with tempfile.TemporaryDirectory() as scratch:
        workdir = Path(arguments.work or scratch) / f"{form}-{loss}-{seed}"
        workdir.mkdir(parents=True, exist_ok=True)
        train(config, workdir)
        outputs = run_bundle(config, workdir, thresholds=True)
    own = outputs.bundle.model.network.groups
    precision = average_precision(outputs.logits, outputs.targets)
    depth = np.array([sum(1 for _ in groups.ancestors(k)) for k in range(len(whole.labels))])
    found = {f"level {d + 1}": float(precision[depth == d].mean()) for d in np.unique(depth)}
    plain = to_scores(outputs.logits, "multilabel") > 0.5
    chosen = choose(outputs.logits, outputs.targets, schema.Thresholds(), own)
    for name, answers in {
        "0.5": plain,
        "chosen": chosen.scores > chosen.choice.thresholds,
    }.items():
        found[f"wrong {name}"] = float(inconsistent(answers, groups).mean())
        hits = (answers & (outputs.targets == 1)).sum()
        found[f"OF1 {name}"] = float(2 * hits / (answers.sum() + (outputs.targets == 1).sum()))
    return {"mAP": float(precision.mean()), **found}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each form and loss: means over the seeds, and their standard deviation."""
    table = []
    for form, loss in dict.fromkeys((row["form"], row["loss"]) for row in rows):
        mine = [row for row in rows if (row["form"], row["loss"]) == (form, loss)]
        line: dict[str, Any] = {"form": form, "loss": loss}
        for key in mine[0].keys() - {"form", "loss", "seed"}:
            values = [100 * row[key] for row in mine]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            line[key] = f"{statistics.mean(values):.1f} ± {spread:.1f}"
        table.append({key: line[key] for key in (*("form", "loss"), *mine[0]) if key in line})
    return table


if __name__ == "__main__":
    main()
