"""Whether a process begins anew with malloc told to use huge pages, and only then."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlcls_jax import main

REPOSITORY = Path(__file__).parent.parent
PROGRAM = """
import os, sys
from pathlib import Path
from mlcls_jax.huge_pages import restart_with_huge_pages
print(os.getpid())
restart_with_huge_pages(Path(sys.argv[1]))
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[2:])
"""
IS_GLIBC = sys.platform == "linux" and "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
pytestmark = pytest.mark.skipif(not IS_GLIBC, reason="needs glibc")


def lines(setting: Path, **environment: str) -> list[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(setting), "--word", "two words"],
        env=inherited | {"PYTHONPATH": str(REPOSITORY)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return process.stdout.splitlines()


def setting(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "enabled"
    path.write_text(text)
    return path


def test_it_begins_anew_once_as_the_same_process_with_the_same_arguments(tmp_path):
    first, second, seen = lines(setting(tmp_path, "always [madvise] never\n"))
    assert first == second
    assert seen == "glibc.malloc.hugetlb=1 ['--word', 'two words']"


@pytest.mark.parametrize("text", ["[always] madvise never\n", "always madvise [never]\n"])
def test_it_goes_on_where_asking_for_huge_pages_brings_nothing(tmp_path, text):
    assert lines(setting(tmp_path, text))[1:] == ["None ['--word', 'two words']"]


def test_it_goes_on_where_the_system_does_not_say(tmp_path):
    assert lines(tmp_path / "absent")[1:] == ["None ['--word', 'two words']"]


def test_what_the_user_has_set_stays(tmp_path):
    found = lines(setting(tmp_path, "always [madvise] never\n"), GLIBC_TUNABLES="")
    assert found[1:] == [" ['--word', 'two words']"]


@pytest.mark.parametrize(
    ("arguments", "restarts"),
    [
        ("train --config=a.py", True),
        ("score --input a", True),
        ("--serve", True),
        ("predict --config=a.py", True),
        ("export scores_model", False),
        ("predict --input serve.png", False),
        ("models --help", False),
    ],
)
def test_the_command_begins_anew_for_what_takes_long(arguments, restarts, monkeypatch):
    class FoundError(Exception):
        pass

    def stop(level: int | None) -> None:
        raise FoundError

    restarted = []
    monkeypatch.setattr(sys, "argv", ["mlcls", *arguments.split()])
    monkeypatch.setattr(main, "restart_with_huge_pages", lambda: restarted.append(True))
    monkeypatch.setattr(main, "collect_rarely", lambda: None)
    monkeypatch.setattr(main, "start_console", stop)  # the command's own code is not loaded yet
    with pytest.raises(FoundError):
        main.run()
    assert bool(restarted) == restarts
