"""What `mlcls learning_curve` says of twice as many images, and what as many really give.

python -m benchmarks.learning_curve RUN --data FOLDER [--seeds 0 1 2]

RUN is a run whose frozen backbone gives the features, FOLDER an MLClsDataset. Of half of its
training images, drawn so that every label keeps its share, a curve is measured, which says what AP
each label would have with twice as many. What it has with all of them is known. Only labels of
which the curve says something count. `now` is the mean AP of heads on the half, `expected` and
`real` those of all images; `error` the mean distance between the two, label by label, and `if no
gain` the same if no gain were expected; `order` the rank correlation of expected and real gains.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.curation import read_list, write_list
from benchmarks.timing import print_table
from mlcls_jax.curation.curve import measure, needs
from mlcls_jax.curation.judge import fold_numbers
from mlcls_jax.curation.subject import find_subject


def main() -> None:
    """Print a row per seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    whole = measure(find_subject(given.run, str(given.data)))
    real = dict(zip(whole.labels, whole.precision[-1, 0], strict=True))
    rows = []
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as folder:
            write_half(given.data, Path(folder), seed)
            found = needs(measure(find_subject(given.run, folder), seed=seed))
        told = [need for need in found if np.isfinite(need.doubled)]
        now, expected = (
            np.array([getattr(need, key) for need in told]) for key in ("now", "doubled")
        )
        truth = np.array([real[need.label] for need in told])
        rows.append({
            "seed": seed, "labels": f"{len(told)} of {len(found)}", "now": f"{now.mean():.4f}",
            "expected": f"{expected.mean():.4f}", "real": f"{truth.mean():.4f}",
            "error": f"{np.abs(expected - truth).mean():.4f}",
            "if no gain": f"{np.abs(now - truth).mean():.4f}",
            "order": f"{rank_correlation(expected - now, truth - now):.2f}",
        })  # fmt: skip
        print(rows[-1], flush=True)
    print_table(f"{given.data.name}, half of {round(whole.images[-1])} images", rows, None)


def write_half(whole: Path, folder: Path, seed: int) -> None:
    """Write an MLClsDataset with half of the training images."""
    for name in ("images", "label.txt", "val.txt"):
        (folder / name).symlink_to((whole / name).resolve())
    images, targets = read_list(whole / "train.txt")
    half = np.flatnonzero(fold_numbers(targets, 2, seed) == 0)
    write_list(folder / "train.txt", [images[i] for i in half], targets[half])


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of values without ties."""
    first, second = (np.argsort(np.argsort(values)) for values in (one, other))
    return np.corrcoef(first, second)[0, 1].item()


if __name__ == "__main__":
    main()
