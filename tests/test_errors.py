"""What users see of an error, wherever they meet it."""

import json
import pickle
import tomllib
import traceback
from pathlib import Path

import pytest

from mlcls_jax import errors, lazy
from mlcls_jax.errors import DataError, InputError, UserError, install_hint, nearest, unknown

REPOSITORY = Path(__file__).parents[1]


def test_the_way_out_is_in_a_traceback_too():
    for error in (DataError("a.png: is broken", "Copy it again."), UserError("x", None)):
        for met in (error, pickle.loads(pickle.dumps(error))):  # as from another process
            shown = "".join(traceback.format_exception(met))
            assert shown.endswith(f"{error}\n" + (f"{error.hint}\n" if error.hint else ""))
            assert str(met) == met.message == error.message and met.hint == error.hint


def test_an_extra_is_installed_from_the_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(REPOSITORY)
    assert install_hint("serve") == 'Install it: pip install -e ".[serve]"'
    monkeypatch.chdir(tmp_path)
    assert install_hint("serve") == f'Install it: cd {REPOSITORY} && pip install -e ".[serve]"'


@pytest.mark.parametrize(
    ("noted", "origin"),
    [
        (None, ""),
        ({"url": "file:///a/mlcls.whl", "archive_info": {}}, " @ file:///a/mlcls.whl"),
        ({"url": "https://a.org/b", "vcs_info": {"vcs": "git"}}, " @ git+https://a.org/b"),
    ],
)
def test_an_extra_is_installed_from_where_the_package_came(monkeypatch, tmp_path, noted, origin):
    about = tmp_path / "mlcls_jax-9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mlcls-jax\nVersion: 9\n")
    if noted:
        (about / "direct_url.json").write_text(json.dumps(noted))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "mlcls_jax/errors.py"))
    assert install_hint("serve") == f'Install it: pip install "mlcls_jax[serve]{origin}"'


def test_requirements_are_those_of_the_package_and_of_three_extras():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {*project["dependencies"], *extras["coco"], *extras["score"], *extras["tfds"]}
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    assert {line.split("#")[0].strip() for line in lines} - {""} == named


def test_nothing_tells_to_install_what_no_index_has():
    files = (p for top in ("mlcls_jax", "docs", "launch") for p in (REPOSITORY / top).rglob("*"))
    texts = [p.read_text() for p in files if p.suffix in (".py", ".md", ".sh", ".html")]
    named = sum(text.count('"mlcls_jax[') for text in texts)
    assert named == 1  # for those who installed us from somewhere, in `install_hint`


@pytest.mark.parametrize(
    "name, meant", [("lyon", "lion"), ("ADAMV", "adamw"), ("Lion", "lion"), ("x", None)]
)
def test_the_nearest_name_is_found_in_any_case(name, meant):
    assert nearest(name, ["adamw", "lion"]) == meant
    hint = f"did you mean {meant}?" if meant else "there are adamw, lion."
    message = unknown(f"--name={name}", "optimizer", name, ["adamw", "lion"])
    assert message == f"--name={name}: there is no such optimizer; {hint}"


def test_a_missing_library_is_told_with_the_way_to_install_it():
    with (
        pytest.raises(InputError, match="^pictures need Pillow: No module named") as caught,
        lazy.optional("pictures need Pillow", extra="pdf", kind=InputError),
    ):
        import no_such  # noqa: F401
    assert caught.value.hint == install_hint("pdf")
    assert lazy.load("mlcls_jax.errors.nearest") is nearest
