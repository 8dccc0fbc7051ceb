"""mode=predict: a JSON and an annotated picture for every image."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mlcls_jax import config as schema
from mlcls_jax.data.images import list_images
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.predictor import Predictor

log = logging.getLogger(__name__)

SHOWN = 10  # results printed line by line


def predict(config: schema.Config, workdir: Path) -> dict[str, Any]:
    """Label the images in `predict.input` by a bundle: `predict.model_dir`, or the best model.

    Returns:
      The content of `predict_result.json`.

    Raises:
      WeightsError: the bundle is missing or damaged.
      InputError: there is no image at `predict.input`.
      DataError: an image cannot be read, unless `data.on_error` is "skip".
    """
    given = Path(config.predict.input)
    paths = list_images(given)
    model_dir = Path(config.predict.model_dir or workdir / "best_model")
    bundle = read_bundle(model_dir)
    output = Path(config.predict.output or workdir / "predictions")
    predictor = Predictor(bundle, batch_size=min(config.predict.batch_size, len(paths)))
    log.info("Labelling %d images with %s.", len(paths), model_dir)
    skipped = [] if config.data.on_error == "skip" else None
    results = predictor.predict(paths, threshold=config.predict.threshold, skipped=skipped)
    stems = Counter(path.with_suffix("") for path in paths)
    written = 0
    for result in tqdm(results, total=len(paths), unit="image", disable=None):
        path = Path(result["input_path"])
        folder = output / (path.parent.relative_to(given) if given.is_dir() else "")
        # photo.jpg and photo.png side by side would overwrite each other's photo_res.json.
        alone = stems[path.with_suffix("")] == 1
        result.save_to_json(folder if alone else folder / f"{path.name}_res.json")
        result.save_to_img(folder)
        if written < SHOWN:
            found = zip(result["label_names"], result["scores"], strict=True)
            labels = ", ".join(f"{name} ({score:.3f})" for name, score in found)
            log.info("%s: %s", path, labels or "no label above the threshold")
        written += 1
    if written > SHOWN:
        log.info("… and %d more.", written - SHOWN)
    return {
        "images": written,
        "skipped_images": skipped or [],
        "model_dir": str(model_dir),
        "output": str(output),
    }
