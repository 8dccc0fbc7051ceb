"""The commands in `sh` blocks of the documents run in one folder of small data.

They run as they stand, but for options appended that make networks and images small, and with what
README's `pip install .` brings: a command that needs more must name the extra, and then runs with
it. What cannot run here is listed with its reason, and its words are checked; any other command is
a failure.
"""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mlcls_jax import config as schema
from mlcls_jax import models
from mlcls_jax.inference.api import pipeline_config
from mlcls_jax.models import Network, weights
from tests.helpers import toy_backbone
from tests.helpers.commands import REPOSITORY, extras, forked
from tests.helpers.documents import blocks
from tests.helpers.hub import TOKEN, Hub
from tests.helpers.photos import cells, write_image, write_photos
from tests.helpers.tiers import need

DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PROGRAM = re.compile(r"^(?:MLCLS_API_KEY=… )?(?:python -m mlcls_jax\.main|mlcls|…) ")
RUNS = re.compile(rf"{PROGRAM.pattern}|^curl ")
EXTRA = re.compile(r"^Install it: .*pip install .*\[(\w+)\]", re.M)
SERVER = re.compile(r" serve | --serve |^mlcls studio ")  # runs until it is told to end
# What does not run here, by the beginning of its line, and why not.
NOT_HERE = {
    "python3 -m venv ": "installs from a network; tests/test_wheel.py installs the package",
    "pip ": "installs from a network; .ci/extras installs each extra",
    "docker run ": "needs Docker and a GPU",
    "… --config.data.source=tfds ": "needs prepared data; tests/data/test_tfds.py has some",
    "python -m benchmarks.": "takes an hour, from published weights",
    "mlcls train photos --model tf_efficientnet_lite0_ML ": "needs published weights",
    "mlcls from_words ": "needs published weights; tests/commands/test_from_words.py draws some",
}
# What is appended to commands that have this part.
SMALLER = {
    " train photos": "--model Toy_ML --weights none --image_size 32 --epochs 1",
    " tune photos": "--model Toy_ML --weights none --image_size 32 --epochs 1 --trials 1",
    " --config=": "--config.model.name=Toy_ML --config.model.weights=none"
    " --config.model.image_size=32 --config.train.epochs=1 --config.train.batch_size=4"
    " --config.evaluate.batch_size=4 --config.data.epoch_size=8 --config.data.val_size=8",
    # Its recipe sets an option that the network of tests lacks.
    " --workdir=runs/demo": "--config.model.name=PP-LCNet_x0_25_ML",
    " plan ": "--model Toy_ML --size 32 --no-compile",
    " --weights m.pdparams": "--model_name PP-LCNet_x0_25_ML",
    " --label_studio ": "--label_studio photos",
}
LEFT_OUT = (
    "--config=configs/lcnet.py:mlcls --workdir=runs/check --config.mode=check_dataset"
    " --config.data.dir=dataset "
)  # what … stands for
READY = re.compile("^(Ready|Open )", re.M)
WITHOUT = f"import sys; sys.modules |= dict.fromkeys({sorted(extras())})"
NEW = re.compile(r"--workdir=(runs/(?:mine|check|voc))\b")  # several begin there; each does anew


def commands() -> Iterator[str]:
    """Yield each command once, in the order of the documents."""
    lines = [
        line
        for path in DOCUMENTS
        for block in blocks(path)
        if block.language == "sh"
        for line in re.sub(r"\\\n *", "", block.text).splitlines()
    ]
    yield from (line for line in dict.fromkeys(lines) if line and not line.startswith("#"))


@pytest.mark.slow
def test_the_commands_of_the_documents_run(tmp_path):
    """In the order of the documents, in which later ones find what earlier ones made."""
    need("huggingface_hub")
    write_what_readers_have(tmp_path)
    with Hub() as stand_in, Server(tmp_path) as server:
        places = {
            "HF_ENDPOINT": stand_in.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": "1", "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }  # fmt: skip
        for line in commands():
            if why_not(line):
                continue
            prepare(line, tmp_path)
            if line.startswith("curl "):
                server.ask(line)
            elif SERVER.search(line):
                server.start(words(line), is_locked="MLCLS_API_KEY" in line)
            else:
                asked = {"cwd": tmp_path, "toy": True} | places
                done = forked("mlcls", *words(line), without=extras(), **asked)
                if done.returncode and EXTRA.search(done.stderr):
                    done = forked("mlcls", *words(line), **asked)
                assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert stand_in.private == {"owner/name"}


def test_every_command_of_the_documents_runs_above_or_says_why_not():
    lines = [*commands()]
    assert not [line for line in lines if not (why_not(line) or RUNS.match(line))]
    assert not [start for start in NOT_HERE if not any(line.startswith(start) for line in lines)]
    subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, check=True)


