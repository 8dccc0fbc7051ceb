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
    options = config.predict
    folder, inputs = Path(options.input), [options.input]
    if not options.input.startswith(("http://", "https://")):
        inputs = list_images(folder)
    model_dir = Path(options.model_dir or workdir / "best_model")
    predictor = Predictor(
        read_bundle(model_dir),
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
    stems = Counter(Path(name).with_suffix("") for name in inputs)
    written, skipped = 0, []
    for result in tqdm(results, total=len(inputs), unit="image", disable=None):
        if "error" in result:
            log.warning("left out: %s", result["error"])
            skipped.append(result["error"])
            continue
        path = Path(result["input_path"])
        target = output / (path.parent.relative_to(folder) if folder.is_dir() else "")
        # photo.jpg and photo.png side by side would overwrite each other's photo_res.json.
        alone = stems[path.with_suffix("")] == 1
        result.save_to_json(target if alone else target / f"{path.name}_res.json")
        result.save_to_img(target)
        if written < SHOWN:
            found = zip(result["label_names"], result["scores"], strict=True)
            labels = ", ".join(f"{name} ({score:.3f})" for name, score in found)
            page = "" if result["page_index"] is None else f", page {result['page_index']}"
            log.info("%s%s: %s", path, page, labels or "no label above the threshold")
        written += 1
    if written > SHOWN:
        log.info("… and %d more.", written - SHOWN)
    return {
        "images": written,
        "skipped_images": skipped,
        "model_dir": str(model_dir),
        "output": str(output),
    }
