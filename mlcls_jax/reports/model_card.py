"""The card of a model on the Hugging Face Hub: Markdown, made of what its files say."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup

from mlcls_jax import config as schema
from mlcls_jax.config import Config
from mlcls_jax.metrics import MAIN_METRIC
from mlcls_jax.models.weights.sources import AUTO, NONE, TIMM, WORDS
from mlcls_jax.paths import HUB
from mlcls_jax.readable import printable
from mlcls_jax.reports.page import templates

FEW = 500  # validation images below which the card warns
_NO_METRICS = ("images", "threshold")
_ON_HUB = {"MultiLabelMAP": "mean_average_precision", "Top1": "accuracy"}


@dataclass(frozen=True)
class Facts:
    """What is known of a model; all but the first is of its run, and may be missing."""

    bundle: Mapping[str, Any]  # content of `inference.json`
    bytes: int  # of its weights
    config: Config | None = None
    data: Mapping[str, Any] | None = None  # content of `data.json`
    evaluation: Mapping[str, Any] | None = None  # content of `evaluate_result.json`


def model_card(
    facts: Facts, repository: str, *, licence: str | None = None, datasets: Sequence[str] = ()
) -> str:
    """Return the card; licence and data sets are as the hub spells them, `apache-2.0`."""
    bundle, model = facts.bundle, facts.bundle["model"]
    measured = facts.evaluation or bundle.get("metrics") or {}
    images = measured.get("images") or (facts.data or {}).get("validation", {}).get("images")
    threshold = bundle["threshold"]
    return templates.get_template("model_card.md").render(
        front=Markup(_front(facts, repository, measured, licence, datasets)),
        repository=repository,
        model=model,
        kind="one" if model["task"] == "single" else "any number",
        megabytes=facts.bytes / 1e6,
        labels=bundle["labels"],
        data=facts.data,
        start=facts.config and _start(facts.config.model.weights),
        metrics=[
            (name, value, *measured.get("intervals", {}).get(name, (None, None)))
            for name, value in measured.items()
            if type(value) in (int, float) and name not in _NO_METRICS
        ],
        images=images,
        judged=facts.evaluation is not None,
        thresholds_text=_of_threshold(threshold),
        thresholds=threshold if isinstance(threshold, list) else None,
        temperature=bundle.get("temperature", 1.0),
        precision=measured.get("average_precision"),
        recipe=facts.config and Markup(_recipe(facts.config)),
        limits=list(_limits(facts, images)),
        version=bundle.get("versions", {}).get("mlcls_jax", "?"),
    )


def _front(
    facts: Facts,
    repository: str,
    measured: Mapping[str, Any],
    licence: str | None,
    datasets: Sequence[str],
) -> str:
    """Return the card's front matter, by which the hub finds the model."""
    task = facts.bundle["model"]["task"]
    front: dict[str, Any] = {"license": licence} if licence else {}
    front |= {
        "library_name": "mlcls_jax",
        "pipeline_tag": "image-classification",
        "tags": ["jax", f"{task}-image-classification", facts.bundle["model"]["name"]],
    }
    if datasets:
        front["datasets"] = list(datasets)
    main = MAIN_METRIC[task]
    if isinstance(measured.get(main), float | int):
        name = datasets[0] if datasets else "own images"
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"name": f"{name}, validation", "type": name.replace(" ", "_")},
            "metrics": [{"type": _ON_HUB[main], "name": main, "value": measured[main]}],
        }
        front["model-index"] = [{"name": repository.partition("/")[2], "results": [result]}]
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip()


def _start(weights: str | None) -> str:
    """Return what the weights were before training, without paths of the publisher's disk."""
    if weights in (None, NONE):
        return "random weights"
    is_public = weights in (AUTO, *WORDS) or weights.startswith((TIMM, HUB, "https://"))
    return (
        f"published weights, `{weights}`" if is_public else "weights of an earlier run, or a file"
    )


def _of_threshold(threshold: Any) -> str:
    if threshold is None:
        return "The best label is reported."
    if isinstance(threshold, list):
        return "Each label is reported above a threshold of its own."
    return f"Labels are reported above {threshold:g}."


def _recipe(config: Config) -> str:
    """Return the options that differ from the defaults, without paths of the publisher's disk."""
    usual, recipe = schema.flattened(schema.to_dict(Config())), {}
    for key, value in schema.flattened(schema.to_dict(config)).items():
        if value == usual[key] or schema.options()[key].metadata["path"] or key == "mode":
            continue
        *sections, name = key.split(".")
        place = recipe
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).rstrip()


def _limits(facts: Facts, images: int | None) -> Iterator[str]:
    if facts.bundle["model"]["task"] == "single":
        yield "Every image gets one of the labels, also one that shows none of them."
    else:
        yield "What is none of the labels goes unseen; an image may get no label at all."
    yield (
        "Metrics are of images from the same source as those of training: other cameras, places and"
        " times may give others."
    )
    if images is not None and images < FEW:
        yield f"{images:,} validation images are few: the metrics are uncertain."
    if "calibration" in facts.bundle:
        yield (
            "Thresholds were chosen on the images that they are judged on, which flatters OF1, CF1"
            " and other metrics of decisions."
        )
    yield from (facts.evaluation or {}).get("warnings", [])


def _cell(text: str) -> str:
    """Return text for a cell of a table."""
    return printable(text).replace("|", "\\|")


templates.filters["cell"] = _cell
