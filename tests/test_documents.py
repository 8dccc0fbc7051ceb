"""What the documents say is what happens: their tutorials run, their commands and keys exist."""

import contextlib
import io
import itertools
import re
import shlex
from typing import Any

import numpy as np
import pytest
from absl.flags import FLAGS
from PIL import Image

from mlcls_jax import commands, models, usage
from mlcls_jax import config as schema
from mlcls_jax.command_line import FlagError
from mlcls_jax.models import Network, weights
from tests.helpers.bundles import write_small
from tests.helpers.commands import REPOSITORY
from tests.helpers.documents import Reader, blocks

DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/**/*.md", "launch/*.md")
    for path in sorted(REPOSITORY.glob(pattern))
    if path.name != "changelog.md"  # tells of what was, too
]
_KEY = re.compile(r"--config\.([\w.]+\w)|`([a-z_]+\.[\w.]+)(?:=[^`]*)?`")
_OTHER = re.compile(  # files, and functions that look like keys
    r"\.(bin|csv|html|json|jsonl|log|onnx|py|stablehlo|tflite|txt|xml|yaml)$"
    r"|^model\.predict$|^parallel\.compiler_options$"
)
_COMMAND = re.compile(r"(?:^|`)(?:python -m mlcls_jax\.main|mlcls) ([a-z_]+)(.*?)(?:`|$)", re.M)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    reader = Reader(tmp_path_factory.mktemp("reader"))
    yield reader
    reader.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    ["docs/tutorials/photographs.md", "README.md", "docs/tutorials/judge.md",
     "docs/tutorials/serve.md", "docs/tutorials/pod.md"],
)  # fmt: skip
def test_a_document_says_what_happens(reader, path):
    """In this order: later ones go on with what the first made.

    The Python of README.md is about models and files that are not there; the next test makes them.
    """
    reader.read(REPOSITORY / path, python=path != "README.md")


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    """On drawn weights, in the places and under the names that it gives."""
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path / "runs/demo/best_model")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    (tmp_path / "runs/demo/samples").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"runs/demo/samples/{number}.png")
    file = tmp_path / "PP-LCNet_x1_0_ml_decoder_448_pretrained.pdparams"
    weights.save(models.create("PP-LCNet_x1_0_ML", num_classes=80), file, "paddle")

    predict, load, widen = (
        b.text for b in blocks(REPOSITORY / "README.md") if b.language == "python"
    )
    names: dict[str, Any] = {"images": pictures}
    for block in (predict, load):
        exec(compile(block, "README.md", "exec"), names)
    assert (
        len([*(tmp_path / "output").glob("*.png")])
        == len([*(tmp_path / "output").glob("*.json")])
        == 2
    )
    assert names["logits"].shape == (2, 80)
    embeddings = np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32)
    np.save("three.npy", embeddings[:3])
    small = {"embed_dim": 32, "hidden_dim": 32, "num_heads": 4, "text_embeddings": "three.npy"}
    network = Network.of(schema.Model(name="PP-LCNet_x0_25_ML", num_classes=3, **small))
    names["model"] = models.Model(network, network.init(0))
    names["embeddings"] = embeddings
    exec(compile(widen, "README.md", "exec"), names)
    assert names["wider"](pictures).shape == (2, 5)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_keys_and_commands_of_a_document_exist(path):
    text = path.read_text(encoding="utf-8")
    known = set(schema.options())
    sections = {key.partition(".")[0] for key in known}
    named = {given or told for given, told in _KEY.findall(text)}
    keys = {key for key in named if key.partition(".")[0] in sections}
    places = {key.rpartition(".")[0] for key in known}
    assert not {key for key in keys if key not in known | places and not _OTHER.search(key)}
    for word, rest in _COMMAND.findall(text.replace("\\\n", " ")):
        try:
            parse([word, *itertools.takewhile(is_argument, shlex.split(rest, comments=True))])
        except (FlagError, RefusedError) as error:
            raise AssertionError(f"mlcls {word}{rest}") from error


def is_argument(word: str) -> bool:
    """Whether it belongs to the command, and not to the shell or to what is left out."""
    return word not in ("|", "&", "&&", ";", "…") and not re.match(r"\d?>", word)


class ParsedError(Exception):
    """A command has read its arguments, and would begin."""


class RefusedError(Exception):
    """A command does not take its arguments."""


def parse(arguments: list[str]) -> None:
    """Let a command read its arguments with its own parser; text may leave out some of them."""

    def read(self, args=None, namespace=None, read=usage._Parser.parse_known_args):
        for action in self._actions:  # which one is left out is not the question
            action.required = False
            action.nargs = {None: "?", "+": "*"}.get(action.nargs, action.nargs)
        _, unknown = read(self, args, namespace)
        raise RefusedError(unknown) if unknown else ParsedError

    def refuse(self, message: str) -> None:
        raise RefusedError(message)

    command, left = commands.find(usage.verbosity(arguments)[0])
    if command is commands.FLAGS:
        given = {word[2:].partition("=")[0] for word in left if word.startswith("--")}
        if unknown := {name for name in given if not name.startswith("config.")} - {*FLAGS, "help"}:
            raise RefusedError(unknown)
        return
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(ParsedError, SystemExit):
        patch.setattr(usage._Parser, "parse_known_args", read)
        patch.setattr(usage._Parser, "error", refuse)
        with contextlib.redirect_stdout(io.StringIO()):
            command.load()(left)


@pytest.mark.parametrize(
    "line",
    ["tune photos --trails 3", "score --shards 3", "evaluate --workdirs=a", "studio a --porto=1",
     "check photos --pixel", "trian photos"],
)  # fmt: skip
def test_a_command_that_does_not_exist_so_would_be_found_in_a_document(line):
    with pytest.raises((FlagError, RefusedError)):
        parse(line.split())
