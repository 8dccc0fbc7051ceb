"""Whether a guaranteed recall holds on new images, and what it costs in precision.

python -m benchmarks.guarantees RUN [--recall 0.95] [--confidence 0.9] [--draws 200]
    [--chosen-on 1000] [--images 5000] [--resampled]

RUN is a run's folder. Its best model scores the validation images once; each draw then chooses
thresholds on some of them and judges these on the rest, as many times as there are labels. `held`
is the share of pairs of label and draw whose recall on the rest is at least the wanted one; the
rest being a sample itself, a threshold that just holds is found short half of the time. With
`--resampled` images are drawn with replacement, and all of them are the rest, which is then just
what a draw is a sample of. Pairs without a guarantee, for lack of positives, count in no row.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.timing import print_table
from mlcls_jax.config import changed
from mlcls_jax.evaluation import to_scores
from mlcls_jax.metrics import precision_recall_f1
from mlcls_jax.modes.evaluate import run_bundle
from mlcls_jax.thresholds import choose_thresholds
from mlcls_jax.yaml_config import get_config


def main() -> None:
    """Print a row per way to choose."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--confidence", type=float, default=0.9)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--chosen-on", type=int, default=1000, help="images of a draw")
    parser.add_argument("--images", type=int, default=5000, help="of digits, to validate on")
    parser.add_argument("--resampled", action="store_true")
    given = parser.parse_args()
    config = changed(get_config(str(given.run / "config.yaml")), {"data.val_size": given.images})
    outputs = run_bundle(config, given.run, thresholds=True)
    scores = to_scores(outputs.logits, "multilabel", temperature=outputs.bundle.temperature)
    rng, targets = np.random.default_rng(0), outputs.targets
    everything = np.arange(len(scores))
    orders = [rng.permutation(everything) for _ in range(given.draws)]
    divided = [(order[: given.chosen_on], order[given.chosen_on :]) for order in orders]
    if given.resampled:
        divided = [(rng.choice(everything, given.chosen_on), everything) for _ in orders]
    ways = {
        "guaranteed": {"target": given.recall, "confidence": given.confidence},
        "recall": {"target": given.recall},
        "f1": {},
    }
    rows, counted = [], np.zeros((0, 0), bool)  # [draws, K]
    for way, options in ways.items():
        objective = "f1" if way == "f1" else "recall"
        judged, promised = [], []
        for chosen, rest in divided:
            choice = choose_thresholds(
                scores[chosen], targets[chosen], objective=objective, **options
            )
            promised.append(choice.guaranteed)
            judged.append(
                precision_recall_f1(scores[rest], targets[rest], threshold=choice.thresholds)
            )
        if way == "guaranteed":
            counted = np.stack(promised)
        recall = np.stack([found["recall"] for found in judged])[counted]
        precision = np.stack([found["precision"] for found in judged])[counted]
        rows.append({
            "thresholds": way,
            "labels": f"{counted.any(0).sum()} of {counted.shape[1]}",
            "pairs": int(counted.sum()),
            "held": f"{(recall >= given.recall).mean():.3f}",
            "recall": f"{recall.mean():.3f}",
            "precision": f"{precision.mean():.3f}",
        })  # fmt: skip
    title = f"Recall {given.recall:g} with {given.confidence:.0%} confidence, {given.draws} draws"
    print_table(f"{title} of {given.chosen_on} of {len(scores)} images", rows, None)


if __name__ == "__main__":
    main()
