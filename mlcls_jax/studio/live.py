"""The paths of the page of a run that may still be training."""

from importlib.resources import files
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from mlcls_jax.errors import UserError
from mlcls_jax.reports.live_page import render
from mlcls_jax.reports.page import templates
from mlcls_jax.studio.guard import Guard
from mlcls_jax.studio.routes import Lifespan, asset
from mlcls_jax.workdir import PREDICTIONS


def make_app(workdir: Path, *, token: str | None, lifespan: Lifespan | None = None) -> Starlette:
    """Return the application; with a token, only for those who have it."""
    script = files("mlcls_jax.studio").joinpath("templates", "live.js").read_bytes()
    style = templates.get_template("live.css").render()

    async def page(_: Request) -> Response:
        try:
            text = await run_in_threadpool(render, workdir)
        except (UserError, OSError) as error:  # while somebody removes it
            return PlainTextResponse(str(error), 503)
        return Response(text, media_type="text/html")

    async def picture(_: Request) -> Response:
        path = workdir / PREDICTIONS
        return FileResponse(path) if path.is_file() else PlainTextResponse("there is none", 404)

    routes = {"/": page, f"/{PREDICTIONS}": picture}
    routes |= {"/live.css": asset(style, "text/css"), "/live.js": asset(script, "text/javascript")}
    return Starlette(
        routes=[Route(path, answer) for path, answer in routes.items()],
        middleware=[Middleware(Guard, token=token)],
        lifespan=lifespan,
    )
