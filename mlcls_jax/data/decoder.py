"""A process that decodes pictures for another one, which may kill it at any time.

A job is a line of JSON on standard input, with the bytes of a file behind it; its answer is a line
of JSON on standard output, with the pixels behind it. Nothing heavy is imported: it starts in a
fraction of a second, and takes 40 MB.
"""

import contextlib
import json
import os
import signal
import sys
import time
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from mlcls_jax.data.frame import Frame
from mlcls_jax.data.images import decode_image
from mlcls_jax.errors import DataError

HAS_LIMITS = hasattr(os, "fork")  # Windows has none of what they need


def main(max_memory: int, nice: int) -> None:
    """Answer jobs until standard input ends.

    Args:
      max_memory: bytes that may be taken.
      nice: steps of priority that are given up.
    """
    # They are for the process that gives the jobs, which finishes those that are due.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not spoil them
    if HAS_LIMITS:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # whatever it was told when it was started
        _limit(max_memory, nice)
        while os.fork():  # the copy answers; in place of one that was late there is another at once
            status = os.wait()[1]
            if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGPROF:
                return
            _write(answers, {"is_late": True})
    _serve(answers)


def _serve(answers: BinaryIO) -> None:
    for line in sys.stdin.buffer:
        job = json.loads(line)
        data, limit_s = sys.stdin.buffer.read(job.pop("num_bytes")), job.pop("limit_s")
        started = time.monotonic()
        arrays: list[np.ndarray] = []
        try:
            _end_after(limit_s)
            arrays = _decode(data, **job)
            answer = {"shapes": [array.shape for array in arrays]}
        except DataError as error:
            answer = {"error": error.message}
        finally:
            _end_after(None)
        _write(answers, {**answer, "seconds": time.monotonic() - started}, *arrays)
        del data, arrays


def _write(answers: BinaryIO, answer: dict, *arrays: np.ndarray) -> None:
    try:
        answers.write(json.dumps(answer).encode() + b"\n")
        for array in arrays:
            answers.write(array.data)
        answers.flush()
    except BrokenPipeError:  # nobody is there any more; what is still buffered would fail once more
        os._exit(1)


def _decode(
    data: bytes, *, frames: list[dict[str, Any]], max_pixels: int, drawn_side: int | None
) -> list[np.ndarray]:
    """Return the picture in each frame; with `drawn_side`, also one that long.

    `frames` have the fields of `Frame`.
    """
    pixels = decode_image(data, name="image", max_pixels=max_pixels)
    arrays = [Frame(**frame)(pixels) for frame in frames]
    if drawn_side:
        small = Image.fromarray(pixels)
        small.thumbnail((drawn_side, drawn_side))
        arrays.append(np.array(small))
    return arrays


def _end_after(seconds: float | None) -> None:
    """End this process by SIGPROF once it has taken so much processor time; None: do not."""
    if HAS_LIMITS:
        signal.setitimer(signal.ITIMER_PROF, seconds or 0)


def _limit(max_memory: int, nice: int) -> None:
    import resource

    with contextlib.suppress(ValueError):  # a stricter limit is in force
        resource.setrlimit(resource.RLIMIT_DATA, (max_memory, max_memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(nice)
