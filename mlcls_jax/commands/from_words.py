"""`mlcls from_words PHOTOS WORDS`: a small fast model from images without labels and words."""

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlcls_jax import usage
from mlcls_jax.commands.train import carry_out, config_flags, look
from mlcls_jax.config import REQUIRED, option
from mlcls_jax.errors import InputError
from mlcls_jax.paths import is_url
from mlcls_jax.readable import table
from mlcls_jax.start import start_jax
from mlcls_jax.wishes import Wishes

if TYPE_CHECKING:  # imports JAX, which a help does without
    from mlcls_jax.inference.pseudo_labels import Trust


@dataclass(frozen=True, kw_only=True)
class Arguments(Wishes):
    """Train a small model for words on images without labels.

    A large one, which knows images and texts, labels them, and says of each word how far its
    labels can be trusted. What they are worth only labels of your own can tell.
    """

    photos: str = option(REQUIRED, "folder of images", positional=True, metavar="PHOTOS")
    words: str = option(
        REQUIRED, "file with one label per line, or labels separated by commas", positional=True,
        metavar="WORDS",
    )  # fmt: skip
    teacher: str = option("SigLIP_vit_base_patch16_224", "model with a text tower")
    teacher_weights: str | None = option(
        None, "folder, file or address of both its towers; None: the published ones", path="any"
    )
    threshold: float = option(
        0.5, "score of the teacher above which an image has a label", min=0.0, max=1.0
    )
    margin: float = option(
        0.1, "scores nearer to the threshold than this are left open", min=0.0, max=0.5
    )
    labels_only: bool = option(
        False, "learn from the teacher's labels only, not from its scores in every step: on CPUs it"
        " takes most of the time",
    )  # fmt: skip


def run(argv: list[str]) -> str:
    """Label the images by the teacher, train a small model, and return what came of it."""
    given, settings = config_flags(argv)
    arguments = usage.arguments(
        Arguments, given, 'from_words photos "a dog, snow" --output runs/words'
    )
    if is_url(arguments.teacher):
        told = f"--teacher={arguments.teacher}: an address does not say which model it is of"
        raise InputError(told, "Give --teacher NAME --teacher_weights ADDRESS.")
    labels = read_words(arguments.words)
    start_jax(cache=True)
    from mlcls_jax.data.image_files import list_images
    from mlcls_jax.inference import pseudo_labels
    from mlcls_jax.inference.words import open_words
    from mlcls_jax.models.texts import open_texts
    from mlcls_jax.new_run import new_folder

    root = Path(arguments.photos)
    if root.is_file():
        raise InputError(f"{root}: is a file, and a folder of images is needed")
    images = list_images(root)
    texts = open_texts(arguments.teacher_weights or arguments.teacher)
    words = open_words(arguments.teacher, texts)
    with new_folder(arguments.output, f"{root.resolve().name}-words") as folder:
        found = pseudo_labels.scores(words, labels, images)
        target, trust = pseudo_labels.judge(
            found, labels, margin=arguments.margin, threshold=arguments.threshold
        )
        pseudo_labels.write(folder, root, images, target, trust)
    teacher = folder / pseudo_labels.TEACHER
    if not arguments.labels_only:
        settings = {"distill.teacher": str(teacher), **settings}
    model = arguments.model or "PP-LCNet_x1_0_ML"
    wishes = replace(arguments, model=model, output=str(folder / "run"))
    new = look(str(folder / pseudo_labels.LABELS), wishes, settings)
    pseudo_labels.write_teacher(folder, words, labels, task=new.config.model.task)
    rows = [("word", "images", "open", "confidence", "agreement", "trust"), *map(_row, trust)]
    done = carry_out(new)
    lines = [
        "",
        f"Labels by {arguments.teacher}:",
        *table(rows),
        done,
        "",
        "The metric is agreement with the teacher's labels, not with the truth.",
        f"  labels   {folder / pseudo_labels.LABELS}, for you to correct",
        f"  trust    {folder / pseudo_labels.TRUST}",
        f"  teacher  {teacher}",
    ]
    return "\n".join(lines)


def read_words(given: str) -> list[str]:
    """Return the labels in a file, or of a text with commas.

    Raises:
      InputError: there are less than two, or one is there twice.
    """
    path = Path(given)
    if os.path.isfile(path):  # not Path.is_file, which raises for a text that is too long
        try:
            parts = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read: {error}") from error
    else:
        parts = given.split(",")
    labels = [part.strip() for part in parts if part.strip()]
    if len(labels) < 2 or len(set(labels)) < len(labels):
        told = f"{shlex.quote(given)}: two or more words are needed, none of them twice"
        raise InputError(told, 'A file with one label per line, or "a dog, snow".')
    return labels


def _row(trust: "Trust") -> tuple[str, ...]:
    numbers = (f"{trust.confidence:.2f}", f"{trust.agreement:.2f}")
    doubts = ", ".join(trust.doubts)
    verdict = f"no: {doubts}" if doubts else "yes"
    return (trust.label, f"{trust.positives:,}", f"{trust.open:,}", *numbers, verdict)
