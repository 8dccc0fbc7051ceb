"""Weight files from elsewhere: downloaded once, then taken from the user's cache folder."""

import hashlib
import os
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from mlcls_jax import files
from mlcls_jax.errors import WeightsError

HUB = "hf://"
# Files on the hub that hold weights, the preferred first.
HUB_FILES = ("model.safetensors", "weights.safetensors", "pytorch_model.bin")


def local_file(source: str | Path) -> Path:
    """The path of a weight file: itself, or of its copy if it is a URL or `hf://owner/name`.

    A URL may end in `#sha256=…`; the copy is then checked. `hf://owner/name/file` names the file.

    Raises:
      WeightsError: it cannot be fetched, or its checksum is another one.
    """
    text = str(source)
    if text.startswith(HUB):
        return _from_hub(text)
    if re.match(r"https?://", text):
        return _download(text)
    return Path(source)


def _download(url: str) -> Path:
    url, _, checksum = url.partition("#sha256=")
    name = Path(urlsplit(url).path).name or "weights"
    path = files.cache_folder("weights") / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            _copy(url, temporary)
            os.replace(temporary, path)
        except (OSError, ValueError) as error:  # URLError is an OSError
            reason = getattr(error, "reason", error)
            raise WeightsError(
                f"{url}: cannot be fetched: {reason}",
                "Download it by hand and give its path as model.weights.",
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest() if checksum else ""
    if found != checksum.lower():
        path.unlink()  # our own copy, and a wrong one
        raise WeightsError(f"{url}: its SHA-256 is {found}, not {checksum}", "Fetch it again.")
    return path


def _copy(url: str, target: Path) -> None:
    with urllib.request.urlopen(url, timeout=60) as response, target.open("wb") as file:
        size = int(response.headers.get("Content-Length") or 0)
        with tqdm.wrapattr(
            response, "read", total=size or None, desc=target.name[14:-4], disable=None
        ) as reader:
            shutil.copyfileobj(reader, file)
    if size and target.stat().st_size != size:
        raise ValueError(f"{target.stat().st_size} bytes came instead of {size}")


def _from_hub(address: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise WeightsError(
            f"{address}: needs a further package", "pip install huggingface_hub"
        ) from error
    owner, _, rest = address.removeprefix(HUB).partition("/")
    name, _, file = rest.partition("/")
    for candidate in (file,) if file else HUB_FILES:
        try:
            return Path(hf_hub_download(f"{owner}/{name}", candidate))
        except EntryNotFoundError:
            continue
        except Exception as error:
            raise WeightsError(f"{address}: cannot be fetched: {error}") from error
    raise WeightsError(f"{address}: holds none of {', '.join(HUB_FILES)}")
