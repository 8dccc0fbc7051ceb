"""Mean and standard deviation, RGB in 0…1, with which pixels reach a network."""

from dataclasses import dataclass

from mlcls_jax.imagenet import MEAN, STD


@dataclass(frozen=True)
class Pixels:
    """Statistics under a name."""

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Pixels("ImageNet", MEAN, STD)
CLIP = Pixels("CLIP", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALVES = Pixels("-1…1", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
UNIT = Pixels("0…1", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
