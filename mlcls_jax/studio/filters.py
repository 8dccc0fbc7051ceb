"""Which images are shown, and in which order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

import numpy as np

from mlcls_jax.errors import InputError
from mlcls_jax.studio.changes import Change
from mlcls_jax.studio.facts import Facts
from mlcls_jax.studio.scores import Scores
from mlcls_jax.studio.session import Session

SORTS = ("list", "name", "labels", "score", "uncertain", "disagree", "differ", "size", "changed")


@dataclass(frozen=True)
class Query:
    """What the page's form asks for; a field that is None or empty asks for nothing."""

    list: str = ""  # name of a list
    label: int | None = None  # that `value`, the scores and the order are about; None: any
    value: int | None = None  # 1, 0 or -1
    model: int | None = None  # whose scores are asked for; None: the first
    low: float | None = None  # of the score
    high: float | None = None
    disagree: bool = False  # model and label differ
    differ: bool = False  # one model reports the label, another does not
    changed: bool = False  # since the lists were written
    queued: bool = False  # in the queue
    fault: str = ""  # a kind of finding, or "any"
    twins: bool = False  # looks like another image
    below: int | None = None  # pixels of the shorter side
    name: str = ""  # a part of the path
    similar: int | None = None  # row whose picture the others are compared with
    words: str = ""  # that they are compared with
    picture: str = ""  # that was sent, by its name
    sort: str = "list"
    falling: bool = False


def read_query(given: Mapping[str, str]) -> Query:
    """Return the query in the parameters of an address.

    Raises:
      InputError: a parameter is unknown, or not of its kind.
    """
    kinds: dict[str, Any] = {f.name: f.type for f in fields(Query)}
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in kinds:
            raise InputError(f"{name}: there is no such filter")
        try:
            values[name] = _value(kinds[name], text)
        except ValueError as error:
            raise InputError(f"{name}={text}: is no {kinds[name]}") from error
    query = Query(**values)
    if query.sort not in SORTS and query.sort != "queue":
        raise InputError(f"sort={query.sort}: must be one of {', '.join(SORTS)} or queue")
    return query


def _value(kind: Any, text: str) -> Any:
    if kind is bool:
        return text == "1"
    if kind is str:
        return text
    if not text:
        return None
    return int(text) if kind == int | None else float(text)


def find(
    query: Query,
    session: Session,
    facts: Facts,
    models: Sequence[Scores],
    queue: np.ndarray,
    nearness: np.ndarray | None = None,
) -> np.ndarray:
    """Return the rows that a query asks for, in its order: int32.

    `queue` are rows in the order of somebody's list. `nearness` [N], where it is given, is that to
    what the query compares images with, NaN: not known.

    Raises:
      InputError: a label, a row or a list is not there, or scores are needed and there are none.
    """
    data, targets = session.dataset, session.targets
    _refuse(query, session, models)
    is_in = np.ones(len(data), bool)
    if query.list:
        is_in &= data.list_number == data.lists.index(query.list)
    if query.value is not None:
        chosen = targets if query.label is None else targets[:, [query.label]]
        is_in &= (chosen == query.value).any(axis=1)
    if query.changed:
        is_in &= session.is_changed
    if query.queued:
        is_in &= np.isin(np.arange(len(data)), queue)
    if query.fault:
        found = facts.faults.items()
        rows = [row for row, told in found if query.fault in ("any", *(kind for kind, _ in told))]
        is_in &= np.isin(np.arange(len(data)), rows)
    if query.twins:
        is_in &= np.isin(np.arange(len(data)), list(facts.twins))
    if query.below is not None:
        sides = facts.pixels.min(axis=1)
        is_in &= (sides > 0) & (sides < query.below)
    if query.name:
        wanted = query.name.casefold()
        is_in &= np.fromiter((wanted in image.casefold() for image in data.images), bool)
    if models:
        is_in &= _by_scores(query, targets, models)
    rows = np.flatnonzero(is_in)
    if nearness is not None:
        rows = rows[np.argsort(-np.nan_to_num(nearness[rows], nan=-2), kind="stable")]
        return (rows[::-1] if query.falling else rows).astype(np.int32)
    return _in_order(query, rows, session, facts, models, queue).astype(np.int32)


