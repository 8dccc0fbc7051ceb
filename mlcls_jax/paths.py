"""What users give as a path: `~` and `file://` are understood, and other URLs refused."""

import os
import re
from pathlib import Path
from urllib.request import url2pathname

from mlcls_jax.errors import ConfigError

NOT_LOCAL = "must be a path on this machine, not a URL"
MOUNT = "Mount the store as a folder, or copy the files."


def expand(given: str) -> str:
    """The same place with `~` and `file:///…` written out; other URLs are left as they are."""
    if local := re.match(r"file:(?://(?:localhost)?)?(?=/(?!/))", given, re.IGNORECASE):
        return url2pathname(given[local.end() :])
    return os.path.expanduser(given)


def is_url(given: str) -> bool:
    """Whether this is a URL; `Path` makes `gs:/…` of `gs://…`, and `C:/…` is none."""
    return re.match(r"[a-z][a-z0-9+.-]+:/", given, re.IGNORECASE) is not None


def local_path(option: str, given: str | os.PathLike[str]) -> Path:
    """The path that an option's text means on this machine's disks.

    Args:
      option: what the user knows it as, for the message: `--output`, `model_dir`.
      given: the text; may begin with `~` or `file:///`.

    Raises:
      ConfigError: it is empty, a URL of another kind, or in the home folder of nobody.
    """
    text = expand(os.fspath(given))
    if not text:
        raise ConfigError(f"{option}: is empty", "Name a file or folder.")
    if is_url(text):
        raise ConfigError(f"{option}: {given}: {NOT_LOCAL}", MOUNT)
    if text.startswith("~") and not os.path.lexists(text):
        raise ConfigError(f"{option}: {given}: no such home folder is known", "Write it out.")
    return Path(text)
