"""Losses on labels with faults made on purpose: mAP of heads on the embeddings of a network.

python -m benchmarks.labels MODEL [--data FOLDER] [--faults half single missing tail none]
    [--ways NAME ...] [--seeds 0 1 2] [--rates 0.003 0.01 0.03 0.1 0.3] [--images 2000]
    [--json FILE]

MODEL is a run, a bundle or a published model, as for `mlcls audit`; its embeddings of the training
images are computed once and kept. FOLDER is an MLClsDataset; without it the data of the run is
taken, of the digits demo the first `--images` boards. The faults are made in the training labels
alone; mAP is of the untouched validation labels.

Only linear heads are trained, so that a table takes minutes. What a loss does to a backbone is not
seen, and class weights would do nothing: steps of each label's column are in units of its own
gradients, as Adam's, but one unit for the whole column. Adam's own, one a weight, would make as
much of components that hardly vary as of those that tell images apart: heads then learn images by
heart.

`half`: half of the labels that are present, and half of those that are absent, are not annotated.
`missing`: half of the labels that are present are listed as absent.
`single`: of each image one label is annotated, which is present.
`tail`: images are left out until the number of images per label falls by a factor of 50 from the
most frequent label to the rarest; `head` and `tail` are the mAP of a third of the labels each.
`none`: the labels as they are.

Each way to train is shown at the best of the learning rates, which is chosen by mean mAP on the
same validation images, for all ways alike. `±` is the standard deviation between seeds, `more` the
mean difference to the first row, seed by seed, and its standard deviation. What `loss.name=auto`
would choose is not among them: it goes by the head that a run trains.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.timing import describe, print_table
from mlcls_jax.config import Loss
from mlcls_jax.curation.features import embed
from mlcls_jax.curation.heads import principal
from mlcls_jax.curation.subject import find_subject
from mlcls_jax.metrics import average_precision
from mlcls_jax.training.loss import LabelCounts, LossFunction, make_loss

RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
STEPS = 200
FALL = 50  # from the most frequent label to the rarest, of `tail`
BCE = {"name": "multilabel"}


class Way(NamedTuple):
    """How to train: a loss, what a label of -1 means, and rows that count more."""

    loss: dict[str, Any]
    unknown: str = "ignore"
    repeat_below: float = 0.0


PARTIAL = {
    "BCE, ignore": Way(BCE),
    "BCE, negative": Way(BCE, "negative"),
    "asymmetric, ignore": Way({}),
    "asymmetric, negative": Way({}, "negative"),
    "asymmetric, selective": Way({}, "selective"),
    "gamma_neg=1, selective": Way({"gamma_neg": 1.0}, "selective"),
    "focal, negative": Way({"name": "focal"}, "negative"),
    "hill, negative": Way({"name": "hill"}, "negative"),
    "entropy": Way({"name": "entropy"}),
    "two_way, ignore": Way({"name": "two_way"}),
    "two_way, negative": Way({"name": "two_way"}, "negative"),
    "overlap, negative": Way({"name": "overlap"}, "negative"),
}
WHOLE = {
    "BCE": Way(BCE),
    "asymmetric": Way({}),
    "asymmetric, gamma_neg=1": Way({"gamma_neg": 1.0}),
    "asymmetric, gamma_neg=2": Way({"gamma_neg": 2.0}),
    "asymmetric, clip=0": Way({"clip": 0.0}),
    "asymmetric, repeat_below=0.1": Way({}, repeat_below=0.1),
    "focal": Way({"name": "focal"}),
    "angular": Way({"name": "angular"}),
    "distribution_balanced": Way({"name": "distribution_balanced"}),
    "hill": Way({"name": "hill"}),
    "two_way": Way({"name": "two_way"}),
    "overlap": Way({"name": "overlap"}),
}
WAYS = {"half": PARTIAL, "single": PARTIAL, "missing": WHOLE, "tail": WHOLE, "none": WHOLE}


def main() -> None:
    """Print a table per fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--data", help="MLClsDataset; default: that of the run")
    parser.add_argument("--faults", nargs="+", default=[*WAYS], choices=[*WAYS])
    parser.add_argument("--ways", nargs="+", help="rows of the tables; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--images", type=int, default=2000, help="of the digits, to train on")
    parser.add_argument("--json", help="file for AP per label of every head")
    given = parser.parse_args()
    subject = find_subject(given.model, given.data)
    predictor, count = subject.predictor(None), given.images
    count = None if subject.count() is None else count
    train = embed(predictor, subject.source("train"), count)
    held = embed(predictor, subject.source("validation"), count)
    space = principal(train.vectors)
    facts = describe("jax", "optax")
    found: dict[str, Any] = {}
    for fault in given.faults:
        ways = {n: way for n, way in WAYS[fault].items() if not given.ways or n in given.ways}
        aps = {name: [] for name in ways}  # each [seeds] of [rates, K]
        shares = []
        for seed in given.seeds:
            kept, targets = damaged(train.targets, fault, np.random.default_rng(seed))
            shares.append((targets >= 1).sum(0))
            points = space(train.vectors[kept])
            for name, way in ways.items():
                logits = fitted(way, points, targets, space(held.vectors), given.rates)
                aps[name].append(np.stack([average_precision(x, held.targets) for x in logits]))
                print(fault, seed, name, np.nanmean(aps[name][-1], 1).round(4), file=sys.stderr)
        name = Path(subject.data.dir or subject.data.source).name
        case = f"{fault}: {name}, {len(points)} images to train on"
        print_table(
            f"{case}, seeds {given.seeds}; {facts}", table(aps, shares, fault, given.rates), None
        )
        found[fault] = {name: np.array(values).tolist() for name, values in aps.items()}
        if given.json:
            Path(given.json).write_text(json.dumps(found) + "\n", encoding="utf-8")


