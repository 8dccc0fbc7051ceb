"""mode=predict: a JSON file and an annotated picture for every image."""

import dataclasses
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcls_jax import config as schema
from mlcls_jax.bars import progress
from mlcls_jax.data.image_files import list_images
from mlcls_jax.errors import InputError
from mlcls_jax.inference.bundle import model_folder
from mlcls_jax.inference.file_names import for_files
from mlcls_jax.inference.image_inputs import local_paths
from mlcls_jax.inference.opening import is_weight_file, open_model
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.inference.results import Result, is_folder
from mlcls_jax.modes.result import remarks
from mlcls_jax.readable import readable

log = logging.getLogger(__name__)

SHOWN = 10  # results printed line by line


@dataclass(frozen=True)
class PredictResult:
    """The number of images labelled, the model and the folder of results."""

    images: int
    skipped_images: list[str]  # messages of unreadable images
    model_dir: str
    output: str

    def to_json(self) -> dict[str, Any]:
        """Return the content of `predict_result.json`."""
        return dataclasses.asdict(self)

    def summary(self, config: schema.Config, workdir: Path, command: str) -> list[str]:
        """Return where the results are."""
        return [
            f"{self.images:,} images labelled; JSON and pictures in {self.output}",
            *remarks(workdir / "predict_result.json", skipped=self.skipped_images),
        ]


def predict(config: schema.Config, workdir: Path) -> PredictResult:
    """Label the images in `predict.input` by a bundle: `predict.model_dir`, or the best model.

    A weight file, as `predict.model_dir`, is taken to be of `model.name`.

    Raises:
      WeightsError: the bundle or weight file is missing or damaged.
      InputError: there is no image at `predict.input`, or `predict.output` names a file.
      DataError: an image cannot be read, unless `data.on_error` is "skip".
    """
    options = config.predict
    output = options.output or str(workdir / "predictions")
    check_output(output)
    assert options.input is not None  # the config was refused without it
    inputs, save = open_input(options.input)
    model_dir = model_folder(options.model_dir or workdir / "best_model")
    model_name = config.model.name if is_weight_file(model_dir) else None
    predictor = Predictor(
        open_model(model_name, model_dir),
        backend=options.backend,
        precision=options.precision,
        batch_size=min(options.batch_size, len(inputs)),
        threads=max(config.data.threads, 1),
    )
    log.info("Labelling %d images with %s.", len(inputs), model_dir)
    on_error = "yield" if config.data.on_error == "skip" else "raise"
    results = predictor.predict(
        inputs,
        threshold=options.threshold,
        tta=options.tta,
        explain=options.explain,
        on_error=on_error,
    )
    written, skipped = 0, []
    for result in progress(results, total=len(inputs), unit="image"):
        shown = result.json["res"]
        if "error" in result:
            log.warning("left out: %s", shown["error"])
            skipped.append(shown["error"])
            continue
        save(result, output)
        if written < SHOWN:
            found = zip(result["label_names"], result["scores"], strict=True)
            labels = ", ".join(f"{name} ({score:.3f})" for name, score in found)
            page = "" if result["page_index"] is None else f", page {result['page_index']}"
            name = f"{shown['input_path']}{page}"
            log.info("%s: %s", name, labels or "no label above the threshold")
        written += 1
    if written > SHOWN:
        log.info("… and %d more.", written - SHOWN)
    return PredictResult(written, skipped, readable(str(model_dir)), readable(output))


def open_input(*given: str) -> tuple[list[str] | list[Path], Callable[[Result, str | Path], None]]:
    """Return the images at paths, patterns or URLs, and a function that saves a result in a folder.

    Results of images below one folder lie in subfolders as the images do. Pictures that earlier
    predictions left in the folder are not images to label.

    Raises:
      InputError: there is no such path, or no image in the folder.
    """
    found_paths = [local_paths(one) for one in given]
    paths = [path for found in found_paths for path in found or ()]
    if None in found_paths:
        return [*given], _save
    told = ", ".join(given)
    inputs = [path for found in paths for path in list_images(found)]
    if len(paths) > 1 or os.path.isdir(paths[0]):
        found, inputs = inputs, [path for path in inputs if not _is_result(path)]
        if not inputs:
            raise InputError(f"{told}: only pictures of earlier results are there")
        if drawn := len(found) - len(inputs):
            log.info("%s: %d pictures of earlier results are left out.", told, drawn)
    is_folder = len(paths) == 1 and os.path.isdir(paths[0])
    root = paths[0] if is_folder else os.path.commonpath([Path(path).parent for path in paths])

    def save(result: Result, output: str | Path) -> None:
        below = Path(result["input_path"]).parent.relative_to(root)
        _save(result, os.path.join(output, for_files(str(below))))

    return inputs, save


def check_output(folder: str | Path) -> None:
    """Check that results can be saved in a folder of this name.

    Raises:
      InputError: it names a file.
    """
    if not is_folder(folder) or os.path.isfile(folder):
        told = f"{folder}: results are saved into a folder, and this names a file"
        raise InputError(told, "Name a folder; where its name looks like a file's, end it with /.")


def _save(result: Result, output: str | Path) -> None:
    folder = os.path.join(output, "")  # with a slash: a folder, whatever its name
    result.save_to_json(folder)
    result.save_to_img(folder)


def _is_result(path: Path) -> bool:
    """Return whether a prediction drew this picture: its JSON is still beside it."""
    return path.stem.endswith("_res") and path.with_suffix(".json").exists()
