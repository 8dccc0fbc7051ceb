"""The paths of a studio, over HTTP."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mlcls_jax.errors import InputError, UserError
from mlcls_jax.inference.drawing import to_jpeg
from mlcls_jax.parsing import parse_json
from mlcls_jax.readable import readable
from mlcls_jax.reports.page import Page
from mlcls_jax.studio.changes import VALUES
from mlcls_jax.studio.facts import Facts
from mlcls_jax.studio.filters import Query, find, read_query
from mlcls_jax.studio.guard import NEVER, POLICY_HEADER, Guard
from mlcls_jax.studio.jobs import Job
from mlcls_jax.studio.pictures import Pictures
from mlcls_jax.studio.queues import Queue
from mlcls_jax.studio.scores import Scores
from mlcls_jax.studio.session import Cell, Session
from mlcls_jax.studio.text_search import Words
from mlcls_jax.studio.thumbnails import Thumbnails, for_browser

log = logging.getLogger(__name__)

MAX_ROWS = 500  # told of in one answer
_KEEP = {"Cache-Control": "private, no-cache"}  # asked again each time, and mostly "not modified"
_PAGE = {"": "text/html", "studio.js": "text/javascript", "studio.css": "text/css"}


@dataclass(frozen=True)
class Studio:
    """All that the page shows."""

    session: Session
    facts: Facts
    thumbnails: Thumbnails
    queue: Queue
    models: Sequence[Scores]
    words: Words | None
    pictures: Pictures | None
    jobs: dict[str, Job]
    compare: Callable[[bool], Page]  # of the models, side by side; True: with their speed


Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


def make_app(studio: Studio, *, token: str | None, lifespan: Lifespan | None = None) -> Starlette:
    """Return the application; with a token, only for those who have it.

    `lifespan` runs around its life.
    """
    folder = files("mlcls_jax.studio").joinpath("templates")
    routes = [
        Route(f"/{name}", asset(folder.joinpath(name or "studio.html").read_bytes(), kind))
        for name, kind in _PAGE.items()
    ]
    for path, answer in {
        "/state": _state,
        "/find": _find,
        "/rows": _rows,
        "/row/{row:int}": _row,
        "/changes": _changes,
        "/thumbnail/{row:int}": _thumbnail,
        "/image/{row:int}": _image,
        "/evidence/{row:int}/{label:int}": _evidence,
        "/compare": _compare,
    }.items():
        routes.append(Route(path, _answering(studio, answer)))
    for path, action in {"/change": _change, "/write": _write, "/job": _job}.items():
        routes.append(Route(path, _acting(studio, action), methods=["POST"]))
    routes.append(Route("/picture", _picture(studio), methods=["POST"]))
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={HTTPException: _refused, UserError: _faulty, OSError: _broken},
    )


def asset(content: bytes | str, kind: str) -> Callable[[Request], Any]:
    """Return what answers with a part of a page."""

    async def answer(_: Request) -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8", headers={**_KEEP})

    return answer


def _answering(studio: Studio, answer: Callable[[Studio, Request], Response]) -> Any:
    async def run(request: Request) -> Response:
        return await run_in_threadpool(answer, studio, request)

    return run


def _acting(studio: Studio, action: Callable[[Studio, dict[str, Any]], Any]) -> Any:
    async def run(request: Request) -> Response:
        try:
            asked = parse_json(await request.body(), "body", InputError)
        except InputError as error:
            raise HTTPException(400, error.message) from None
        if not isinstance(asked, dict):
            raise HTTPException(400, "the body is no JSON object")
        return JSONResponse(await run_in_threadpool(action, studio, asked))

    return run


def _picture(studio: Studio) -> Any:
    async def run(request: Request) -> Response:
        return JSONResponse({"picture": await _of_pictures(studio).add(request)})

    return run


def _of_pictures(studio: Studio) -> Pictures:
    if studio.pictures is None:
        hint = "Start the studio with --model_dir BUNDLE."
        raise InputError("there is no model by which images are compared", hint)
    return studio.pictures


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code)


async def _faulty(_: Request, error: Exception) -> Response:
    assert isinstance(error, UserError)
    return PlainTextResponse(readable(f"{error.message} {error.hint or ''}".strip()), 422)


async def _broken(_: Request, error: Exception) -> Response:
    log.error("cannot be kept: %s", error)
    return PlainTextResponse(f"nothing was changed: {error}", 507)


def _state(studio: Studio, _: Request) -> Response:
    data = studio.session.dataset
    facts = {
        "name": readable(data.root.resolve().name),
        "images": len(data),
        "labels": data.labels,
        "parents": data.groups.parents,
        "lists": {name: int((data.list_number == i).sum()) for i, name in enumerate(data.lists)},
        "revision": studio.session.log.revision,
        "changed": studio.session.num_changed,
        "left_out": [f"{f.place}: {f.message}" for f in data.faults[:20]],
        "queue": len(studio.queue.rows),
        "faults": studio.facts.kinds(),
        "twins": len(studio.facts.twins),
        "jobs": {name: job.facts() for name, job in studio.jobs.items()},
        "models": [
            {
                "name": readable(one.name),
                "thresholds": _limits(one),
                "explains": one.can_explain,
            }
            for one in studio.models
        ],
    }
    return JSONResponse(facts)


def _find(studio: Studio, request: Request) -> Response:
    query = read_query(request.query_params)
    near = _nearness(studio, query)
    rows = find(query, studio.session, studio.facts, studio.models, studio.queue.rows, near)
    return Response(rows.astype("<i4").tobytes(), media_type="application/octet-stream")


def _nearness(studio: Studio, query: Query) -> np.ndarray | None:
    """Return how near each image is to what the query compares them with, [N]; None: nothing."""
    if query.words:
        if studio.words is None:
            raise InputError("no model knows words", "Start the studio with --words MODEL.")
        return studio.words.nearness(query.words)
    if query.picture:
        return _of_pictures(studio).nearness(query.picture)
    if query.similar is None:
        return None
    embeddings = _of_pictures(studio).model.embeddings
    return embeddings.nearness(embeddings.values[_checked(studio, query.similar)])


def _rows(studio: Studio, request: Request) -> Response:
    """Answer with what the grid shows of some rows: name, labels, the best score."""
    try:
        rows = [int(text) for text in request.query_params["rows"].split(",")][:MAX_ROWS]
    except (KeyError, ValueError):
        raise HTTPException(400, "rows: must be numbers with commas between them") from None
    return JSONResponse([_told(studio, row) for row in rows if _has(studio, row)])


def _row(studio: Studio, request: Request) -> Response:
    row = _checked(studio, request.path_params["row"])
    data, told = studio.session.dataset, _told(studio, row)
    told["list"] = data.lists[data.list_number[row]]
    told["size"] = studio.facts.pixels[row].tolist()
    told["faults"] = [message for _, message in studio.facts.faults.get(row, ())]
    told["twins"] = sorted(studio.facts.twins.get(row, ()))
    told["queue"] = studio.queue.told.get(row, [])
    told["history"] = [c._asdict() for c in studio.session.log.history(data.images[row])][-50:]
    told["scores"] = [
        [None if np.isnan(v) else round(float(v), 4) for v in one.values[row]]
        for one in studio.models
    ]
    return JSONResponse(told)


def _told(studio: Studio, row: int) -> dict[str, Any]:
    target = studio.session.targets[row]
    return {
        "row": row,
        "name": readable(studio.session.dataset.images[row]),
        "present": np.flatnonzero(target == 1).tolist(),
        "unsure": np.flatnonzero(target < 0).tolist(),
        "said": [_said(one, row) for one in studio.models],
    }


def _limits(scores: Scores) -> list[float | None]:
    """Return the thresholds of a model; None: it does not know the label."""
    limits = np.round(scores.thresholds.astype(float), 4).tolist()
    return [limit if knows else None for limit, knows in zip(limits, scores.knows, strict=True)]


def _said(scores: Scores, row: int) -> list[int] | None:
    """Return which labels a model reports of a row; None: it has not been asked, or cannot tell."""
    values = scores.values[row]
    said = np.flatnonzero(values > scores.thresholds)  # of NaN: no
    return None if np.isnan(values).all() else said.tolist()


def _has(studio: Studio, row: int) -> bool:
    return 0 <= row < len(studio.session.dataset)


def _checked(studio: Studio, row: int) -> int:
    if not _has(studio, row):
        raise HTTPException(404, "there is no such image")
    return row


def _changes(studio: Studio, request: Request) -> Response:
    text = request.query_params.get("since", "")
    return JSONResponse(studio.session.since(int(text) if text.isdecimal() else -1))


def _thumbnail(studio: Studio, request: Request) -> Response:
    return _picture_of(studio, request, lambda path: (studio.thumbnails.get(path), "image/jpeg"))


def _image(studio: Studio, request: Request) -> Response:
    return _picture_of(studio, request, for_browser)


def _picture_of(
    studio: Studio, request: Request, read: Callable[[Path], tuple[bytes, str]]
) -> Response:
    """Answer with content and media type, unless the browser has them of the file as it is."""
    path = studio.session.dataset.path(_checked(studio, request.path_params["row"]))
    tag = f'"{studio.thumbnails.tag(path)}"'
    headers = {**_KEEP, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    content, kind = read(path)
    return Response(content, media_type=kind, headers=headers)


def _evidence(studio: Studio, request: Request) -> Response:
    row, label = _checked(studio, request.path_params["row"]), request.path_params["label"]
    asked = request.query_params.get("model", "0")
    model = dict(enumerate(studio.models)).get(int(asked) if asked.isdecimal() else -1)
    seen = model.seen(row, label) if model else None
    if seen is None:
        raise HTTPException(404, "the model does not say where it looked for this label")
    return Response(to_jpeg(seen), media_type="image/jpeg")


def _compare(studio: Studio, _: Request) -> Response:
    if not studio.models:
        raise InputError("there are no models to compare", "Give them: --model_dir RUN RUN.")
    is_busy = any(job.state == "running" for job in studio.jobs.values())
    made = studio.compare(not is_busy)  # whose times would be wrong
    return HTMLResponse(made.text, headers={POLICY_HEADER: f"{made.policy}; {NEVER}"})


def _change(studio: Studio, asked: dict[str, Any]) -> Any:
    """Set labels: {"window", "cells": [[row, label, old, new], …], "follows": true or false}."""
    window, cells = asked.get("window"), asked.get("cells")
    if not isinstance(window, str) or len(window) > 64 or not isinstance(cells, list):
        raise HTTPException(400, "window and cells are needed")
    count = len(studio.session.dataset.labels)
    checked = []
    for cell in cells:
        is_good = isinstance(cell, list) and len(cell) == 4 and all(type(n) is int for n in cell)
        if not is_good or not _has(studio, cell[0]) or not 0 <= cell[1] < count:
            raise HTTPException(400, "a cell is [row, label, old value, new value]")
        if not {cell[2], cell[3]} <= {*VALUES}:
            raise HTTPException(400, "a value is 1, 0 or -1")
        checked.append(Cell(*cell))
    return studio.session.change(window, checked, follows=asked.get("follows") is True)


def _write(studio: Studio, asked: dict[str, Any]) -> Any:
    backups = studio.session.write(str(asked.get("window", ""))[:64])
    for name, backup in backups.items():
        log.info("%s is written; the one before is %s.", name, backup)
    return {"backups": backups}


def _job(studio: Studio, asked: dict[str, Any]) -> Any:
    job = studio.jobs.get(str(asked.get("name")))
    if job is None:
        raise HTTPException(404, "there is no such job")
    job.start()
    return job.facts()
