"""An audit: the labels of a data set held against what a network makes of its images."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlcls_jax.curation.features import Embedded, embed
from mlcls_jax.curation.judge import FOLDS, Judgement, Suspect, judge, suspects
from mlcls_jax.curation.subject import Subject
from mlcls_jax.data.types import Source, Split


@dataclass(frozen=True)
class Audit:
    """The images and labels of a split, and which of them are doubted."""

    source: Source
    found: Embedded
    images: Sequence[str]  # [N], names of the rows as lists have them
    judged: Judgement
    suspects: Sequence[Suspect]


def audit(
    subject: Subject,
    split: Split = "train",
    *,
    folds: int = FOLDS,
    at_least: float | None = None,
    most: int = 2000,
    device: str | None = None,
) -> Audit:
    """Audit a split; see `judge` and `suspects`.

    Raises:
      UserError: the model or the data cannot be used.
    """
    source = subject.source(split)
    found = embed(subject.predictor(device), source, subject.count())
    judged = judge(found.vectors, found.targets, folds=folds)
    doubted = suspects(judged, found.vectors, found.targets, at_least=at_least, most=most)
    return Audit(source, found, subject.names(source, found.indices), judged, doubted)
