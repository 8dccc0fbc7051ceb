"""Mean and standard deviation, RGB in 0…1, with which pixels reach a network."""

import re
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
SATELLITE = Pixels("satellite", (0.43, 0.411, 0.296), (0.213, 0.156, 0.143))

# Of timm's weights that differ in this from the others of their architecture, by name and tag.
_OF_TAGS = (
    (r"convnext_base\.clip|vit_base_patch16_224\.bamboo", CLIP),
    (r"vit_large_patch14_clip_(224|336)\.(apple|datacomp|dfn|laion400m|metaclip|openai)", CLIP),
    (r"\.(dino|mae)$|\.m30m_|efficientnet_b(1\.ft|8\.ra)_|efficientnetv2_b3\.in1k$", IMAGENET),
    (r"\.ra4_e3600_|efficientnet_b\d\.ap_", HALVES),
    (r"mobilenetv3_large_100\.miil", UNIT),
    (r"\.sat493m$", SATELLITE),
)


def of_tag(name: str, usual: Pixels) -> Pixels:
    """Return the statistics of timm's weights NAME.TAG; `usual` is their architecture's."""
    return next((pixels for pattern, pixels in _OF_TAGS if re.search(pattern, name)), usual)
