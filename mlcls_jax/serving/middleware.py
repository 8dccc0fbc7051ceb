"""Middleware of every request: logId and counters, the key, and answers to errors."""

import asyncio
import base64
import hmac
import logging
import uuid
from collections.abc import Mapping

from fastapi import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlcls_jax.serving.refusals import unavailable
from mlcls_jax.serving.schemas import Status
from mlcls_jax.serving.service import Service

PROBES = ("/health", "/ready")
OPEN = (*PROBES, "/")  # without the key: of the model they say nothing

log = logging.getLogger(__name__)


def refuse(
    scope: Scope, code: int, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the answer to a request that is not served."""
    status = Status(logId=scope["state"]["log_id"], errorCode=code, errorMsg=message)
    return Response(status.model_dump_json(), code, headers, media_type="application/json")


class RequireKey:
    """Middleware that lets requests through that have the key, and those of `OPEN` paths."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and scope["path"] not in OPEN:
            headers = Headers(scope=scope)
            scheme, _, key = headers.get("authorization", "").partition(" ")
            if scheme.lower() == "basic":  # as Label Studio sends it, with any name
                key = _password(key)
            elif scheme.lower() != "bearer":
                key = headers.get("x-api-key", "")
            if not hmac.compare_digest(key.strip().encode("latin-1"), self._key):
                reason = "the key is missing or wrong: send Authorization: Bearer KEY, or X-API-Key"
                answer = refuse(scope, 401, reason, {"WWW-Authenticate": "Bearer"})
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials).decode("latin-1").partition(":")[2]
    except ValueError:
        return ""


class TrackRequests:
    """Middleware that gives each request its logId, counts it, and answers faults by status 500."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        log_id = state["log_id"] = str(uuid.uuid4())
        is_surplus = state.get("is_surplus", False)  # see Connection
        status = None
        if scope["method"] == "HEAD":  # as GET everywhere; the connection leaves out the body
            scope = {**scope, "method": "GET"}

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers.setdefault("Cache-Control", "no-store")
                if is_surplus:
                    headers["Connection"] = "close"
            await send(message)

        is_due = not self._service.is_draining
        self._service.open_requests += is_due
        try:
            if is_surplus and scope["path"] not in PROBES:
                full = unavailable("too many connections")
                answer = refuse(scope, full.status_code, full.detail, full.headers)
                await answer(scope, receive, send_on)
            else:
                await self._app(scope, receive, send_on)
        except Exception:
            log.exception("Request %s failed", log_id)
            if status is not None:
                raise  # the answer is on its way, and can only be cut off
            answer = refuse(scope, 500, "internal error; see the log of the server")
            await answer(scope, receive, send_on)
        except asyncio.CancelledError:  # the time for draining is over
            if status is not None:
                raise
            await refuse(scope, 503, "the server has stopped")(scope, receive, send_on)
        finally:
            self._service.open_requests -= is_due
            self._service.monitor.requests.labels(status or 499).inc()
