"""`mlcls convert DATA OUTPUT --to FORMAT`: a data set in the format of another tool."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlcls_jax import usage
from mlcls_jax.bars import progress
from mlcls_jax.config import REQUIRED, Dialect, from_arguments, option
from mlcls_jax.data.convert.parquet_tables import HUB
from mlcls_jax.data.detect import Form, detect, on_hub
from mlcls_jax.data.save import Predictions, save
from mlcls_jax.errors import DataError, InputError
from mlcls_jax.parsing import parse_json
from mlcls_jax.paths import local_path


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a data set in the format of another tool, or any that is read as an MLClsDataset."""

    data: str = option(
        REQUIRED, "images with labels, in any format that `train` takes", positional=True,
        metavar="DATA",
    )  # fmt: skip
    output: str = option(REQUIRED, "new folder", positional=True, metavar="OUTPUT", path="local")
    to: Literal[
        "mlcls", "coco", "csv", "cvat", "datumaro", "fiftyone", "label_studio", "parquet",
        "roboflow",
    ] = option(
        "mlcls", "what is written; parquet is what Hugging Face's load_dataset reads, too"
    )  # fmt: skip
    format: Form | None = option(None, "of DATA, where it may be read in several ways")
    dialect: Dialect = option("auto", "of CSV lists, where it asks how their labels are written")
    copy: bool = option(False, "copy the images; else OUTPUT has links to them")
    model_dir: str | None = option(
        None,
        "a model, whose predictions people start from (label_studio: in addition to the labels,"
        " other formats: in their place)",
        path="any",
    )
    predictions: str | None = option(
        None, "the same, from a file of `predict --format jsonl`", path="local"
    )
    unlabelled: bool = option(False, "DATA is a folder of images without labels")
    url: str | None = option(
        None, "label_studio: what the images are found behind; None: its local files"
    )


def run(argv: list[str]) -> str:
    """Write the data set, and return what was written and what comes next."""
    parser = usage.parser_of(
        Arguments,
        "convert photos for_people --to label_studio --model_dir runs/photos-1/best_model",
    )
    given = from_arguments(Arguments, parser.parse_args(argv))
    if given.url and given.to != "label_studio":
        parser.error("--url is for --to label_studio")
    if given.model_dir and given.predictions:
        parser.error("--model_dir and --predictions exclude each other")
    predictions = None
    if given.predictions:
        predictions = _from_file(Path(given.predictions))
    elif given.model_dir:
        predictions = _from_model(given.model_dir)
    if predictions and given.to == "mlcls":
        parser.error("predictions are written by --to another format than mlcls")
    if given.unlabelled and not predictions:
        parser.error("--unlabelled needs --model_dir or --predictions")
    if given.unlabelled:
        found, told = local_path("DATA", given.data), "images without labels"
    else:
        is_hub = given.data.startswith(HUB)
        place = local_path("DATA", given.data) if not is_hub else Path()
        found = on_hub(given.data) if is_hub else detect(place, given.format)
        found, told = dataclasses.replace(found, dialect=given.dialect), found.told
    output = Path(given.output)
    saved = save(found, output, given.to, copy=given.copy, url=given.url, predictions=predictions)
    counts = ", ".join(f"{number:,} {split}" for split, number in saved.images.items())
    return "\n".join(
        [
            f"{given.data}: {told}.",
            *saved.told,
            f"{counts} images with {len(saved.labels)} labels are in {output}, as {given.to}.",
        ]
    )


def _from_model(place: str) -> Predictions:
    from mlcls_jax.inference.api import create_pipeline  # imports JAX, which a help does without
    from mlcls_jax.start import start_jax

    start_jax(cache=True)
    pipeline = create_pipeline(model_dir=place)

    def find(files: list[Path]) -> Iterator[Mapping[str, float]]:
        results = pipeline.predict([str(file) for file in files])
        for result in progress(results, desc="predictions", unit=" images", total=len(files)):
            yield dict(zip(result["label_names"], result["scores"], strict=True))

    return Predictions(pipeline.model.bundle.labels, place, find)


def _from_file(path: Path) -> Predictions:
    """Return what `mlcls predict --format jsonl` printed.

    Raises:
      InputError: it is not there, or malformed.
    """
    known: dict[str, dict[str, float]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        fields: Any = parse_json(line.encode(), f"{path}:{number}", InputError) if line else None
        if fields is None:
            continue
        try:
            scores = dict(zip(fields["label_names"], fields["scores"], strict=True))
            known[_key(fields["input_path"])] = {str(k): float(v) for k, v in scores.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}:{number}: has no input_path, label_names and scores",
                f"Write it by: {usage.program()} predict … --format jsonl > {path}",
            ) from error

    def find(files: list[Path]) -> Iterator[Mapping[str, float]]:
        missing = [file for file in files if _key(file) not in known]
        if missing:
            raise DataError(
                f"{path}: has no predictions of {len(missing):,} images, such as {missing[0]}",
                "Images are known by their whole paths, where links lead to.",
            )
        yield from (known[_key(file)] for file in files)

    labels = sorted({name for scores in known.values() for name in scores})
    return Predictions(tuple(labels), path.name, find)


def _key(path: str | Path) -> str:
    return str(Path(path).resolve())
