"""mode=predict: a JSON and an annotated picture for every image."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mlcls_jax import config as schema
from mlcls_jax.data.images import list_images
from mlcls_jax.errors import InputError
from mlcls_jax.inference.opening import is_weight_file, open_model
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.inference.results import Result

log = logging.getLogger(__name__)

SHOWN = 10  # results printed line by line


def predict(config: schema.Config, workdir: Path) -> dict[str, Any]:
    """Label the images in `predict.input` by a bundle: `predict.model_dir`, or the best model.

    A weight file, as `predict.model_dir`, is taken to be of `model.name`.

    Returns:
      The content of `predict_result.json`.

    Raises:
      WeightsError: the bundle or weight file is missing or damaged.
      InputError: there is no image at `predict.input`.
      DataError: an image cannot be read, unless `data.on_error` is "skip".
    """
    options = config.predict
    inputs, save = open_input(options.input)
    model_dir = Path(options.model_dir or workdir / "best_model")
    model_name = config.model.name if is_weight_file(model_dir) else None
    predictor = Predictor(
        open_model(model_name, model_dir),
        backend=options.backend,
        precision=options.precision,
        batch_size=min(options.batch_size, len(inputs)),
        threads=max(config.data.threads, 1),
    )
    output = Path(options.output or workdir / "predictions")
    log.info("Labelling %d images with %s.", len(inputs), model_dir)
    on_error = "yield" if config.data.on_error == "skip" else "raise"
    results = predictor.predict(
        inputs, threshold=options.threshold, explain=options.explain, on_error=on_error
    )
    written, skipped = 0, []
    for result in tqdm(results, total=len(inputs), unit="image", disable=None):
        if "error" in result:
            log.warning("left out: %s", result["error"])
            skipped.append(result["error"])
            continue
        save(result, output)
        if written < SHOWN:
            found = zip(result["label_names"], result["scores"], strict=True)
            labels = ", ".join(f"{name} ({score:.3f})" for name, score in found)
            page = "" if result["page_index"] is None else f", page {result['page_index']}"
            name = f"{result['input_path']}{page}"
            log.info("%s: %s", name, labels or "no label above the threshold")
        written += 1
    if written > SHOWN:
        log.info("… and %d more.", written - SHOWN)
    return {
        "images": written,
        "skipped_images": skipped,
        "model_dir": str(model_dir),
        "output": str(output),
    }


def open_input(given: str) -> tuple[list[str] | list[Path], Callable[[Result, Path], None]]:
    """The images at a path or URL, and a function that saves a result of one into a folder.

    Results of a folder's images lie in subfolders as the images do, and none overwrites another.
    Pictures that earlier predictions left in the folder are not images to label.

    Raises:
      InputError: there is no such path, or no image in the folder.
    """
    folder, inputs = Path(given), [given]
    if not given.startswith(("http://", "https://")):
        inputs = list_images(folder)
    if folder.is_dir():
        found, inputs = inputs, [path for path in inputs if not _is_result(path)]
        if not inputs:
            raise InputError(f"{folder}: only pictures of earlier results are in this folder")
        if drawn := len(found) - len(inputs):
            log.info("%s: %d pictures of earlier results are left out.", folder, drawn)
    stems = Counter(Path(name).with_suffix("") for name in inputs)

    def save(result: Result, output: Path) -> None:
        path = Path(result["input_path"])
        target = output / (path.parent.relative_to(folder) if folder.is_dir() else "")
        # photo.jpg and photo.png side by side would overwrite each other's photo_res.json.
        alone = stems[path.with_suffix("")] == 1
        page = "" if result["page_index"] is None else f"_{result['page_index']}"
        result.save_to_json(target if alone else target / f"{path.name}{page}_res.json")
        result.save_to_img(target)

    return inputs, save


def _is_result(path: Path) -> bool:
    """Whether a prediction drew this picture: the JSON that it wrote with it is still there."""
    stem = path.stem.removesuffix("_res")
    beside = (path.with_name(f"{name}_res.json") for name in (stem, stem + path.suffix))
    return stem != path.stem and any(json.exists() for json in beside)
