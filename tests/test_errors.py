"""What users see of an error, wherever they meet it."""

import pickle
import traceback
from pathlib import Path

from mlcls_jax.errors import DataError, UserError, install_hint

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
