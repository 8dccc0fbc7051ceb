"""The fastest backend on this machine, by a short measurement that is kept."""

import hashlib
import json
import logging
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlcls_jax import __version__, files
from mlcls_jax.errors import UserError
from mlcls_jax.inference.backends.onnx_cache import thread_count
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.exports.verify import sample_images

if TYPE_CHECKING:
    from mlcls_jax.inference.backends import Backend

log = logging.getLogger(__name__)


def choose_backend(
    candidates: Mapping[str, Callable[[], "Backend"]],
    bundle: Bundle,
    *,
    device: str,
    batch_size: int,
    precision: str,
) -> "Backend":
    """Open the fastest of `candidates` on this machine at full batches.

    What is measured is kept in the user's cache folder, for this machine, model and these releases.
    Each backend's time is logged, and which one is taken. Those not installed are left out.

    `candidates` open them, by name, and know `device` and `precision`, which the file tells.
    """
    config = bundle.model.network.config
    facts = machine() | {
        "model": [config.name, *bundle.image_size, config.num_classes],
        "device": device,
        "batch_size": batch_size,
        "precision": precision,
    }
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    path = files.cache_folder("backends") / f"{digest[:16]}.json"
    milliseconds = _read(path)
    opened = {}
    if not milliseconds:
        images = sample_images(bundle.image_size)
        images = np.resize(images, (batch_size, *images.shape[1:]))  # repeats them
        for name, open_one in candidates.items():
            try:
                opened[name] = open_one()
            except UserError as error:
                log.info("%s is left out: %s", name, error.message)
        calls = {name: lambda run=run: run(images) for name, run in opened.items()}
        seconds = measure(calls)
        milliseconds = {name: 1e3 * s / batch_size for name, s in seconds.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, facts | {"milliseconds_an_image": milliseconds})
    best = min(milliseconds, key=milliseconds.__getitem__)
    origin = "measured now" if opened else f"from the cache file {path}"
    for name, value in milliseconds.items():
        taken = "; taken" if name == best else ""
        log.info("%s: %.3g ms per image, %s%s", name, value, origin, taken)
    return opened[best] if opened else candidates[best]()


def measure(calls: Mapping[Any, Callable[[], Any]], *, seconds: float = 2.0) -> dict[Any, float]:
    """Return the seconds that each call takes: the median of rounds in which all take turns.

    Before them, each is called twice, to compile and to warm up. `seconds` is for each one's
    rounds, of which there are 3 to 100.
    """
    for call in calls.values():
        call()
        call()
    times: dict[Any, list[float]] = {name: [] for name in calls}
    for count in range(100):
        if count >= 3 and max(map(sum, times.values())) > seconds:
            break
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def machine() -> dict[str, Any]:
    """Return what speed depends on besides the model: processor, threads, releases."""
    runtimes = ("jax", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt-cu13")
    versions = {name: _version(name) for name in runtimes}
    return {
        "processor": _processor(),
        "threads": thread_count(),
        "versions": {"mlcls_jax": __version__} | versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read(path: Path) -> dict[str, float]:
    try:
        return files.read_json(path)["milliseconds_an_image"]
    except (OSError, UserError, KeyError):  # none yet, or damaged: measure again
        return {}
