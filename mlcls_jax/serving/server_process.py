"""The process of a server: socket, warm-up, signals, and an end that loses no answer."""

import asyncio
import logging
import os
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from mlcls_jax.errors import UserError
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.serving.app import make_app
from mlcls_jax.serving.connections import Connection
from mlcls_jax.serving.listener import address_of, listen, make_server, on_signals
from mlcls_jax.serving.options import Options
from mlcls_jax.serving.service import Service

log = logging.getLogger(__name__)


def run(predictor: Predictor, options: Options, announce: Callable[[str], None]) -> None:
    """See `mlcls_jax.serving.serve`."""
    check_tls(options.tls_cert, options.tls_key)
    listener = listen(options.host, options.port)
    service = Service(predictor, options)
    failures: list[Exception] = []
    warm_up = threading.Thread(
        target=lambda: _warm_up(service, server, failures), name="warm-up", daemon=True
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = []

        def end() -> None:
            if service.is_draining:  # asked twice
                server.should_exit = server.force_exit = True
            service.is_draining = True
            tasks.append(asyncio.create_task(_drain(service, server)))

        # In place of uvicorn's, which would close the socket at once: until the last answer is
        # given, /ready says 503, and load balancers see it.
        on_signals(asyncio.get_running_loop(), end)
        warm_up.start()
        yield
        service.close()

    app = make_app(service, lifespan)
    server = make_server(
        app,
        http=partial(Connection, options=options),
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
        timeout_graceful_shutdown=1,  # for what is being sent; the rest has been waited for
    )
    scheme = "https" if options.tls_cert else "http"
    announce(f"Serving on {scheme}://{address_of(listener, options.host)}")
    server.run(sockets=[listener])
    _await_compiler(warm_up, options.drain_timeout_s)
    if failures:
        raise failures[0]


def check_tls(cert: str | None, key: str | None) -> None:
    """Open the two files for HTTPS, if any.

    Raises:
      UserError: which of them is not there, is of another kind, or does not belong to the other.
    """
    if cert is None or key is None:
        return
    for path, kind, content in [
        (cert, "a certificate", "-----BEGIN CERTIFICATE-----"),
        (key, "a private key", "PRIVATE KEY-----"),
    ]:
        try:
            text = Path(path).read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        if content not in text:
            raise UserError(
                f"{path}: holds no {kind[2:]} in PEM", f"A file with {content} … is it."
            )
    try:
        # The password of an empty one: OpenSSL would ask the terminal for that of a locked key.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        raise UserError(
            f"{key}: cannot be used with {cert}: {error}",
            "The key must be that of the file's first certificate, and have no password.",
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


def _await_compiler(warm_up: threading.Thread, timeout_s: float) -> None:
    """Return once the models are compiled, or end the process when that takes too long.

    XLA cannot be interrupted, and an interpreter that shuts down while XLA compiles may crash.
    """
    if warm_up.ident is None:  # the server has not come so far
        return
    warm_up.join(timeout_s)
    if warm_up.is_alive():
        log.warning("Stopped while the model was being compiled")
        logging.shutdown()
        os._exit(0)


async def _drain(service: Service, server: uvicorn.Server) -> None:
    """Let the server end once no answer is due, or when the time is over."""
    log.info("Stopping: %d answers are due", service.open_requests)
    end = time.monotonic() + max(service.options.drain_timeout_s - 1, 0)
    while service.open_requests and time.monotonic() < end:
        await asyncio.sleep(0.02)
    if service.open_requests:
        log.warning("Stopped before %d answers were given", service.open_requests)
    server.should_exit = True
