"""The pages that people see: the one to try the model with, and the list of the paths."""

import re
from typing import Any

import numpy as np

from mlcls_jax.guarantees import promised
from mlcls_jax.serving.schemas import ADDRESS
from mlcls_jax.serving.service import MAX_DETAILED, Service
from mlcls_jax.templates import environment, source_hash

_ENVIRONMENT = environment("mlcls_jax.serving")


def front_page() -> tuple[str, str]:
    """Return the page at /, for any model, and a policy that lets it load nothing from outside."""
    text = _ENVIRONMENT.get_template("front.html").render()
    return text, _policy(text, "connect-src 'self'; img-src data:")


def settings(service: Service) -> dict[str, Any]:
    """Return facts of the model for the page.

    `masks`: an explanation takes far longer than an answer.
    `thresholds` is a number, one per label, or None. `guarantee` is what the bundle promises of its
    thresholds, with class ids; None if it promises nothing, or the server has others.
    """
    bundle = service.predictor.bundle
    threshold = service.predictor.threshold(None)
    promise, guarantee = promised(bundle.facts.get("calibration")), None
    has_own = threshold is not None and np.array_equal(threshold, np.asarray(bundle.threshold))
    if promise is not None and has_own:
        ids = [k for k, label in enumerate(bundle.labels) if label in {*promise.labels}]
        guarantee = {"recall": promise.recall, "confidence": promise.confidence, "labels": ids}
    return {
        "model": bundle.model.network.config.name,
        "labels": len(bundle.labels),
        "thresholds": np.round(threshold, 5).tolist() if threshold is not None else None,
        "guarantee": guarantee,
        "explain": service.can_explain,
        "masks": not service.predictor.attends,
        "shown": MAX_DETAILED,
        "megabytes": service.options.max_body_mb,
    }


def docs_page(openapi: dict[str, Any], address: str) -> tuple[str, str]:
    """Return what `openapi` describes as a page without scripts, and its policy.

    `address` is the server's, as the reader's browser knows it, for examples.
    """
    page = _ENVIRONMENT.get_template("docs.html")
    text = page.render(openapi=openapi, example_address=ADDRESS, address=address)
    return text, _policy(text, "img-src data:")


def _policy(page: str, more: str) -> str:
    def hashes(tag: str) -> str:
        contents = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return " ".join(map(source_hash, contents)) or "'none'"

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; {more};"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
