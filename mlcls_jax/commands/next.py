"""`mlcls next RUN --data FOLDER`: unlabelled images in the order in which to label them."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mlcls_jax import files, usage
from mlcls_jax.config import REQUIRED, option
from mlcls_jax.curation.shared_options import HINT, Asked
from mlcls_jax.errors import WorkdirError
from mlcls_jax.readable import csv_text
from mlcls_jax.workdir import open_workdir

if TYPE_CHECKING:  # imports JAX, which a help does without
    from mlcls_jax.curation.teach import Lesson

COLUMNS = ("rank", "image", "unsure", "labels")
LIST = "next.csv"


@dataclass(frozen=True, kw_only=True)
class Arguments(Asked):
    """Say which unlabelled images to label next.

    Those are named that linear heads on what a run's network makes of images are unsure of,
    rare labels first, and no two that are alike.
    """

    data: str = option(REQUIRED, "folder of images without labels", path="local")
    labelled: str | None = option(
        None, "MLClsDataset or packed data with labels to learn from; None: the data of the run"
    )
    count: int = option(200, "images to name", min=1)
    output: str | None = option(
        None, f"CSV to write; None: {LIST} in the run, or in runs/DATA", path="local"
    )
    label_studio: str | None = option(
        None, "new or empty folder for Label Studio's tasks.json, in this order and with what the"
        " heads find, and its labelling interface", path="local",
    )  # fmt: skip
    url: str | None = option(
        None, "what Label Studio finds images behind; None: its local files, below the folder that"
        " holds DATA"
    )  # fmt: skip


def run(argv: list[str]) -> str:
    """Rank the images, write the list, and return a summary."""
    args = usage.arguments(Arguments, argv, "next runs/photos-1 --data unlabelled")
    folder = Path(args.label_studio or ".none")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WorkdirError(f"{folder}: is in use", "Name a new folder for --label_studio.")
    subject = args.subject(args.labelled, flag="--labelled")
    path = Path(args.output) if args.output else subject.folder / LIST
    if path.is_dir():
        raise WorkdirError(f"{path}: is a folder, and the list a file", HINT)
    open_workdir(path.parent, HINT)
    from mlcls_jax.curation.teach import lessons

    found = lessons(subject, Path(args.data), args.count, device=args.device)
    names = subject.source("train").labels
    rows: list[tuple[object, ...]] = [COLUMNS]
    for rank, one in enumerate(found, 1):
        labels = "; ".join(f"{names[k]} {one.scores[k]:.2f}" for k in one.labels)
        rows.append((rank, one.image, f"{one.unsure:.3f}", labels))
    files.write_text(path, csv_text(rows))
    tasks = [f"  tasks {_tasks(args, found, names)}"] if args.label_studio else []
    return "\n".join(
        [
            f"{len(found):,} images to label next, the first of them:",
            *(f"  {one.image}: {', '.join(names[k] for k in one.labels)}?" for one in found[:5]),
            f"  list  {path}",
            *tasks,
            "Next: label them, add them to the training list, and train again:",
            f"  {usage.program()} train {shlex.quote(subject.data.folder)}"
            if subject.data.dir
            else f"  {usage.program()} train DATA",
        ]
    )


def _tasks(args: Arguments, found: "list[Lesson]", names: tuple[str, ...]) -> Path:
    """Write what Label Studio imports, and return its file."""
    from mlcls_jax.data.convert.label_studio import LOCAL_FILES, write_tasks
    from mlcls_jax.data.convert.labelled import Picture

    assert args.label_studio is not None
    images, folder = Path(args.data), Path(args.label_studio)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [
        Picture(
            os.path.relpath(one.image, images).replace(os.sep, "/"),
            Path(one.image),
            found={
                name: float(score)
                for name, score in zip(names, one.scores, strict=True)
                if score > 0.5
            },
        )
        for one in found
    ]
    url = args.url or f"{LOCAL_FILES}{quote(images.resolve().name)}/"
    return write_tasks(folder, names, pictures, url=url)
