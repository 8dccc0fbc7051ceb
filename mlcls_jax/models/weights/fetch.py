"""Weight files from elsewhere: downloaded once, then taken from the user's cache folder.

The SHA-256 of what came first is kept beside the file, so that another file under the same address
is noticed, as is a changed byte in the cache.
"""

import hashlib
import logging
import re
from functools import partial
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from mlcls_jax import files, lazy, remote
from mlcls_jax.errors import WeightsError
from mlcls_jax.paths import HUB, local_path

log = logging.getLogger(__name__)

# Files on the hub that hold weights, the preferred first.
HUB_FILES = ("model.safetensors", "weights.safetensors", "pytorch_model.bin")
BUNDLE_FILES = ("inference.json", "weights.safetensors")
_HUB_ADDRESS = re.compile(
    r"hf://([\w.-]+)/([\w.-]+)(?:@(refs/[\w.-]+/[\w.-]+|[\w.-]+))?(?:/([\w./-]+))?"
)


def local_file(source: str | Path) -> Path:
    """The path of a weight file: itself, or of its copy if it is a URL or `hf://owner/name`.

    A URL may end in `#sha256=…`, which the file must then have; otherwise it must be the one that
    came first. `hf://owner/name@revision/file` names a revision, as does a file; both may be left
    out.

    Raises:
      WeightsError: it cannot be fetched, or its checksum is another one.
    """
    text = str(source)
    if text.startswith(HUB):
        return _from_hub(text)
    if re.match(r"https?://", text):
        url, _, digest = text.partition("#sha256=")
        return _download(url, digest.lower())
    return local_path("weights", source)


def _download(url: str, digest: str) -> Path:
    try:
        name = Path(urlsplit(url).path).name[-100:] or "weights"
    except ValueError as error:
        raise WeightsError(f"{url}: is no address: {error}") from error
    path = kept_file(url, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        if digest and files.sha256(path) != digest:
            path.unlink()  # our own copy, and a wrong one
        else:
            _check(path, url, digest, path)
            return path

    def check(temporary: Path) -> None:
        _refuse_page(temporary, url)
        _check(temporary, url, digest, path)

    try:
        remote.download(
            partial(remote.copy_from_web, url, title=name),
            path,
            check=check,
        )
    except (OSError, ValueError, HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", error)
        raise WeightsError(
            f"{url}: cannot be fetched: {reason}",
            f"Fetch it by hand and give its path as weights, or save it as {path}",
        ) from error
    return path


def _refuse_page(file: Path, url: str) -> None:
    """Raise WeightsError if nothing came, or a page: its checksum would be kept as the first."""
    with file.open("rb") as content:
        begin = content.read(64).lstrip().lower()
    if not begin or begin.startswith((b"<!doctype html", b"<html")):
        what = "a page for people" if begin else "nothing"
        raise WeightsError(
            f"{url}: cannot be fetched: {what} came in its place",
            "Open the address in a browser: it may ask for an account, or a proxy stand before it.",
        )


def kept_file(address: str, name: str) -> Path:
    """Return the file in the cache of what has this address; it need not be there."""
    start = hashlib.sha256(address.encode()).hexdigest()[:12]
    return files.cache_folder("weights") / f"{start}-{name}"


def _check(file: Path, address: str, digest: str, path: Path) -> None:
    """Compare a file with the digest given, or else with that of the first file of this address.

    Args:
      path: where the file is kept, or would be; `<path>.sha256` beside it holds the first digest.
    """
    record, found = path.with_name(f"{path.name}.sha256"), files.sha256(file)
    first = record.read_text(encoding="utf-8").strip() if record.exists() else None
    if digest and found != digest:
        raise WeightsError(f"{address}: its SHA-256 is {found}, not {digest}", "Fetch it again.")
    if not digest and first and found != first:
        damaged = f"If {path} is damaged, delete it, and it is fetched anew. " * (file == path)
        raise WeightsError(
            f"{address}: its SHA-256 is {found}, but that of the first file from there was {first}",
            f"{damaged}If the publisher has changed the file and you trust it, delete {record}",
        )
    if found != first:  # the first of this address, or one whose digest was given
        files.write_text(record, f"{found}\n")


def hub_bundle(address: str) -> Path | None:
    """Return the folder of the bundle that a repository holds, `hf://owner/name[@revision]`.

    Returns:
      None: it holds no bundle, or the address names one of its files.

    Raises:
      WeightsError: it cannot be fetched, or the checksum of its weights is another than at first.
    """
    repository, revision, file = _hub_parts(address)
    if file:
        return None
    description, weights = BUNDLE_FILES
    described = _hub_file(address, repository, revision, description)
    if described is None:
        return None
    # Both of one commit, which is the name of the folder in the hub's cache.
    found = _hub_file(address, repository, described.parent.name, weights)
    if found is None:
        raise WeightsError(f"{address}: has {description}, but no {weights}")
    _check_hub(found, address, weights)
    return described.parent


def _from_hub(address: str) -> Path:
    repository, revision, file = _hub_parts(address)
    for candidate in (file,) if file else HUB_FILES:
        if path := _hub_file(address, repository, revision, candidate):
            _check_hub(path, address, candidate)
            return path
    raise WeightsError(f"{address}: holds none of {', '.join((file,) if file else HUB_FILES)}")


def _hub_parts(address: str) -> tuple[str, str | None, str | None]:
    """Return owner/name, revision and file of an address."""
    parts = _HUB_ADDRESS.fullmatch(address)
    if parts is None:
        raise WeightsError(
            f"{address}: is no address on the hub",
            "For instance hf://owner/name, or hf://owner/name@revision/model.safetensors.",
        )
    owner, name, revision, file = parts.groups()
    return f"{owner}/{name}", revision, file


def _hub_file(address: str, repository: str, revision: str | None, file: str) -> Path | None:
    """Return a file in the hub's cache, fetched if need be; None: the repository has none such.

    `address` is what the user wrote, for messages.
    """
    with lazy.optional(f"{address} needs a library", extra="hub", kind=WeightsError):
        # An extra, which few have.
        from huggingface_hub import hf_hub_download  # pyright: ignore[reportMissingImports]
        from huggingface_hub.errors import (  # pyright: ignore[reportMissingImports]
            EntryNotFoundError,
            LocalEntryNotFoundError,
        )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of each try, twice
    log.info("Asking the hub for %s of %s …", file, address)  # half a minute, without a network
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):  # the hub was not reached
            raise WeightsError(f"{address}: cannot be fetched: {error}") from error
        return None
    except Exception as error:
        raise WeightsError(f"{address}: cannot be fetched: {error}") from error


def _check_hub(path: Path, address: str, file: str) -> None:
    """Compare a file of the hub with the first one of its repository and revision."""
    repository, revision, _ = _hub_parts(address)
    kept = kept_file(f"{HUB}{repository}@{revision or 'main'}", file.replace("/", "-"))
    kept.parent.mkdir(parents=True, exist_ok=True)
    _check(path, address, "", kept)
