"""What the documents say is what happens: their tutorials run, their commands and keys exist."""

import re

import pytest

from mlcls_jax import commands
from mlcls_jax import config as schema
from mlcls_jax.command_line import FlagError
from tests.helpers.commands import REPOSITORY
from tests.helpers.documents import Reader

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
     "docs/tutorials/serve.md"],
)  # fmt: skip
def test_a_document_says_what_happens(reader, path):
    """In this order: later ones go on with what the first made.

    The Python of README.md is about models and files that are not there.
    """
    reader.read(REPOSITORY / path, python=path != "README.md")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_keys_and_commands_of_a_document_exist(path):
    text = path.read_text(encoding="utf-8")
    known = set(schema.options())
    sections = {key.partition(".")[0] for key in known}
    named = {given or told for given, told in _KEY.findall(text)}
    keys = {key for key in named if key.partition(".")[0] in sections}
    places = {key.rpartition(".")[0] for key in known}
    assert not {key for key in keys if key not in known | places and not _OTHER.search(key)}
    for word, rest in _COMMAND.findall(text):
        try:
            commands.find([word, *rest.split()])
        except FlagError as error:
            raise AssertionError(f"mlcls {word}{rest}") from error