def _refuse(query: Query, session: Session, models: Sequence[Scores]) -> None:
    data = session.dataset
    if query.label is not None and not 0 <= query.label < len(data.labels):
        raise InputError(f"label={query.label}: must be from 0 to {len(data.labels) - 1}")
    if query.list and query.list not in data.lists:
        raise InputError(f"list={query.list}: must be one of {', '.join(data.lists)}")
    if query.model is not None and not 0 <= query.model < len(models):
        raise InputError(f"model={query.model}: there are {len(models)}, counted from 0")
    compares = query.differ or query.sort == "differ"
    needed = query.disagree or query.sort in ("score", "uncertain", "disagree")
    needed |= (query.low, query.high) != (None, None)
    if len(models) < (2 if compares else int(needed)):
        raise InputError(
            "there are no models to compare" if models else "there are no scores to go by",
            f"Start the studio with --model_dir {'BUNDLE BUNDLE' if compares else 'BUNDLE'}.",
        )


def _by_scores(query: Query, targets: np.ndarray, models: Sequence[Scores]) -> np.ndarray:
    """Return which rows pass what is asked of their scores: bool [N]."""
    best = _score(query, models)
    is_in = np.ones(len(targets), bool)
    if query.low is not None:
        is_in &= best >= query.low  # not NaN
    if query.high is not None:
        is_in &= best <= query.high
    if query.disagree:
        is_in &= _apart(_label_and_model(query, targets, models)) > 0
    if query.differ:
        is_in &= _apart([_margins(query, one) for one in models]) > 0
    return is_in


def _score(query: Query, models: Sequence[Scores]) -> np.ndarray:
    """Return the score of the query's label, or the best: [N], NaN where it is not known."""
    return np.fmax.reduce(models[query.model or 0].values[:, _columns(query)], axis=1)


def _margins(query: Query, scores: Scores) -> np.ndarray:
    """Return how far scores are above their thresholds: [N, k], -1 to 1; NaN: not known."""
    part = _columns(query)
    values, limits = scores.values[:, part], scores.thresholds[part]
    above = (values - limits) / np.maximum(1 - limits, 1e-6)
    below = (values - limits) / np.maximum(limits, 1e-6)
    return np.where(values > limits, above, below)


def _columns(query: Query) -> slice:
    return slice(None) if query.label is None else slice(query.label, query.label + 1)


def _label_and_model(
    query: Query, targets: np.ndarray, models: Sequence[Scores]
) -> list[np.ndarray]:
    """Return what the data set says, 1, -1 or NaN for not sure, and the margins of the model."""
    told = np.array([-1, 1, np.nan], np.float32)[targets[:, _columns(query)]]  # of 0, 1 and -1
    return [told, _margins(query, models[query.model or 0])]


def _apart(voices: Sequence[np.ndarray]) -> np.ndarray:
    """Return by how much voices [N, k] contradict each other at most, [N]; -1: nothing to hold.

    Above 0 where one says yes, above 0, and another no: the distance between the two. Where all
    agree it is below: the nearer to 0, the less sure one of them is. NaN is no voice.
    """
    high, low = reduce(np.fmax, voices), reduce(np.fmin, voices)
    weakest = reduce(np.fmin, [np.abs(voice) for voice in voices])
    found = np.where((high > 0) & (low <= 0), high - low, -weakest)
    count = sum((~np.isnan(voice)).astype(np.int8) for voice in voices)
    return np.where(count > 1, found, -1).max(axis=1)


def _in_order(
    query: Query,
    rows: np.ndarray,
    session: Session,
    facts: Facts,
    models: Sequence[Scores],
    queue: np.ndarray,
) -> np.ndarray:
    data, targets, key = session.dataset, session.targets, None
    if query.sort == "queue":
        position = np.full(len(data), len(queue), np.int64)
        position[queue[::-1]] = np.arange(len(queue))[::-1]
        key = position[rows]
    elif query.sort == "name":
        key = np.array([data.images[row].casefold() for row in rows.tolist()], dtype=object)
    elif query.sort == "labels":
        key = (targets[rows] == 1).sum(axis=1)
    elif query.sort == "size":
        key = facts.pixels[rows].astype(np.int64).prod(axis=1)
    elif query.sort == "changed":
        last = {e.image: i for i, e in enumerate(session.log.entries) if isinstance(e, Change)}
        key = np.array([-last.get(data.images[row], -1) for row in rows.tolist()])
    elif query.sort == "score":
        key = -np.nan_to_num(_score(query, models)[rows], nan=-1)
    elif query.sort == "uncertain":
        margins = np.abs(_margins(query, models[query.model or 0])[rows])
        key = np.nan_to_num(margins, nan=2).min(axis=1)
    elif query.sort == "disagree":
        key = -_apart(_label_and_model(query, targets, models))[rows]
    elif query.sort == "differ":
        key = -_apart([_margins(query, one) for one in models])[rows]
    elif query.twins:  # side by side
        key = np.array([min(row, *facts.twins.get(row, {row})) for row in rows.tolist()])
    if key is not None:
        rows = rows[np.argsort(key, kind="stable")]
    return rows[::-1] if query.falling else rows
