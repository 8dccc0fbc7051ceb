"""Rows of the table of vision transformers: sizes and names become a family of networks.

A row's text is that of timm's name: width, patch and resolution; the grid follows from them.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mlcls_jax.models import pixels
from mlcls_jax.models.backbones.vit import SMALL, ViT, ViTConfig
from mlcls_jax.models.backbones.vit_names import names
from mlcls_jax.models.family import Family
from mlcls_jax.models.pixels import Pixels
from mlcls_jax.models.published import Source, timm

# width, depth, heads, width between the two linear layers
SIZES = {
    "tiny": (192, 12, 3, 768),
    "xsmall": (256, 10, 4, 1024),
    "wee": (256, 14, 4, 1280),
    "little": (320, 14, 5, 1792),
    "small": (384, 12, 6, 1536),
    "small_plus": (384, 12, 6, 1536),
    "medium": (512, 12, 8, 2048),
    "mediumd": (512, 20, 8, 2048),
    "betwixt": (640, 12, 10, 2560),
    "base": (768, 12, 12, 3072),
    "so150m": (896, 18, 14, 2304),
    "so150m2": (832, 21, 13, 2176),
    "base_plus": (896, 12, 14, 3584),
    "large": (1024, 24, 16, 4096),
    "intern300m": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "huge": (1280, 32, 16, 5120),
    "huge_plus": (1280, 32, 20, 5120),
    "giant": (1408, 40, 16, 6144),
    "giantopt": (1536, 40, 16, 6144),
    "gigantic": (1664, 48, 16, 8192),
    "enormous": (1792, 64, 16, 15360),
    "7b": (4096, 40, 32, 8192),
}

LICENCES = {  # of single files, by their tag
    "dfn5b": "Apple ASCL",
    "metaclip2_worldwide": "CC-BY-NC-4.0",
    "metaclip_2pt5b": "CC-BY-NC-4.0",
    "eupe_lvd1689m": "FAIR non-commercial",
    "tinyclip_yfcc15m": "MIT",
    "tinyclip_laion400m": "MIT",
    "laion400m_e32": "MIT",
    "in1k_ijepa": "CC-BY-NC-4.0",
    "in22k_ijepa": "CC-BY-NC-4.0",
    "ogvl_dist": "MIT",
}


class Row(NamedTuple):
    """A variant: our name, timm's, its sizes, and the tag of its weights there."""

    name: str
    twin: str
    config: ViTConfig
    tag: str


def make_rows(ours: str, theirs: str, published: dict[str, str], **options: Any) -> list[Row]:
    """Make rows of templates of names, of texts by the tag of their weights, and of options."""
    rows = []
    for tag, texts in published.items():
        for text in texts.split():
            found = re.fullmatch(r"(?P<size>\w+?)_patch(?P<patch>\d+)_(?P<rest>\w*?(\d+))", text)
            assert found, text
            width, depth, num_heads, hidden = SIZES[found["size"]]
            patch = int(found["patch"])
            values: dict[str, Any] = {
                "width": width,
                "depth": depth,
                "num_heads": num_heads,
                "hidden": hidden,
            }
            values |= {"patch_size": patch, "grid": int(found[4]) // patch, **options}
            if registers := re.search(r"reg(\d)", found["rest"]):
                values["registers"] = int(registers[1])
            if ratio := values.pop("hidden_ratio", None):
                values["hidden"] = int(values["width"] * ratio)
            name, twin = (form.format(**found.groupdict()) for form in (ours, theirs))
            rows.append(Row(name, twin, ViTConfig(**values), tag))
    return rows


def make_family(
    rows: list[Row],
    *,
    trained_on: str,
    licence: str = "Apache-2.0",
    statistics: Pixels = pixels.IMAGENET,
    other_statistics: Mapping[str, Pixels] = {},  # by timm's name
    pairs: Callable[[Row], tuple[Source, ...]] = lambda row: (),  # both towers
    **options: Any,
) -> Family:
    """Make the family that the rows are; other options are those of `Family`."""
    by_name = {row.name: row for row in rows}

    def sources(name: str) -> tuple[Source, ...]:
        row = by_name[name]
        shown = other_statistics.get(row.twin, statistics).name
        file = f"{row.twin.replace('quickgelu_', '')}.{row.tag}"
        terms = LICENCES.get(row.tag, licence)
        return (timm(file, trained_on=trained_on, pixels=shown, licence=terms), *pairs(row))

    twins = {row.twin: row.name for row in rows if row.twin != row.name}
    others = {twins.get(twin, twin): value for twin, value in other_statistics.items()}
    values: dict[str, Any] = {"heads": {"timm": "head"}, "sources": sources}
    values |= {"head_initial": lambda channels: SMALL, "recipes": "clip_vit", **options}
    return Family(
        variants={row.name: row.config for row in rows},
        build=ViT,
        names=names,
        decoder="head",
        stride=lambda sizes: sizes.patch_size,
        timm_names=twins,
        pixels=lambda name: others.get(twins.get(name, name), statistics),
        **values,
    )
