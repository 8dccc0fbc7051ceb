"""The process of a server: socket, warm-up, signals, and an end that loses no answer."""

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from mlcls_jax.errors import UserError
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.serving.app import make_app
from mlcls_jax.serving.options import Options
from mlcls_jax.serving.service import Service

log = logging.getLogger(__name__)


def run(predictor: Predictor, options: Options, announce: Callable[[str], None]) -> None:
    """See `mlcls_jax.serving.serve`."""
    listener = _listen(options.host, options.port)
    service = Service(predictor, options)
    failures: list[Exception] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = []
        warming = (service, server, failures)
        # Nobody waits for this thread: a server that is stopped while it compiles just ends.
        threading.Thread(target=_warm_up, args=warming, name="warm-up", daemon=True).start()

        def end() -> None:
            if service.is_draining:  # asked twice
                server.should_exit = server.force_exit = True
            service.is_draining = True
            tasks.append(asyncio.create_task(_drain(service, server)))

        # In place of uvicorn's, which would close the socket at once: until the last answer is
        # given, /ready says 503, and load balancers see it.
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, end)
        yield
        service.close()

    app = make_app(service, lifespan)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,  # for what is being sent; the rest has been waited for
    )
    server = uvicorn.Server(config)
    host = f"[{options.host}]" if ":" in options.host else options.host
    announce(f"Serving on http://{host}:{listener.getsockname()[1]}")
    server.run(sockets=[listener])
    if failures:
        raise failures[0]


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"{host}:{port}: cannot listen there: {error}", "Choose another --port or --host."
        ) from error


def _warm_up(service: Service, server: uvicorn.Server, failures: list[Exception]) -> None:
    started = time.monotonic()
    try:
        service.warm_up()
    except Exception as error:  # noqa: BLE001 - raised again when the server has ended
        failures.append(error)
        server.should_exit = True
    else:
        log.info("Ready after %.1f s", time.monotonic() - started)


async def _drain(service: Service, server: uvicorn.Server) -> None:
    """Let the server end once no answer is due, or when the time is over."""
    log.info("Stopping: %d answers are due", service.open_requests)
    end = time.monotonic() + max(service.options.drain_timeout_s - 1, 0)
    while service.open_requests and time.monotonic() < end:
        await asyncio.sleep(0.02)
    if service.open_requests:
        log.warning("Stopped before %d answers were given", service.open_requests)
    server.should_exit = True
