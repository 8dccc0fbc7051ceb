"""MultiLabelMAP of 40,000 images and 80 classes: ours against scikit-learn.

python -m benchmarks.metrics [--images N] [--classes K] [--json FILE]
"""

import argparse

import numpy as np
from sklearn.metrics import average_precision_score

from benchmarks.timing import print_table, rows_of, take_turns
from mlcls_jax.metrics import mean_average_precision


def main() -> None:
    """Time both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    scores = rng.random((arguments.images, arguments.classes), np.float32)
    targets = (rng.random(scores.shape) < 0.04).astype(np.float32)
    values: dict[str, float] = {}

    def ours() -> None:
        values["ours"] = mean_average_precision(scores, targets)

    def peer() -> None:
        values["peer"] = average_precision_score(targets, scores, average="macro")

    times = take_turns({"mlcls_jax": ours, "scikit-learn": peer}, rounds=3)
    np.testing.assert_allclose(values["ours"], values["peer"], rtol=1e-9)
    case = f"{arguments.images} x {arguments.classes}"
    print_table("MultiLabelMAP", rows_of(case, times, peer="scikit-learn"), arguments.json)


if __name__ == "__main__":
    main()
