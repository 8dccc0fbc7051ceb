"""The paths of the service, over HTTP; every error has the same shape."""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mlcls_jax import __version__
from mlcls_jax.serving import label_studio_backend
from mlcls_jax.serving.middleware import RequireKey, TrackRequests, refuse
from mlcls_jax.serving.monitor import CONTENT_TYPE
from mlcls_jax.serving.refusals import unavailable
from mlcls_jax.serving.requests import max_text, parse
from mlcls_jax.serving.schemas import ENDPOINT, ERRORS, Answer, Health, Status, describe_classify
from mlcls_jax.serving.service import Service
from mlcls_jax.serving.website import docs_page, front_page, settings


def make_app(
    service: Service, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]
) -> FastAPI:
    """Return the application; `lifespan` runs around its life."""
    app = FastAPI(
        title="mlcls",
        summary="Multi-label image classification",
        version=__version__,
        docs_url=None,  # these two load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    for router in (_classification(service), _probes(service), _website(service, app)):
        app.include_router(router)
    if service.options.label_studio:
        app.include_router(label_studio_backend.routes(service, Path(service.options.label_studio)))

    @app.exception_handler(HTTPException)
    async def answer_refusal(request: Request, error: HTTPException) -> Response:
        return refuse(request.scope, error.status_code, error.detail, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def forget(request: Request, _: ClientDisconnect) -> Response:
        return refuse(request.scope, 499, "the client went away")

    options = service.options
    if options.api_key is not None:
        app.add_middleware(RequireKey, key=options.api_key)
    if options.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.cors,
            allow_methods=["GET", "POST"],
            allow_headers=["Content-Type", "Authorization", "X-API-Key"],
        )
    app.add_middleware(TrackRequests, service=service)
    return app


def _classification(service: Service) -> APIRouter:
    router = APIRouter()
    text_limit = max_text(service.predictor.bundle.labels)

    @router.post(
        ENDPOINT,
        response_model=Answer,
        summary="The labels of an image",
        response_description="What was found; errorCode is 0",
        responses=ERRORS,
        openapi_extra=describe_classify(),
    )
    async def classify(request: Request) -> Response:
        started = time.monotonic()
        is_accepted = not service.is_draining  # a body on its way may still arrive
        body = service.body(request)
        try:
            content = await body.read()
            if not is_accepted:
                raise unavailable("the server is about to stop")
            if not service.is_warm:
                raise unavailable("the model is being loaded", after_s=5)
            parsed = parse(request, content, text_limit)
            result = await service.answer(parsed, lambda: _gone(request))
        finally:
            body.close()
        service.monitor.latency.observe(time.monotonic() - started)
        log_id = request.state.log_id
        answer = Answer(logId=log_id, errorCode=0, errorMsg="Success", result=result)
        # As JSON already: FastAPI would check the answer, and turn it into dicts, once more.
        return Response(answer.model_dump_json(), media_type="application/json")

    return router


def _probes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/health", summary="Whether the server lives")
    async def health(request: Request) -> Health:
        return Health(logId=request.state.log_id, errorCode=0, errorMsg="Healthy", status="UP")

    @router.get("/ready", summary="Whether it takes requests", responses={503: ERRORS[503]})
    async def ready(request: Request) -> Status:
        service.check_ready()
        return Status(logId=request.state.log_id, errorCode=0, errorMsg="Ready")

    @router.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.monitor.text(), media_type=CONTENT_TYPE)

    return router


def _website(service: Service, app: FastAPI) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    front, front_policy = front_page()

    @router.get("/")
    async def page() -> Response:
        return HTMLResponse(front, headers={"Content-Security-Policy": front_policy})

    @router.get("/settings")
    async def page_settings() -> Response:
        return JSONResponse(settings(service))

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        text, policy = docs_page(app.openapi(), str(request.base_url))
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    return router


async def _gone(request: Request) -> None:
    # The body has been read: what comes now is the end of the connection.
    while (await request.receive())["type"] != "http.disconnect":
        pass
