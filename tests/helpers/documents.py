"""Code of Markdown files, and a folder in which it is run as a reader would."""

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.helpers import toy_backbone
from tests.helpers.commands import REPOSITORY, forked

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Of runs by launchers, each of whose processes compiles: a network that takes a third of the time.
FASTER = {"--config=lcnet ": "--config=clip_vit ", "PP-LCNet_x0_25_ML": "Toy_ML"}
_NUMBER = re.compile(r"\d[\d,.]*(e-\d+)?")


class Block(NamedTuple):
    """A fenced block of code."""

    language: str
    text: str


def blocks(path: Path) -> list[Block]:
    """All blocks of a Markdown file, in its order."""
    return [Block(*found.groups()) for found in _BLOCK.finditer(path.read_text(encoding="utf-8"))]


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a console, each with what is shown below it."""
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


class Reader:
    """Runs what stands in documents, in one folder; a command that several have runs once.

    That is all Python, and the commands of `console`. What is dear, and tested elsewhere, stands in
    blocks of `shell-session`, which look the same.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: dict[str, str] = {}  # by command
        self._servers: list[subprocess.Popen] = []

    def read(self, path: Path, *, python: bool = True) -> None:
        """Run all Python and all commands of `mlcls` in a document, and compare what they say."""
        for language, text in blocks(path):
            if language == "python" and python:
                self.python(text)
            for command, shown in commands(text) if language == "console" else ():
                if command.startswith("mlcls "):
                    agree(shown, self.mlcls(command), command)
                elif command.startswith("launch/"):
                    agree(shown, self.launch(command), command)

    def python(self, text: str) -> str:
        """Run Python in this process, in the folder."""
        said = self.said.get(text)
        if said is None:
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, "a document", "exec"), {"__name__": "__main__"})
            said = self.said[text] = out.getvalue()
        return said

    def mlcls(self, command: str) -> str:
        """Run a command, in the background if it ends with &; return what it says at last."""
        if command in self.said:
            return self.said[command]
        if command.endswith(" &"):
            return self._serve(command.removesuffix(" &"))
        is_pod = "--workdir=runs/pod " in command  # which goes on with a run of `launch`
        words = shlex.split(_faster(command) if is_pod else command)
        done = forked(*words, cwd=self.folder, toy=True)
        assert done.returncode == 0, done.stderr
        said = self.said[command] = done.stderr + done.stdout
        return said

    def launch(self, command: str) -> str:
        """Run a line of the shell with a launcher."""
        (self.folder / "launch").unlink(missing_ok=True)
        (self.folder / "launch").symlink_to(REPOSITORY / "launch")
        if "--dry-run" not in command:
            program = shlex.join([sys.executable, "-c", toy_backbone.COMMAND])
            command = _faster(command).replace(" -- ", f" -- {program} ")
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, text=True, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def _serve(self, command: str) -> str:
        arguments = [sys.executable, "-m", "mlcls_jax.main", *shlex.split(command)[1:]]
        server = subprocess.Popen(
            arguments, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
        self._servers.append(server)
        return "".join(iter_until(server.stdout, "Ready"))

    def close(self) -> None:
        """End the servers."""
        for server in self._servers:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)


def _faster(command: str) -> str:
    for slow, fast in FASTER.items():
        command = command.replace(slow, fast)
    return command


def iter_until(lines, start: str):
    """Yield lines up to the first that starts so."""
    for line in lines:
        yield line
        if line.startswith(start):
            return


def agree(shown: str, said: str, command: str) -> None:
    """See that what is shown was said; … stands for any lines, or for any end of a line.

    Of a line all counts up to its first fraction, which differs between machines, but numbers.
    Where nothing is shown, anything may have been said.
    """
    pattern = "".join(_line(line) for line in shown.splitlines())
    assert not shown.strip() or re.fullmatch(pattern, _plain(said)), f"$ {command}\n{said}"


def _line(line: str) -> str:
    if line == "…":
        return r"(?:.*\n)*?"
    start = re.split(r"\d+\.\d|…$", line)[0]
    return re.escape(_plain(start)) + (r" *\n" if start == line else r".*\n")


def _plain(text: str) -> str:
    return re.sub(r"  +", "  ", _NUMBER.sub("0", text))