def damaged(
    targets: np.ndarray, fault: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return which images are kept, and their targets with the fault made in them."""
    kept, made = np.arange(len(targets)), targets.copy()
    if fault == "half":
        made[rng.random(made.shape) < 0.5] = -1
    elif fault == "missing":
        made[(made >= 1) & (rng.random(made.shape) < 0.5)] = 0
    elif fault == "single":
        # An image without a label keeps none.
        one = np.where(made >= 1, rng.random(made.shape), 0).argmax(1)
        made = np.full_like(made, -1)
        rows = np.flatnonzero((targets >= 1).any(1))
        made[rows, one[rows]] = 1
    elif fault == "tail":
        images = (made >= 1).sum(0)
        order = np.argsort(-images)
        allowed = images.max() * FALL ** -np.linspace(0, 1, len(order))  # by place in the order
        left = np.ones(len(made), bool)
        for label, most in zip(order[::-1], allowed[::-1], strict=True):  # the rarest first
            mine = np.flatnonzero(left & (made[:, label] >= 1))
            surplus = len(mine) - max(round(most), 1)
            left[rng.permutation(mine)[: max(surplus, 0)]] = False
        kept = np.flatnonzero(left)
    return kept, made[kept]


def fitted(
    way: Way,
    points: np.ndarray,
    targets: np.ndarray,
    held: np.ndarray,
    rates: Sequence[float],
) -> np.ndarray:
    """Return the logits [rates, n, K] of heads for the points `held`, one head per rate."""
    counts = LabelCounts((targets >= 1).sum(0), (targets >= 0).sum(0), len(targets))
    loss = make_loss(Loss(**way.loss), unknown=way.unknown, counts=counts)
    rows = np.ones(len(points), np.float32)
    if way.repeat_below:
        asked = np.maximum(1, np.sqrt(way.repeat_below * len(points) / np.maximum(counts[0], 1)))
        rows = np.where(targets >= 1, asked, 1).max(1).astype(np.float32)
    shares = (counts.positives + 0.5) / (len(points) + 1)
    bias = jnp.float32(np.log(shares / (1 - shares)))
    descend = jax.jit(jax.vmap(partial(_descend, loss), in_axes=(0, None, None, None, None)))
    weights, bias = descend(jnp.array(rates), bias, points, targets, rows)
    return np.einsum("nd,rdk->rnk", held, weights) + np.asarray(bias)[:, None]


def _descend(
    loss: LossFunction,
    rate: jax.Array,
    bias: jax.Array,  # [K], to begin with
    points: jax.Array,  # [N, D]
    targets: jax.Array,  # [N, K]
    rows: jax.Array,  # [N], how much each counts
) -> tuple[jax.Array, jax.Array]:
    rates = optax.cosine_decay_schedule(1.0, STEPS)
    optimizer = optax.chain(by_label(), optax.scale_by_learning_rate(rates))

    def cost(head: tuple[jax.Array, jax.Array]) -> jax.Array:
        return loss(points @ head[0] + head[1], targets, mask=rows)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        head, state = carry
        updates, state = optimizer.update(jax.grad(cost)(head), state)
        return (jax.tree.map(lambda w, u: w + rate * u, head, updates), state), None

    head = jnp.zeros((points.shape[1], targets.shape[1])), bias
    (head, _), _ = jax.lax.scan(step, (head, optimizer.init(head)), None, STEPS)
    return head


def by_label() -> optax.GradientTransformation:
    """Adam with one mean square for all weights [D, K] of a label, and one for its bias [K]."""
    keep, keep_square = 0.9, 0.999

    def init(head: Any) -> tuple[Any, Any, jax.Array]:
        squares = jax.tree.map(lambda w: jnp.zeros(w.shape[-1]), head)
        return jax.tree.map(jnp.zeros_like, head), squares, jnp.zeros(())

    def update(gradient: Any, state: tuple, head: Any = None) -> tuple[Any, tuple]:
        del head
        means, squares, count = state
        count = count + 1
        means = jax.tree.map(lambda m, g: keep * m + (1 - keep) * g, means, gradient)
        squares = jax.tree.map(
            lambda s, g: keep_square * s + (1 - keep_square) * jnp.mean(jnp.atleast_2d(g**2), 0),
            squares,
            gradient,
        )
        steps = jax.tree.map(
            lambda m, s: m / (1 - keep**count) / (jnp.sqrt(s / (1 - keep_square**count)) + 1e-8),
            means,
            squares,
        )
        return steps, (means, squares, count)

    return optax.GradientTransformation(init, update)


def table(
    aps: dict[str, list[np.ndarray]],  # [seeds] of [rates, K] per way
    images: list[np.ndarray],  # [seeds] of [K]
    fault: str,
    rates: Sequence[float] = RATES,
) -> list[dict[str, object]]:
    """Return a row per way: mean mAP at its best rate, and the difference to the first way."""
    rows: list[dict[str, object]] = []
    order = np.argsort(-np.mean(images, 0))
    third = len(order) // 3
    first: np.ndarray | None = None
    for name, values in aps.items():
        found = np.stack(values)  # [seeds, rates, K]
        best = int(np.nanmean(found, (0, 2)).argmax())
        mine = found[:, best]  # [seeds, K]
        maps = np.nanmean(mine, 1)
        first = maps if first is None else first
        more = maps - first
        row: dict[str, object] = {"way": name, "mAP": _spread(maps), "more": _spread(more, "+")}
        if fault == "tail":
            row["head"] = _spread(np.nanmean(mine[:, order[:third]], 1))
            row["tail"] = _spread(np.nanmean(mine[:, order[-third:]], 1))
        rows.append(row | {"rate": rates[best]})
    return rows


def _spread(values: np.ndarray, sign: str = "") -> str:
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    return f"{values.mean():{sign}.4f} ± {spread:.4f}"


if __name__ == "__main__":
    main()
