"""What servers have in common: socket, address, settings of uvicorn, and signals that end them."""

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

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


def address_of(listener: socket.socket, host: str) -> str:
    """Return host and port as they stand in a URL."""
    return f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def make_server(app: Any, **options: Any) -> uvicorn.Server:
    """Return a server that logs warnings alone, and takes nothing from headers of proxies."""
    quiet: dict[str, Any] = {"log_config": None, "log_level": "warning", "access_log": False}
    plain: dict[str, Any] = {"ws": "none", "server_header": False, "proxy_headers": False}
    return uvicorn.Server(uvicorn.Config(app, **quiet, **plain, **options))


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
