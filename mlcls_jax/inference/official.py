"""The models that PaddleX publishes for COCO, by name: fetched once, kept as bundles."""

from pathlib import Path

from mlcls_jax import files
from mlcls_jax.config import DEFAULT_THRESHOLD
from mlcls_jax.errors import InputError
from mlcls_jax.inference.bundle import write_bundle
from mlcls_jax.models import create
from mlcls_jax.models.registry import list_models
from mlcls_jax.models.weights.sources import address, official_models, sources

# COCO's 80 categories in the order of their ids, which is that of the published models' outputs.
COCO_LABELS = tuple(
    """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
    fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant,
    bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard,
    sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle,
    wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
    hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock,
    vase, scissors, teddy bear, hair drier, toothbrush""".replace("\n", " ").split(",")
)
COCO_LABELS = tuple(label.strip() for label in COCO_LABELS)


def official_bundle(name: str) -> Path:
    """The folder of the bundle of a published model, in the user's cache; fetched if need be.

    The environment variable MLCLS_MODELS_URL names another place that has the files
    `NAME_pretrained.pdparams`, a mirror for instance.

    Raises:
      InputError: no weights are published for a model of this name.
      WeightsError: they cannot be fetched or read.
    """
    if name not in (published := official_models()):
        known = "" if name in list_models() else "; there is no model of this name either"
        raise InputError(
            f"{name}: no weights are published for it{known}",
            "Give model_dir, a bundle of your own; or weights, a file; or one of"
            f" {', '.join(published)}.",
        )
    folder = files.cache_folder("models") / name
    files.recover_folder(folder)
    if not (folder / "inference.json").exists():
        model = create(name, num_classes=len(COCO_LABELS), weights="official")
        write_bundle(
            folder,
            model.network.config,
            model.variables,
            labels=COCO_LABELS,
            threshold=DEFAULT_THRESHOLD,
            facts={"weights": address(sources(name)[0])},
        )
    return folder