def test_words_of_commands_that_do_not_run_exist():
    """Those of `mlcls` are read by its own parsers in test_documents.py."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for line in commands():
        for name, options in re.findall(r"^python -m benchmarks\.(\w+)(.*)", line):
            source = (REPOSITORY / f"benchmarks/{name}.py").read_text()
            assert all(f'"{option}"' in source for option in re.findall(r"--\w+", options)), line
        for packages in re.findall(r"pip (?:un)?install ([^#&]*)", line):
            for word in shlex.split(packages):
                if word.startswith("."):
                    extras = Requirement(word.replace(".", project["name"], 1)).extras
                    assert extras <= project["optional-dependencies"].keys()
                elif word.endswith(".txt"):
                    assert (REPOSITORY / word).is_file()
                elif not word.startswith("-"):
                    assert Requirement(word)


def why_not(line: str) -> str | None:
    """Return why a command does not run here."""
    return next((why for start, why in NOT_HERE.items() if line.startswith(start)), None)


def words(line: str) -> list[str]:
    """Return the arguments of a command, and those that make it smaller."""
    given = PROGRAM.sub(LEFT_OUT if line.startswith("…") else "", line)
    smaller = [more for part, more in SMALLER.items() if part in line]
    return shlex.split(" ".join([given, *smaller]), comments=True)


class Server:
    """A server or studio in a process of its own, which ends when the next one starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen | None = None
        self._port = ""

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is None:
            self._end()
        elif self._process:
            self._process.kill()

    def start(self, arguments: list[str], *, is_locked: bool) -> None:
        """Start one at a free port, and wait until it answers."""
        self._end()
        own = {"PYTHONPATH": str(REPOSITORY)} | ({"MLCLS_API_KEY": "key"} if is_locked else {})
        said = self._said_until_ready(arguments, own, WITHOUT)
        if EXTRA.search(said):
            self._process.wait(60)
            said = self._said_until_ready(arguments, own, "")
        assert READY.search(said), f"{arguments}\n{said}"
        self._port = re.search(r"http://[\d.]+:(\d+)", said)[1]

    def _said_until_ready(self, arguments: list[str], own: dict[str, str], first: str) -> str:
        self._process = subprocess.Popen(
            [sys.executable, "-c", first + toy_backbone.COMMAND, *arguments, "--port=0"],
            cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | own,
        )  # fmt: skip
        said = ""
        while not READY.search(said) and (more := self._process.stdout.readline()):
            said += more
        return said

    def ask(self, line: str) -> None:
        """Run a command of curl, which must get an answer."""
        asked = re.sub(r"localhost:\d+", f"127.0.0.1:{self._port}", line)
        done = subprocess.run(
            ["bash", "-c", f"{asked} --silent --show-error"],
            cwd=self.folder, text=True, capture_output=True, timeout=60,
        )  # fmt: skip
        assert json.loads(done.stdout)["errorMsg"] == "Success", f"{line}\n{done}"

    def _end(self) -> None:
        if self._process:
            self._process.terminate()
            said, _ = self._process.communicate(timeout=60)
            assert self._process.returncode == 0, said


def prepare(line: str, folder: Path) -> None:
    """Write what a reader has by the time of a command."""
    run = folder / "runs/photos-1"
    if line == "mlcls audit runs/photos-1 --apply confirmed.csv":
        confirm(run / "audit/audit.csv", folder / "confirmed.csv")
    if workdir := NEW.search(line):
        shutil.rmtree(folder / workdir[1], ignore_errors=True)
    if " runs/photos-2" in line:  # more than one command names it
        for number in (2, 3):
            shutil.copytree(run, folder / f"runs/photos-{number}", dirs_exist_ok=True)


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
    done = forked("mlcls", "convert", "photos", "coco", "--to", "coco", "--copy", cwd=folder)
    assert done.returncode == 0, done.stderr
    network = Network.of(schema.Model(name="PP-LCNet_x0_25_ML", num_classes=3))
    weights.save(models.Model(network, network.init(0)), folder / "m.pdparams", "paddle")
    shutil.copy(folder / "photos/label.txt", folder)
    text = pipeline_config().replace("model_dir: null", "model_dir: runs/demo/best_model")
    (folder / "image_multilabel_classification.yaml").write_text(text)


def confirm(audit: Path, confirmed: Path) -> None:
    """Write the list of an audit as one who says that its first finding is right."""
    with audit.open(newline="") as file:
        rows = [*csv.DictReader(file)]
    rows[0]["confirmed"] = "1"
    with confirmed.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
