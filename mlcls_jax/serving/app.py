"""The paths of the service, over HTTP; every error has the same shape."""

import asyncio
import hmac
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlcls_jax import __version__
from mlcls_jax.serving.bodies import Body, Meter
from mlcls_jax.serving.monitor import CONTENT_TYPE
from mlcls_jax.serving.pages import docs_page, front_page, settings
from mlcls_jax.serving.requests import Choices, Question, busy, max_text, parse
from mlcls_jax.serving.service import Service

ENDPOINT = "/multilabel-image-classification"
PROBES = ("/health", "/ready")
OPEN = (*PROBES, "/")  # without the key: of the model they say nothing

log = logging.getLogger(__name__)


class Category(BaseModel):
    """A label found."""

    id: int
    name: str
    score: float
    evidence: list[list[float]] | None = None


class Found(BaseModel):
    """What was found in an image."""

    categories: list[Category]
    image: str | None


class Status(BaseModel):
    """An answer without a result: an error, or that all is well."""

    logId: str  # noqa: N815 - as the originals write it
    errorCode: int  # noqa: N815
    errorMsg: str  # noqa: N815


class Answer(Status):
    """A result."""

    result: Found


_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": Status, "description": "The server has a key, and this request has another"},
    408: {"model": Status, "description": "The body did not arrive in time"},
    413: {"model": Status, "description": "The body is too large"},
    422: {"model": Status, "description": "The request is at fault; errorMsg says how"},
    500: {"model": Status, "description": "A fault of the server; its log has the logId"},
    503: {"model": Status, "description": "Full, draining or not warm: see Retry-After"},
    504: {"model": Status, "description": "No answer in time"},
}


def make_app(
    service: Service, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]
) -> FastAPI:
    """The application; `lifespan` runs around its life."""
    app = FastAPI(
        title="mlcls",
        summary="Multi-label image classification",
        version=__version__,
        docs_url=None,  # these two load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    options, monitor = service.options, service.monitor
    meter = Meter(options.max_held_mb * 2**20)
    limit = int(options.max_body_mb * 2**20)
    text_limit = max_text(service.predictor.bundle.labels)

    @app.post(
        ENDPOINT,
        summary="The labels of an image",
        response_model=Answer,
        responses=_ERRORS,
        openapi_extra=_request_schema(),
    )
    async def classify(request: Request) -> Response:
        started = time.monotonic()
        is_accepted = not service.is_draining  # a body on its way may still arrive
        body = Body(request, limit=limit, timeout_s=options.body_timeout_s, meter=meter)
        try:
            content = await body.read()
            if not is_accepted:
                raise busy("the server is about to stop")
            if not service.is_warm:
                raise busy("the model is being loaded", after_s=5)
            asked = parse(request, content, text_limit)
            result = await service.answer(asked, lambda: _gone(request))
        finally:
            body.close()
        monitor.latency.observe(time.monotonic() - started)
        return _json(request, 200, "Success", result=result)

    @app.get("/health", summary="Whether the server lives", response_model=Status)
    async def health(request: Request) -> Response:
        return _json(request, 200, "Healthy")

    @app.get(
        "/ready",
        summary="Whether it takes requests",
        response_model=Status,
        responses={503: _ERRORS[503]},
    )
    async def ready(request: Request) -> Response:
        if service.is_draining or not service.is_warm:
            raise busy("draining" if service.is_draining else "the model is being loaded")
        return _json(request, 200, "Ready")

    @app.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(monitor.text(), media_type=CONTENT_TYPE)

    front, front_policy = front_page()

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(front, headers={"Content-Security-Policy": front_policy})

    @app.get("/settings", include_in_schema=False)
    async def page_settings() -> Response:
        return JSONResponse(settings(service))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        text, policy = docs_page(app.openapi())
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        return _refusal(request, error)

    @app.exception_handler(ClientDisconnect)
    async def forget(request: Request, _: ClientDisconnect) -> Response:
        return _json(request, 499, "the client went away")

    if options.api_key is not None:
        app.add_middleware(Locked, key=options.api_key)
    if options.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.cors,
            allow_methods=["GET", "POST"],
            allow_headers=["Content-Type", "Authorization", "X-API-Key"],
        )
    app.add_middleware(Around, service=service)
    return app


class Locked:
    """Lets requests through that have the key, and those of `OPEN` paths."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and scope["path"] not in OPEN:
            headers = Headers(scope=scope)
            scheme, _, key = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer":
                key = headers.get("x-api-key", "")
            if not hmac.compare_digest(key.strip().encode("latin-1"), self._key):
                reason = "the key is missing or wrong: send Authorization: Bearer KEY, or X-API-Key"
                answer = _json(Request(scope), 401, reason, headers={"WWW-Authenticate": "Bearer"})
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Around:
    """Around every request: its logId, its count, headers, and status 500 for what went wrong."""

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
                await _refusal(Request(scope), busy("too many connections"))(
                    scope, receive, send_on
                )
            else:
                await self._app(scope, receive, send_on)
        except Exception:
            log.exception("Request %s failed", log_id)
            if status is not None:
                raise  # the answer is on its way, and can only be cut off
            answer = _json(Request(scope), 500, "internal error; the log of the server tells more")
            await answer(scope, receive, send_on)
        except asyncio.CancelledError:  # the time for draining is over
            if status is not None:
                raise
            await _json(Request(scope), 503, "the server has stopped")(scope, receive, send_on)
        finally:
            self._service.open_requests -= is_due
            self._service.monitor.requests.labels(status or 499).inc()


def _json(
    request: Request,
    code: int,
    message: str,
    *,
    result: dict[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    status = {
        "logId": request.state.log_id,
        "errorCode": 0 if code == 200 else code,
        "errorMsg": message,
    }
    if result is not None:
        status["result"] = result
    return JSONResponse(status, code, headers)


def _refusal(request: Request, error: HTTPException) -> Response:
    return _json(request, error.status_code, error.detail, headers=error.headers)


async def _gone(request: Request) -> None:
    # The body has been read: what comes now is the end of the connection.
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _request_schema() -> dict[str, Any]:
    """The three forms of a request, for OpenAPI."""
    options = Choices.model_json_schema()["properties"]
    file = {"type": "string", "format": "binary", "description": "an image file"}
    form = {"type": "object", "required": ["file"], "properties": {"file": file, **options}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": Question.model_json_schema()},
                "multipart/form-data": {"schema": form},
                "image/*": {"schema": file},
            },
        },
        "parameters": [
            {"name": name, "in": "query", "schema": schema, "description": "with image/* only"}
            for name, schema in options.items()
        ],
    }
