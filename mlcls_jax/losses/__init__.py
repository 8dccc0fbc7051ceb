"""Losses on logits, each a pure function.

All losses compute in float32 or wider. `asymmetric_loss`, `multilabel_loss` and `cross_entropy`
match the values of PaddleClas (`ppcls/loss/`).

A target below 0 marks a missing label: the entry contributes neither to the value nor to the
gradient, and means are taken over the annotated entries; `entropy_loss` alone has a cost for it,
and `count_unknown` can take it for a negative. The softmax needs the whole row, so `cross_entropy`
leaves out rows with missing labels.

All losses take `mask` [B], bool or float. False or 0 marks a padding row: whatever it holds, NaN
included, contributes neither to the value nor to the gradient, and means are taken over the other
rows. Other floats are per-row weights. When every row is padding the loss is 0.

Losses that sum entries also take `class_weights` [K], factors of the entries of each class, and
`positive_weight`, a number or [K], a further factor of positives. Means are not divided by them.
"""

from collections.abc import Callable

from jaxtyping import Array

from mlcls_jax.losses.asymmetric import angular_loss, asymmetric_loss
from mlcls_jax.losses.class_weights import CLASS_WEIGHTS, weights_of_classes
from mlcls_jax.losses.cross_entropy import cross_entropy, multilabel_loss
from mlcls_jax.losses.entries import REDUCTIONS
from mlcls_jax.losses.exclusive import exclusive_loss
from mlcls_jax.losses.focal import distribution_balanced_loss, focal_loss
from mlcls_jax.losses.missing import UNKNOWN, count_unknown, entropy_loss, hill_loss
from mlcls_jax.losses.overlap import overlap_loss
from mlcls_jax.losses.ranks import two_way_loss

__all__ = [
    "CLASS_WEIGHTS",
    "LOSSES",
    "REDUCTIONS",
    "UNKNOWN",
    "angular_loss",
    "asymmetric_loss",
    "count_unknown",
    "cross_entropy",
    "distribution_balanced_loss",
    "entropy_loss",
    "exclusive_loss",
    "focal_loss",
    "hill_loss",
    "multilabel_loss",
    "overlap_loss",
    "two_way_loss",
    "weights_of_classes",
]

LOSSES: dict[str, Callable[..., Array]] = {  # loss.name → function
    "asymmetric": asymmetric_loss,
    "multilabel": multilabel_loss,
    "cross_entropy": cross_entropy,
    "focal": focal_loss,
    "angular": angular_loss,
    "two_way": two_way_loss,
    "hill": hill_loss,
    "distribution_balanced": distribution_balanced_loss,
    "entropy": entropy_loss,
    "overlap": overlap_loss,
}
