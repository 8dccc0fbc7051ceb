"""SIGTERM and Ctrl-C: heard of by a thread, whatever the main thread is at."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from types import FrameType
from typing import Any, NoReturn

from mlcls_jax import files
from mlcls_jax.errors import InterruptedRunError, PreemptedError

log = logging.getLogger(__name__)

_INTERRUPTED, _ASKED = InterruptedRunError.exit_code, PreemptedError.exit_code
_PATIENCE = 3.0  # seconds in which the main thread hears of a signal, unless it compiles


class TerminatedError(KeyboardInterrupt):
    """SIGTERM came: the same as Ctrl-C, but for what is said, and for launchers."""


@contextlib.contextmanager
def heard(
    numbers: Collection[int],
    tell: Callable[[int], None],
    handler: Callable[[int, FrameType | None], Any],
) -> Iterator[None]:
    """Call `tell` in a thread for each of these signals in the block, at once.

    `handler` is called as well, in the main thread as soon as that runs Python. Off the main thread
    there is nothing to hear, and nothing is done. Of what is ignored already, as Ctrl-C for a job
    in the background, nothing is told.
    """
    numbers = [n for n in numbers if signal.getsignal(n) is not signal.SIG_IGN]
    try:
        previous = {number: signal.signal(number, handler) for number in numbers}
    except ValueError:
        yield
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        with ours:
            while received := ours.recv(1):
                if received[0] in previous:
                    tell(received[0])

    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        for number, other in previous.items():
            signal.signal(number, other)
        theirs.close()
        thread.join()


def end_when_asked() -> None:
    """Let SIGTERM and Ctrl-C end this process, from now on: for the console command alone.

    The first raises TerminatedError or KeyboardInterrupt in the main thread. If that does not hear
    of it, since it compiles for instance, or when a second comes, the process ends where it is.
    """
    is_heard, is_asked = threading.Event(), threading.Event()

    def interrupt(number: int, _: FrameType | None) -> NoReturn:
        is_heard.set()
        raise KeyboardInterrupt if number == signal.SIGINT else TerminatedError

    def tell(number: int) -> None:
        if is_asked.is_set() or not is_heard.wait(_PATIENCE):
            leave(number, "Ended at once. The same command starts over, or resumes where it can.")
        is_asked.set()

    _for_ever.enter_context(heard((signal.SIGINT, signal.SIGTERM), tell, interrupt))


def outcome(error: KeyboardInterrupt) -> tuple[str, int]:
    """Return what to say of a command that this ended, and its exit code."""
    if isinstance(error, TerminatedError):
        return "Asked to end.", _ASKED
    return "Interrupted.", _INTERRUPTED


def leave(number: int, told: str) -> NoReturn:
    """End the process, which this signal asked for, whatever the main thread is at.

    What is on disk under its own name is whole; what was being written is removed.
    """
    log.info("%s", told)
    end_at_once(_INTERRUPTED if number == signal.SIGINT else _ASKED)


def end_at_once(code: int) -> NoReturn:
    """End the process with this code, waiting for no thread and taking nothing of Python down.

    Where JAX was interrupted, the usual end waits for what other threads compute, and may crash.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    logging.shutdown()
    files.remove_unfinished()
    os._exit(code)


_for_ever = contextlib.ExitStack()
