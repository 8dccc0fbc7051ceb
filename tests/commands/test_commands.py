"""Which command is meant by what was typed."""

import subprocess
import sys

import pytest

from mlcls_jax.command_line import FlagError
from mlcls_jax.commands import COMMANDS, find, opened


@pytest.mark.parametrize(
    ("line", "name", "rest"),
    [
        ("", "help", ""),
        ("--help", "help", ""),
        ("help pack", "pack", "--help"),
        ("--version", "version", ""),
        ("pack a b", "pack", "a b"),
        ("train --workdir=x", "", "--workdir=x --config.mode=train"),
        ("check_dataset --workdir=x", "", "--workdir=x --config.mode=check_dataset"),
        ("check photos --pixels", "check", "photos --pixels"),
        ("find_lr --lr 0.1 photos", "find_lr", "--lr 0.1 photos"),
        ("find_lr --config=a.py", "", "--config=a.py --config.mode=find_lr"),
        ("predict --input a.png", "predict", "--input a.png"),
        ("predict --config=a.py", "", "--config=a.py --config.mode=predict"),
        ("predict --serve --port 0", "serve", "--serve --port 0"),
        ("--serve", "serve", "--serve"),
        ("--pipeline=x --input y", "predict", "--pipeline=x --input y"),
        ("--config=a.py --workdir=x", "", "--config=a.py --workdir=x"),
        ("train --helpconfig=seed", "helpconfig", "--helpconfig=seed"),
        ("--helpconfig", "helpconfig", "--helpconfig"),
    ],
)
def test_the_command_is_found_however_it_is_called(line, name, rest):
    command, arguments = find(line.split())
    assert (command.name, arguments) == (name, rest.split())


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("evaluate runs/a", None),  # a mode, which tells it itself
        ("predict runs/a b.png", "runs/a"),
        ("serve --port 0 --model_dir=runs/a", "runs/a"),
        ("compare runs/a runs/b", "runs/a"),
        ("predict --pipeline x --input y", None),
        ("audit runs/a --help", None),
        ("train runs/a", None),
        ("", None),
    ],
)
def test_what_is_opened_is_told_before_anything_takes_time(line, place):
    word, *_ = words = line.split() or [""]
    assert opened(word, find(words if line else [])[1]) == place


def test_unknown_words_are_refused_with_the_nearest():
    with pytest.raises(FlagError, match="trian: there is no such command") as caught:
        find(["trian", "--config=x.py"])
    assert (caught.value.hint, caught.value.exit_code) == ("Did you mean train?", 2)


def test_help_is_told_without_importing_jax():
    """Each takes a second otherwise."""
    program = """
import contextlib, io, sys
from mlcls_jax.commands import COMMANDS, OF_DATA, find

for words in [*([name] for name in COMMANDS), *([word, "photos"] for word in OF_DATA)]:
    command, arguments = find([*words, "--help"])
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        command.load()(arguments)
    if "jax" in sys.modules:
        sys.exit(f"{words} imports JAX")
"""
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_only_what_computes_for_long_is_worth_starting_anew():
    long = {name for name, command in COMMANDS.items() if command.is_long}
    configured = {"check", "train", "find_lr", "evaluate", "thresholds"}
    assert long == configured | {"from_words", "serve", "score", "tune", "average"}
    assert not find(["export", "scores_model"])[0].is_long
    assert find(["export", "--config=a.py"])[0].is_long
