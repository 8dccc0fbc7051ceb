"""Weights that others publish: how a backbone states where they lie."""

from dataclasses import dataclass

PADDLEX = "https://paddle-model-ecology.bj.bcebos.com/paddlex/official_pretrained_model"
PADDLE = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph"


@dataclass(frozen=True)
class Source:
    """One weight file of a model, under the word by which `model.weights` knows it."""

    word: str  # official, backbone, timm, …
    address: str  # a URL, or hf://owner/name
    licence: str
    trained_on: str
    pixels: str = "ImageNet"  # whose mean and standard deviation: a name of `pixels.py`
    sha256: str | None = None  # none is published: that of the first download is kept and compared

    @property
    def file(self) -> str:
        """Name of the file; on the hub, where all are called alike, that of the repository."""
        name = self.address.rpartition("/")[2]
        return f"{name}.safetensors" if self.address.startswith("hf://") else name


def official(name: str) -> Source:
    """Return PaddleX's file of a model with ML-Decoder, 80 labels."""
    return Source(
        "official", f"{PADDLEX}/{name}_pretrained.pdparams", "Apache-2.0", "COCO-2017, 448 x 448"
    )


def paddle(
    file: str,
    *,
    word: str = "backbone",
    trained_on: str = "ImageNet",
    folder: str = "legendary_models/",
) -> Source:
    """Return a backbone of PaddleClas, by its file."""
    return Source(word, f"{PADDLE}/{folder}{file}.pdparams", "Apache-2.0", trained_on)


def timm(
    name: str,
    *,
    trained_on: str = "ImageNet",
    pixels: str = "ImageNet",
    licence: str = "Apache-2.0",
) -> Source:
    """Return a backbone of timm, by its name with the tag of its weights."""
    return Source("timm", f"hf://timm/{name}", licence, trained_on, pixels)


def words(name: str, licence: str, trained_on: str, pixels: str) -> Source:
    """Return the towers of images and texts that belong together, by owner and name on the hub."""
    return Source("words", f"hf://{name}", licence, trained_on, pixels)
