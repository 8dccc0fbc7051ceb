"""Without a cache or a home, and on terminals that cannot show everything, the work is done."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mlcls_jax import files
from mlcls_jax.errors import ConfigError
from mlcls_jax.inference.results import Result
from tests.helpers.bundles import write_images, write_small
from tests.helpers.tiers import slow

REPOSITORY = Path(__file__).parents[2]
NOBODY = 54321  # a user without an entry in any list, as containers have them

# The command as that user would find it: the list of users does not know who this is.
AS_NOBODY = """
import pwd
def unknown(uid): raise KeyError(uid)
pwd.getpwuid = unknown
from mlcls_jax import main
main.run()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a bundle `model` and an image `a.png`."""
    folder = tmp_path_factory.mktemp("caches")
    write_small(folder / "model", labels=("猫", "café", "🙂"))
    (image,) = write_images(folder, 1)
    image.rename(folder / "a.png")
    return folder


def predict(place: Path, *more: str, program=("-m", "mlcls_jax.main"), unset=(), **environment):
    names = {k: v for k, v in os.environ.items() if k not in unset}
    return subprocess.run(
        [sys.executable, *program, "predict", "--model_dir", "model", "--input", "a.png", *more],
        cwd=place,
        env=names
        | {"PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": ""}
        | environment,
        capture_output=True,
        timeout=300,
    )


def test_a_cache_that_can_be_written_to_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert files.cache_folder("jax") == tmp_path / "cache/mlcls_jax/jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder("jax") == tmp_path / ".cache/mlcls_jax/jax"


def test_without_a_cache_one_of_the_process_stands_in(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = files.cache_folder("exports")
    (folder / "a.onnx").write_text("x")
    assert files.cache_folder("exports") == folder != files.cache_folder("models")
    assert len(caplog.messages) == 1 and "XDG_CACHE_HOME" in caplog.text
    monkeypatch.setenv("HOME", "~")  # what is left where nobody knows a home
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_folder("exports").is_dir() and not Path("~").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_what_a_cache_holds_that_may_only_be_read_is_used():
    with tempfile.TemporaryDirectory() as shared:  # others may not look into pytest's
        os.chmod(shared, 0o755)
        _read_only(Path(shared))


def _read_only(cache: Path) -> None:
    (cache / "mlcls_jax" / "models").mkdir(parents=True)
    (cache / "mlcls_jax" / "models" / "a.txt").write_text("kept")
    program = f"""
import os
from mlcls_jax import files
os.environ["XDG_CACHE_HOME"] = {str(cache)!r}
os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})
folder = files.cache_folder("models")
(folder / "b.txt").touch()
print(sorted(p.name for p in folder.iterdir()), (folder / "a.txt").read_text(), folder)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("['a.txt', 'b.txt'] kept /"), done.stderr
    assert not Path(done.stdout.split()[-1]).exists()  # it is gone with the process
    assert (cache / "mlcls_jax/models/a.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("more", "options"),
    [
        slow("--use_hpip", {"unset": ("HOME", "XDG_CACHE_HOME"), "program": ("-c", AS_NOBODY)}),
        slow("--threshold=0", {"XDG_CACHE_HOME": "/dev/null/cache"}),
    ],
    ids=["no HOME", "no cache"],
)
def test_predicting_needs_no_cache(place, more, options):
    done = predict(place, more, **options)
    said = done.stderr.decode()
    assert done.returncode == 0 and "Traceback" not in said, said
    assert said.count("set XDG_CACHE_HOME to another place") == 1


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        slow({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ],
    ids=["ascii", "C locale"],
)
def test_labels_that_the_terminal_lacks_are_escapes_in_json(place, environment):
    done = predict(place, "--threshold=0", **environment)
    assert done.returncode == 0, done.stderr
    printed, _, summary = done.stdout.decode("ascii").rpartition("}\n")
    assert {*json.loads(printed + "}")["res"]["label_names"]} == {"猫", "café", "🙂"}
    assert summary.startswith("1 images")


def test_a_library_prints_escapes_too():
    """Nobody has told Python there what to do with characters that the stream lacks."""
    program = """
from mlcls_jax.inference.results import Result
result = Result(input_path="\\udcff.png", page_index=None, class_ids=[0], scores=[1.0],
                label_names=["caf\\xe9"])
result.print()
result.print(format_json=False)
"""
    for encoding in ("ascii", "utf-8"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONIOENCODING": encoding},
            capture_output=True,
            cwd=REPOSITORY,
        )
        assert done.returncode == 0, done.stderr
        text, _, line = done.stdout.decode(encoding).rpartition("}\n{")
        assert json.loads(text + "}")["res"]["label_names"] == ["café"]
        assert "caf" in line


@pytest.mark.parametrize("encoding", ["ascii", slow("utf-8")])
def test_messages_about_any_file_name_are_printed(tmp_path, encoding):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mlcls_jax.main", "backends"),
            *(os.fsencode(tmp_path) + b"/\xff\xe7\x8c\xab", "--batch_size", "1"),
        ],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 1 and b"Traceback" not in done.stderr, done.stderr
    cat = "猫" if encoding == "utf-8" else "\\u732b"
    assert f"/\\udcff{cat}/inference.json: there is no such file" in done.stderr.decode(encoding)


def test_a_result_file_holds_any_file_name(tmp_path):
    files.write_json(tmp_path / "a.json", {"skipped_images": ["\udcff猫.png"]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"skipped_images": ["\udcff猫.png"]} and "猫" in text


def test_results_are_saved_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = Result.of_error(ValueError("broken"), "a.png")
    assert result.save_to_json("~/out") == tmp_path / "out/a_res.json"
    with pytest.raises(ConfigError, match="must be a path on this machine, not a URL"):
        result.save_to_json("s3://bucket/out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
