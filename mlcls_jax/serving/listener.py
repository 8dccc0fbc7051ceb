"""The socket that a server listens at, and the signals that end it."""

import asyncio
import signal
import socket
from collections.abc import Callable

from mlcls_jax.errors import UserError


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address.

    Raises:
      UserError: the port is taken, or the address is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"{host}:{port}: cannot listen there: {error}", "Choose another --port or --host."
        ) from error


def on_signals(loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> None:
    """Let `end` be called in `loop` for SIGTERM, SIGINT and what Windows has besides."""
    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is None:
            continue
        try:
            loop.add_signal_handler(number, end)
        except NotImplementedError:  # on Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(end))
