"""What users see of an error, wherever they meet it."""

import pickle
import traceback
from pathlib import Path

import pytest

from mlcls_jax import lazy
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
