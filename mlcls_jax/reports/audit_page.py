"""The page of an audit: pictures of doubted labels, to be confirmed by a click."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from mlcls_jax.curation.audit import Audit
from mlcls_jax.curation.judge import Suspect
from mlcls_jax.errors import DataError
from mlcls_jax.metrics import average_precision
from mlcls_jax.reports import page

MAX_SHOWN = 150  # of each direction
PICTURE_SIDE = 240  # pixels


class _Card(NamedTuple):
    suspect: Suspect
    image: str
    picture: Markup | None
    fault: str | None
    others: list[str]  # labels that the image has


def write_page(path: Path, audit: Audit, csv: str) -> None:
    """Write the page, which needs no other file, with `MAX_SHOWN` suspects of either direction.

    `csv` is the name of the file beside it that has all of them.
    """
    labels, targets, judged = audit.source.labels, audit.found.targets, audit.judged
    counts = {
        given: np.bincount(
            [one.label for one in audit.suspects if one.given == given], minlength=len(labels)
        )
        for given in (1, 0)
    }
    page.write(
        path,
        "audit.html",
        script="audit.js",
        audit=audit,
        csv=csv,
        labels=labels,
        sections=[
            (given, counts[given].sum(), [_card(audit, one) for one in _first(audit, given)])
            for given in (1, 0)
        ],
        columns=["index", "name", "images", "doubted marks", "missing marks", "AP out of fold"],
        positives=(targets > 0).sum(0),
        counts=counts,
        precision=average_precision(judged.scores, targets),
        order=np.argsort(-(counts[0] + counts[1]), kind="stable"),
    )


def _first(audit: Audit, given: int) -> list[Suspect]:
    return [one for one in audit.suspects if one.given == given][:MAX_SHOWN]


def _card(audit: Audit, one: Suspect) -> _Card:
    labels = audit.source.labels
    present = np.flatnonzero(audit.found.targets[one.row] > 0)
    others = [labels[k] for k in present if k != one.label]
    picture = fault = None
    try:
        index = int(audit.found.indices[one.row])
        picture = page.thumbnail(audit.source, index, PICTURE_SIDE)
    except DataError as error:
        fault = error.message
    return _Card(one, audit.images[one.row], picture, fault, others)
