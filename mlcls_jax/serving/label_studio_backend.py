"""A machine learning backend for Label Studio: predictions from which people begin to label.

Its protocol: POST /setup with the labelling interface, then POST /predict with tasks; the answer
has a prediction for each. POST /webhook and /train are taken and change nothing: training is a run.
Images are read below one folder, LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT or that of its uploads, or
fetched from the hosts of `allow_urls`; they may also be in the task itself, as data: URIs.
"""

import asyncio
import io
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mlcls_jax.data.convert.label_studio import prediction
from mlcls_jax.data.image_files import is_image_name
from mlcls_jax.errors import UserError
from mlcls_jax.parsing import parse_json, parse_xml
from mlcls_jax.serving.refusals import shown, unprocessable
from mlcls_jax.serving.requests import ParsedRequest
from mlcls_jax.serving.schemas import ClassifyOptions, ClassifyResult
from mlcls_jax.serving.service import Service

log = logging.getLogger(__name__)


_USUAL = ClassifyOptions(threshold=None, visualize=None, explain=None)


class Interface(NamedTuple):
    """What of a labelling interface predictions are about."""

    from_name: str  # of the choices
    to_name: str  # of the image
    key: str  # of the data that names the image
    names: dict[str, str]  # label of the model → choice
    is_single: bool


def routes(service: Service, folder: Path) -> APIRouter:
    """Return the paths of the protocol besides /health; images are read below `folder`."""
    router = APIRouter(include_in_schema=False)
    labels = service.predictor.bundle.labels
    version = service.predictor.bundle.model.network.config.name

    @router.post("/setup")
    async def setup(request: Request) -> JSONResponse:
        given = await _body(request, service)
        if given.get("schema"):  # a project that has no interface yet has none
            interface_of(given["schema"], labels)
        return JSONResponse({"model_version": version})

    @router.post("/predict")
    async def predict(request: Request) -> JSONResponse:
        given = await _body(request, service)
        service.check_ready()
        tasks = given.get("tasks")
        if not isinstance(tasks, list):
            raise unprocessable("tasks: must be a list")
        if len(tasks) > service.options.queue_size:
            raise unprocessable(f"{len(tasks)} tasks: more than this server's queue holds")
        interface = interface_of(given.get("label_config"), labels)
        results = await _all(tasks, interface, service, folder, version)
        return JSONResponse({"results": results, "model_version": version})

    @router.post("/webhook", status_code=201)
    @router.post("/train", status_code=201)
    async def ignore(request: Request) -> JSONResponse:
        await _body(request, service)
        return JSONResponse({}, 201)

    return router


async def _body(request: Request, service: Service) -> dict[str, Any]:
    """Return the JSON object that was sent."""
    sent = service.body(request)
    try:
        found = await asyncio.to_thread(parse_json, await sent.read(), "body", UserError)
    except UserError as error:
        raise unprocessable(error.message) from error
    finally:
        sent.close()
    if not isinstance(found, dict):
        raise unprocessable("body: must be a JSON object")
    return found


async def _all(
    tasks: list[Any], interface: Interface, service: Service, folder: Path, version: str
) -> list[dict[str, Any]]:
    """Return the predictions for tasks; one that fails gets an empty one, unless all do.

    Raises:
      HTTPException: all failed; the first one's.
    """
    at_once = asyncio.Semaphore(service.options.max_batch)

    async def one(task: Any) -> dict[str, Any] | HTTPException:
        async with at_once:
            try:
                return await _predicted(task, interface, service, folder, version)
            except HTTPException as error:
                return error

    results = await asyncio.gather(*map(one, tasks))
    faults = [result for result in results if isinstance(result, HTTPException)]
    if faults and len(faults) == len(results):
        raise faults[0]
    for fault in faults:
        log.warning("Label Studio: a task without prediction: %s", fault.detail)
    empty = {"model_version": version, "score": 0.0, "result": []}
    return [empty if isinstance(result, HTTPException) else result for result in results]


def interface_of(config: Any, labels: tuple[str, ...]) -> Interface:
    """Return the first choices of an image, among which are labels of the model.

    Raises:
      HTTPException: there are none (422).
    """
    if not isinstance(config, str) or not config.strip():
        raise unprocessable("label_config: the labelling interface is missing")
    try:
        root = parse_xml(io.BytesIO(config.encode()), UserError, place="label_config")
    except (UserError, UnicodeEncodeError) as error:
        raise unprocessable(str(error)) from error
    images = {tag.get("name"): tag.get("value", "").lstrip("$") for tag in root.iter("Image")}
    for tag in root.iter("Choices"):
        to_name = (tag.get("toName") or "").split(",")[0]
        if not tag.get("name") or not images.get(to_name):
            continue
        given = [one.get("alias") or one.get("value") or "" for one in tag.iter("Choice")]
        by_fold = {choice.casefold(): choice for choice in reversed(given)}
        found = {label: by_fold.get(label.casefold()) for label in labels}
        names = {label: choice for label, choice in found.items() if choice}
        if not names:
            raise unprocessable(
                f"label_config: none of the choices {shown(', '.join(given))} is a label of this"
                f" model: {shown(', '.join(labels))}"
            )
        is_single = tag.get("choice", "single").startswith("single")
        return Interface(tag.get("name", ""), to_name, images[to_name], names, is_single)
    raise unprocessable("label_config: has no <Choices> with an <Image>")


async def _predicted(
    task: Any, interface: Interface, service: Service, folder: Path, version: str
) -> dict[str, Any]:
    """Return the prediction for a task.

    Raises:
      HTTPException: its image cannot be had, or the server is too busy.
    """
    data = task.get("data") if isinstance(task, dict) else None
    given = data.get(interface.key) if isinstance(data, dict) else None
    if not isinstance(given, str) or not given:
        raise unprocessable(f"a task's data has no text at {shown(interface.key)}")
    image = given
    if not given[:8].lower().startswith(("http://", "https://", "data:")):
        image = await asyncio.to_thread(_local, given, folder, service.options.max_body_bytes)
    answer = await service.answer(ParsedRequest((image,), _USUAL), _waits)
    assert isinstance(answer, ClassifyResult)
    rows = [(interface.names.get(row["name"]), row["score"]) for row in answer.categories]
    found = {name: score for name, score in rows if name}
    if interface.is_single:
        found = dict(list(found.items())[:1])
    names = {"from_name": interface.from_name, "to_name": interface.to_name}
    return prediction(found, version, **names)


def _local(given: str, folder: Path, limit: int) -> bytes:
    """Return the content of an image of Label Studio's local files or uploads.

    Raises:
      HTTPException: it is not there, too large, no image, or not below the folder (422).
    """
    try:
        url = urlsplit(given)
        path = (parse_qs(url.query).get("d") or [unquote(url.path).removeprefix("/data/")])[0]
        # By its name: links that lie in the folder are their owner's.
        file = folder / os.path.normpath(f"/{path}").lstrip("/")
        if not is_image_name(file.name) or not file.is_file():
            raise unprocessable(f"{shown(given)}: no such image below the folder of --label_studio")
        if file.stat().st_size > limit:
            raise unprocessable(f"{shown(given)}: larger than {limit} bytes")
        return file.read_bytes()
    except (OSError, ValueError) as error:
        raise unprocessable(f"{shown(given)}: cannot be read") from error


async def _waits() -> None:
    """Wait for ever: other tasks of the same request may still be at work."""
    await asyncio.Event().wait()
