"""Processes that decode pictures: one that takes too long is killed, and few wait behind it."""

import asyncio
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mlcls_jax.data.frame import Frame
from mlcls_jax.data.limits import BYTES_PER_PIXEL
from mlcls_jax.errors import DataError
from mlcls_jax.serving.monitor import Monitor
from mlcls_jax.serving.options import Options

# Processor time of a picture in the first group of processes, the second and the last: usual ones
# need less than the first, and the largest less than the second.
LIMITS_S = (0.1, 1.0, None)
_NICE = 5  # steps of priority that the last group has less
_OWN_MEMORY = 2**28  # bytes of a process without a picture, generously
_START = (  # with the path of this process, and without its main module
    "import sys; sys.path[:] = sys.argv[3:]; from mlcls_jax.data.decoder import main;"
    " main(int(sys.argv[1]), int(sys.argv[2]))"
)

_Answer = tuple[dict[str, Any], list[np.ndarray]]


class Decoders:
    """`options.decoders` processes, and twice half as many for pictures that take longer.

    What is not decoded within the limit of a group starts again in the next one. So pictures made
    to be slow wait for each other, for as long as somebody waits for them, and others hardly do.
    """

    def __init__(self, options: Options, monitor: Monitor) -> None:
        self._max_pixels = options.max_pixels
        self._monitor = monitor
        memory = BYTES_PER_PIXEL * options.max_pixels + int(4 * options.max_body_mb * 2**20)
        half = max(1, options.decoders // 2)
        self._groups = [
            _Group(width, limit_s, memory + _OWN_MEMORY)
            for width, limit_s in zip((options.decoders, half, half), LIMITS_S, strict=True)
        ]
        self._groups[0].start()

    async def decode(
        self, data: bytes, *, frames: Sequence[Frame], drawn_side: int | None
    ) -> list[UInt8[np.ndarray, "H W 3"]]:
        """Return the picture in each frame, and any that is to be drawn.

        Raises:
          DataError: it is no picture, too large, damaged, or broke its decoder.
        """
        job = {
            "frames": [asdict(frame) for frame in frames],
            "max_pixels": self._max_pixels,
            "drawn_side": drawn_side,
        }
        for group in self._groups:
            answer, arrays = await group.ask(job, data)
            if not answer.get("is_late"):
                break
        if "error" in answer:
            raise DataError(answer["error"])
        self._monitor.decode.observe(answer["seconds"])
        return arrays

    def close(self) -> None:
        """Kill all processes."""
        for group in self._groups:
            group.close()


class _Group:
    """`width` processes, started as they are needed; first come, first served."""

    def __init__(self, width: int, limit_s: float | None, memory: int) -> None:
        self._width = width
        self._limit_s = limit_s
        self._memory = memory
        self._free = asyncio.Semaphore(width)
        self._threads = ThreadPoolExecutor(width + 1, "decode")
        self._idle: deque[_Process] = deque()
        self._busy: set[_Process] = set()
        self._is_closed = False

    def start(self) -> None:
        """Start all processes that are missing."""
        while len(self._idle) < self._width:
            self._idle.append(self._start())

    async def ask(self, job: dict[str, Any], data: bytes) -> _Answer:
        """Return the answer to a job, which may be that it took too long.

        Raises:
          DataError: the process has ended.
        """
        job = {**job, "num_bytes": len(data), "limit_s": self._limit_s}
        head = json.dumps(job).encode() + b"\n"
        await self._free.acquire()
        work = self._work(head, data)
        # Where there is a limit, it runs on when nobody waits any more: else that ends the process.
        return await (work if self._limit_s is None else asyncio.shield(work))

    def close(self) -> None:
        self._is_closed = True
        for process in (*self._idle, *self._busy):
            process.kill()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _work(self, head: bytes, data: bytes) -> _Answer:
        process = self._idle.popleft() if self._idle else self._start()
        self._busy.add(process)
        is_well = False
        try:
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._threads, process.ask, head, data)
            is_well = True
            return answer
        finally:
            self._busy.remove(process)
            if not is_well:
                process.kill()
            if not self._is_closed:
                self._idle.append(process if is_well else self._start())
            self._free.release()

    def _start(self) -> "_Process":
        return _Process(self._memory, _NICE if self._limit_s is None else 0)


class _Process:
    """A process of `mlcls_jax.data.decoder`."""

    def __init__(self, memory: int, nice: int) -> None:
        command = [sys.executable, "-W", "ignore", "-c", _START, str(memory), str(nice), *sys.path]
        # A thread a core, which nothing here uses, would count as memory.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # it has copies of itself
        )
        assert self._process.stdin and self._process.stdout
        self._jobs, self._answers = self._process.stdin, self._process.stdout

    def ask(self, head: bytes, data: bytes) -> _Answer:
        """Return the answer to a job, and its arrays, however long it takes, or until `kill`."""
        try:
            self._jobs.write(head)
            self._jobs.write(data)
            self._jobs.flush()
            answer = json.loads(self._answers.readline())
            shapes = answer.get("shapes", ())
            parts = [self._answers.read(math.prod(shape)) for shape in shapes]
            arrays = [
                np.frombuffer(part, np.uint8).reshape(shape)
                for part, shape in zip(parts, shapes, strict=True)
            ]
        except (OSError, ValueError) as error:  # ValueError: nothing, or not all of it
            raise DataError("image: the process that decoded it has ended") from error
        return answer, arrays

    def kill(self) -> None:
        with contextlib.suppress(OSError):  # it has ended, or what was not sent yet
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._jobs.close()
