"""Paths given by users: `~` and `file://` are understood, other URLs refused."""

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.request import url2pathname

from mlcls_jax.errors import ConfigError

HUB = "hf://"  # the Hugging Face Hub


def expand(given: str) -> str:
    """Write out `~` and `file:///…`; leave other URLs as they are."""
    if local := re.match(r"file:(?://(?:localhost)?)?(?=/(?!/))", given, re.IGNORECASE):
        return url2pathname(given[local.end() :])
    return os.path.expanduser(given)


def is_url(given: str) -> bool:
    """Return whether this is a URL; `Path` makes `gs:/…` of `gs://…`, and `C:/…` is none."""
    return re.match(r"[a-z][a-z0-9+.-]+:/", given, re.IGNORECASE) is not None


def why_not_local(expanded: str) -> str | None:
    """Say what is wrong with it as a path on this machine's disks; None: nothing."""
    if not expanded:
        return "must be a path, and is empty"
    if is_url(expanded):
        return "must be a path on this machine, not a URL: mount the store, or copy the files"
    if expanded.startswith("~") and not os.path.lexists(expanded):
        return "must be in a home folder that is known: write it out"
    return None


def why_not(kind: str, expanded: str) -> str | None:
    """Say what is wrong with it as a path of this kind, one of those of `option`; None: nothing."""
    if kind == "any" and is_url(expanded):
        return None
    return None if kind == "model" and expanded.startswith(HUB) else why_not_local(expanded)


def local_text(option: str, given: str, *, kind: str = "local") -> str:
    """Return what an option's text means as a path on this machine's disks.

    Args:
      option: what the user knows it as, for the message: `--output`, `model_dir`.
      given: the text; may begin with `~` or `file:///`. A slash at its end stays.
      kind: as of `option`; of a model, an address on the hub is right, too.

    Raises:
      ConfigError: it is empty, a URL of another kind, or in the home folder of nobody.
    """
    expanded = expand(given)
    if fault := why_not(kind, expanded):
        raise ConfigError(f"{option}={given}: {fault}")
    return expanded


def local(option: str, *, kind: str = "local") -> Callable[[str], str]:
    """`local_text` of an option, as the `type` of an argument."""
    return functools.partial(local_text, option, kind=kind)


def local_path(option: str, given: str | os.PathLike[str]) -> Path:
    """As `local_text`, as a path."""
    return Path(local_text(option, os.fspath(given)))


def kept_epoch(given: str) -> tuple[Path, int] | None:
    """Return the workdir and 5 of `workdir/epoch_5`; None of another path."""
    path = Path(given)
    found = re.fullmatch(r"epoch_(\d{1,9})", path.name)
    return (path.parent, int(found[1])) if found else None
