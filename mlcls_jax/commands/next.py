"""`mlcls next RUN --data FOLDER`: unlabelled images in the order in which to label them."""

import csv
import io
import shlex
from dataclasses import dataclass
from pathlib import Path

from mlcls_jax import files, usage
from mlcls_jax.config import REQUIRED, add_arguments, from_arguments, option
from mlcls_jax.start import start_jax

COLUMNS = ("rank", "image", "unsure", "labels")
LIST = "next.csv"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments."""

    model: str = option(
        REQUIRED, "folder of a run or bundle, or name of a published model, whose network compares"
        " images", positional=True, metavar="MODEL",
    )  # fmt: skip
    data: str = option(REQUIRED, "folder of images without labels", path="local")
    labelled: str | None = option(
        None, "MLClsDataset or packed data with labels to learn from; None: the data of the run"
    )
    count: int = option(200, "images to name", min=1)
    output: str | None = option(
        None, f"CSV to write; None: {LIST} in the run, or in runs/DATA", path="local"
    )
    device: str | None = option(None, "cpu, gpu:0 or tpu; None: the first that JAX finds")


def run(argv: list[str]) -> str:
    """Rank the images, write the list, and return a summary.

    Raises:
      UserError: the model, the data, the folder or the output cannot be used.
      SystemExit: argparse refuses the arguments, or has shown their help.
    """
    parser = usage.parser(
        "next",
        "Say which unlabelled images to label next: those that linear heads on what a run's network"
        " makes of images are unsure of, rare labels first, and no two that are alike.",
        "next runs/photos-1 --data unlabelled",
    )
    add_arguments(parser, Arguments)
    args = from_arguments(Arguments, parser.parse_args(argv))
    start_jax(cache=True)
    from mlcls_jax.curation.subject import find_subject
    from mlcls_jax.curation.teach import lessons

    subject = find_subject(args.model, args.labelled)
    found = lessons(subject, Path(args.data), args.count, device=args.device)
    names = subject.source("train").labels
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for rank, one in enumerate(found, 1):
        labels = "; ".join(f"{names[k]} {one.scores[k]:.2f}" for k in one.labels)
        writer.writerow([rank, one.image, f"{one.unsure:.3f}", labels])
    path = Path(args.output) if args.output else subject.folder / LIST
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, text.getvalue())
    return "\n".join(
        [
            f"{len(found):,} images to label next, the first of them:",
            *(f"  {one.image}: {', '.join(names[k] for k in one.labels)}?" for one in found[:5]),
            f"  list  {path}",
            "Next: label them, add them to the training list, and train again:",
            f"  {usage.program()} train {shlex.quote(subject.data.folder)}"
            if subject.data.dir
            else f"  {usage.program()} train DATA",
        ]
    )
