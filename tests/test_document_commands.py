"""The commands in `sh` blocks of the documents run in one folder of small data.

They run as they stand, but for options appended that make networks and images small.
"""

import csv
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.commands import REPOSITORY, forked
from tests.helpers.documents import blocks
from tests.helpers.photos import cells, write_image, write_photos

DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PROGRAM = re.compile(r"^(?:python -m mlcls_jax\.main|mlcls) ")
# Not run: what needs a network, published weights or data, a browser, minutes, or ends when told.
LEFT = re.compile(
    r"^mlcls push |hf://| serve | --serve |^mlcls studio | --weights | plan |^mlcls from_words "
    r"| --pipeline "
)
# What is appended to commands that have this part.
SMALLER = {
    " train photos": "--model Toy_ML --weights none --image_size 32 --epochs 1",
    " tune photos": "--model Toy_ML --weights none --image_size 32 --epochs 1 --trials 1",
    " --config=": "--config.model.name=Toy_ML --config.model.weights=none"
    " --config.model.image_size=32 --config.train.epochs=1 --config.train.batch_size=4"
    " --config.evaluate.batch_size=4 --config.data.epoch_size=8 --config.data.val_size=8",
    # Its recipe sets an option that the network of tests lacks.
    " --workdir=runs/demo": "--config.model.name=PP-LCNet_x0_25_ML",
}
NEW = re.compile(r"--workdir=(runs/(?:mine|check|voc))\b")  # several begin there; each does anew


def commands() -> Iterator[str]:
    """Yield each command once, in the order of the documents."""
    lines = [
        line
        for path in DOCUMENTS
        for block in blocks(path)
        if block.language == "sh"
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    yield from (line for line in dict.fromkeys(lines) if PROGRAM.match(line))


@pytest.mark.slow
def test_the_commands_of_the_documents_run(tmp_path):
    """In the order of the documents, in which later ones find what earlier ones made."""
    write_what_readers_have(tmp_path)
    for line in commands():
        if LEFT.search(line):
            continue
        if line == "mlcls audit runs/photos-1 --apply confirmed.csv":
            confirm(tmp_path / "runs/photos-1/audit/audit.csv", tmp_path / "confirmed.csv")
        if workdir := NEW.search(line):
            shutil.rmtree(tmp_path / workdir[1], ignore_errors=True)
        smaller = [more for part, more in SMALLER.items() if part in line]
        words = shlex.split(" ".join([PROGRAM.sub("", line), *smaller]), comments=True)
        done = forked("mlcls", *words, cwd=tmp_path, toy=True, HF_HUB_OFFLINE="1")
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        if line == "mlcls train photos":
            for number in (2, 3):
                shutil.copytree(tmp_path / "runs/photos-1", tmp_path / f"runs/photos-{number}")


def write_what_readers_have(folder: Path) -> None:
    """Write the data sets and images that the documents name."""
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    for name, count in (("photos", 3), ("dataset", 3), ("voc", 20)):
        labels = [f"label {k}" for k in range(count)]
        write_photos(folder / name, train=24, val=12, labels=labels)
        for number in range(12):  # instead of copies of training images
            write_image(folder / name / f"images/val_{number}.png", 100 + number)
    for number in range(4):
        write_image(folder / f"unlabelled/{number}.png", 200 + number)
    cells(0, (40, 50)).save(folder / "photo.jpg")


def confirm(audit: Path, confirmed: Path) -> None:
    """Write the list of an audit as one who says that its first finding is right."""
    with audit.open(newline="") as file:
        rows = [*csv.DictReader(file)]
    rows[0]["confirmed"] = "1"
    with confirmed.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
