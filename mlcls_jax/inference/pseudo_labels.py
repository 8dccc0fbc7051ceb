"""Labels of images that nobody labelled, by towers of images and texts, and how far to trust them.

Each label is asked for in several ways. What all of them together say becomes the target; where
they do not say it clearly, it is left open, -1.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mlcls_jax import files
from mlcls_jax.bars import progress
from mlcls_jax.errors import InputError
from mlcls_jax.inference.bundle import write_bundle
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.inference.words import Words

WAYS = ("a photo of {}.", "{}", "a picture that shows {}.")
BATCH = 32  # images that are computed together
TEACHER, LABELS, TRUST = "teacher", "labels", "words.json"
# Below these a label is not trusted. They are judgements, not measured.
POSITIVES, AGREEMENT, CONFIDENCE = 20, 0.5, 0.7


@dataclass(frozen=True)
class Trust:
    """What there is to say of a label's pseudo labels."""

    label: str
    positives: int  # images that have it
    open: int  # images left open
    confidence: float  # mean score of the positives
    agreement: float  # of images that some way finds, the share that all ways find

    @property
    def doubts(self) -> tuple[str, ...]:
        """The reasons not to trust the label; none: it can be trusted."""
        told = {
            "few images": self.positives < POSITIVES,
            "the ways to ask disagree": self.agreement < AGREEMENT,
            "low scores": self.confidence < CONFIDENCE,
        }
        return tuple(reason for reason, holds in told.items() if holds)


def scores(
    words: Words, labels: Sequence[str], images: Sequence[Path]
) -> Float[np.ndarray, "ways N K"]:
    """Return the scores of images, for each way to ask for the labels.

    Raises:
      DataError: an image cannot be read.
    """
    eyes = Predictor(words.bundle(()), batch_size=BATCH)
    starts = range(0, len(images), BATCH)
    parts = [
        eyes.embed(list(images[start : start + BATCH]))
        for start in progress(starts, desc="images", unit="batch")
    ]
    features = jnp.asarray(np.concatenate(parts))[:, None, None]  # [N, 1, 1, C]
    found = []
    for way in WAYS:
        bundle = words.bundle(labels, templates=(way,))
        head = bundle.model.network.module(bundle.model.variables).head
        found.append(np.asarray(jax.nn.sigmoid(head(features))))
    return np.stack(found)


def judge(
    found: Float[np.ndarray, "ways N K"],
    labels: Sequence[str],
    *,
    margin: float,
    threshold: float = 0.5,
) -> tuple[Int[np.ndarray, "N K"], list[Trust]]:
    """Return targets, -1 where the mean is nearer to `threshold` than `margin`, and the trust."""
    mean = found.mean(0)
    target = np.where(mean >= threshold + margin, 1, np.where(mean <= threshold - margin, 0, -1))
    some, every = (found >= threshold).any(0).sum(0), (found >= threshold).all(0).sum(0)
    trust = []
    for index, label in enumerate(labels):
        has = target[:, index] == 1
        trust.append(
            Trust(
                label=label,
                positives=int(has.sum()),
                open=int((target[:, index] == -1).sum()),
                confidence=float(mean[has, index].mean()) if has.any() else 0.0,
                agreement=float(every[index] / some[index]) if some[index] else 0.0,
            )
        )
    return target, trust


def write(
    folder: Path,
    root: Path,
    images: Sequence[Path],
    target: Int[np.ndarray, "N K"],
    trust: Sequence[Trust],
) -> None:
    """Write an MLClsDataset in `folder/labels`, whose images stay in `root`, and the trust.

    Raises:
      InputError: there is no label that an image has.
    """
    if not (target == 1).any():
        raise InputError(
            "no image has any of the words, as far as the teacher can tell",
            "Choose other words, or a lower --threshold or --margin.",
        )
    data = folder / LABELS
    data.mkdir(parents=True)
    (data / "images").symlink_to(root.resolve(), target_is_directory=True)
    names = "".join(f"{index} {one.label}\n" for index, one in enumerate(trust))
    files.write_text(data / "label.txt", names)
    rows = (
        f"images/{path.relative_to(root).as_posix()}\t{','.join(map(str, row))}\n"
        for path, row in zip(images, target.tolist(), strict=True)
        if not set("\t\r\n") & set(os.fspath(path))  # no list can hold their names
    )
    files.write_text(data / "train.txt", "".join(rows))
    told = [{**asdict(one), "doubts": one.doubts} for one in trust]
    files.write_json(folder / TRUST, told)


def write_teacher(folder: Path, words: Words, labels: Sequence[str], *, task: str) -> None:
    """Write the bundle of these labels, from whose scores a student learns."""
    bundle = words.bundle(labels, templates=WAYS, task=task)
    write_bundle(
        folder / TEACHER,
        bundle.model.network.config,
        bundle.model.variables,
        labels=bundle.labels,
        threshold=0.5,
        facts=bundle.facts,
        frame=bundle.frame,
    )
