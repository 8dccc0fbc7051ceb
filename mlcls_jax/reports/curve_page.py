"""The page of a learning curve: AP by share of the training images, and what more would bring."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlcls_jax.curation.curve import Curve, Need
from mlcls_jax.reports import charts, page

DRAWN = 3  # labels beside the mean


def write_page(path: Path, curve: Curve, found: Sequence[Need]) -> None:
    """Write the page, which needs no other file."""
    shares = curve.images / curve.images[-1]
    by_label = curve.precision.mean(1)  # [S, K]
    place = {label: k for k, label in enumerate(curve.labels)}
    gaining = [one for one in found if np.isfinite(one.doubled)]
    curves = [charts.Curve("mean of all labels", shares, np.nanmean(by_label, 1))]
    curves += [
        charts.Curve(page.shorten(one.label), shares, by_label[:, place[one.label]])
        for one in gaining[:DRAWN]
    ]
    page.write(
        path,
        "curve.html",
        curve=curve,
        found=found,
        place=place,
        chart=charts.line_chart(
            curves,
            x_label="share of the training images",
            y_label="average precision",
            caption="On the validation images: all labels, and those that gain most from more.",
        ),
        columns=["index", "name", "images", "AP", "AP with twice as many", "more for +0.03",
                 "at least", "at most"],
    )  # fmt: skip
