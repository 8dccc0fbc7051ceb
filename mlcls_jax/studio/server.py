"""The process of a studio: its parts, socket and end."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

from starlette.applications import Starlette

from mlcls_jax.config import Data
from mlcls_jax.errors import UserError
from mlcls_jax.lock import locked
from mlcls_jax.reports.live_page import render
from mlcls_jax.reports.page import Page
from mlcls_jax.serving.listener import address_of, listen, make_server, on_signals
from mlcls_jax.studio.changes import ChangeLog
from mlcls_jax.studio.dataset import Dataset, read_dataset
from mlcls_jax.studio.facts import Facts
from mlcls_jax.studio.guard import LOOPBACK
from mlcls_jax.studio.jobs import Job
from mlcls_jax.studio.live import make_app as make_live_app
from mlcls_jax.studio.pictures import Pictures
from mlcls_jax.studio.queues import no_queue, read_queue
from mlcls_jax.studio.routes import Studio, make_app
from mlcls_jax.studio.scores import Scores
from mlcls_jax.studio.session import Session
from mlcls_jax.studio.text_search import Words
from mlcls_jax.studio.thumbnails import Thumbnails

CHANGES = "changes.jsonl"
_PATIENCE_S = 10.0  # for jobs, at the end


def run(
    config: Data,
    *,
    model_dirs: Sequence[str],
    words: tuple[str, str | None] | None,
    queue: Path | None,
    changes: Path | None,
    unlisted: bool,
    compare: Callable[[bool], Page],
    host: str,
    port: int,
    token: str | None,
    announce: Callable[[str], None],
) -> int:
    """Show the data set until SIGINT or SIGTERM; return how many images have changes in no list.

    `words` are a model with towers of images and texts, and its weights, None: the published ones;
    `compare` makes a page of the models side by side, with their speed if it is given True.

    Beyond the loopback address there is always a token: the given one, or a new one.

    Raises:
      UserError: the data set, the queue or the log cannot be read, or the port is taken.
      WorkdirError: another studio mends the same data set.
    """
    dataset = read_dataset(config, unlisted=unlisted)
    folder = changes or dataset.root / "studio"
    _make(folder)
    with locked(folder), closing(ChangeLog(folder / CHANGES)) as log:
        studio = _open(dataset, log, model_dirs, words, queue, compare)
        _serve(partial(make_app, studio), host, port, token, announce)
        left = studio.session.num_changed
    if studio.pictures is not None:
        studio.pictures.close()
    ended = [job.stop(_PATIENCE_S) for job in studio.jobs.values()]
    if not all(ended):  # a compiler cannot be interrupted, and must not see the end of Python
        os._exit(0)
    return left


def watch(
    workdir: Path, *, host: str, port: int, token: str | None, announce: Callable[[str], None]
) -> None:
    """Show a run that may still be training, until SIGINT or SIGTERM.

    Raises:
      UserError: there is no run in the folder, or the port is taken.
    """
    render(workdir)  # or say why not
    _serve(partial(make_live_app, workdir), host, port, token, announce)


def _serve(
    make: Callable[..., Starlette],
    host: str,
    port: int,
    token: str | None,
    announce: Callable[[str], None],
) -> None:
    """Answer until a signal comes; `make` makes the application with a token and a lifespan."""
    if token is None and host not in LOOPBACK:
        token = secrets.token_urlsafe(24)

    def end() -> None:
        server.should_exit = True

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        on_signals(asyncio.get_running_loop(), end)  # uvicorn's would end the process
        announce(f"http://{address_of(listener, host)}/" + (f"?token={token}" if token else ""))
        yield

    app = make(token=token, lifespan=lifespan)
    with listen(host, port) as listener:
        server = make_server(app, timeout_graceful_shutdown=3)
        server.run(sockets=[listener])


def _make(folder: Path) -> None:
    """Make the folder of the log, or say why it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_open = os.access(folder, os.W_OK)
    except OSError:
        is_open = False
    if not is_open:
        hint = "--changes FOLDER names another place for the log of changes."
        raise UserError(f"{folder}: cannot be written to", hint)


def _open(
    dataset: Dataset,
    log: ChangeLog,
    model_dirs: Sequence[str],
    words: tuple[str, str | None] | None,
    queue: Path | None,
    compare: Callable[[bool], Page],
) -> Studio:
    facts = Facts.of(dataset)
    models = [Scores(dataset, model_dir) for model_dir in model_dirs]
    tower = Words(dataset, *words) if words else None
    alike = models[0] if models else tower  # whose embeddings say which images are alike
    jobs = {
        "sizes": Job("Reading sizes", facts.read_sizes),
        "check": Job("Looking for faults and near duplicates", facts.check),
    }
    for number, one in enumerate(models):
        jobs[f"scores{number}"] = Job(f"Asking {one.name}", one.compute)
        jobs[f"scores{number}"].start()
    if tower is not None:
        jobs["words"] = Job("Looking at the images, to find them by words", tower.compute)
        jobs["words"].start()
    return Studio(
        session=Session(dataset, log),
        facts=facts,
        thumbnails=Thumbnails(),
        queue=read_queue(queue, dataset) if queue else no_queue(),
        models=models,
        words=tower,
        pictures=Pictures(alike) if alike else None,
        jobs=jobs,
        compare=compare,
    )
