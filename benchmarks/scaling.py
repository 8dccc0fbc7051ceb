"""The tables of docs/scaling.md: `python -m benchmarks.scaling --write` puts them there anew.

Arithmetic alone: nothing is compiled or measured.
"""

import argparse
import datetime
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import flax
import jax

from mlcls_jax.config import Model
from mlcls_jax.planning.chips import CHIPS
from mlcls_jax.planning.costs import (
    Counts,
    Layout,
    bytes_of,
    bytes_per_chip,
    count,
    exchange,
    predict,
)
from mlcls_jax.planning.tables import number

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
MODELS = (
    "PP-LCNet_x1_0_ML",
    "PP-HGNetV2-B0_ML",
    "PP-HGNetV2-B4_ML",
    "PP-HGNetV2-B6_ML",
    "ResNet50_ML",
    "ResNet101_ML",
    "CLIP_vit_base_patch16_448_ML",
)
LAYOUTS = {"data 8": Layout(8, 1, 1), "fsdp 8": Layout(1, 8, 1), "tensor 8": Layout(1, 1, 8)}
IMAGES = {"v5e": 128, "v6e": 128, "H100": 128}  # per chip
BLOCK = re.compile(r"(<!-- tables:begin -->\n).*?(<!-- tables:end -->)", re.DOTALL)


def tables(names: Iterable[str]) -> str:
    """All tables, in Markdown, with rows for these models."""
    models = [Model(name=name, num_classes=80, dtype="bfloat16") for name in names]
    by_platform = {
        platform: {model.name: count(model, platform) for model in models}
        for platform in ("tpu", "gpu")
    }
    counts = by_platform["tpu"]
    parts = [
        "### Chips\n",
        *_table(
            ("chip", "bfloat16 TFLOP/s", "memory GB", "memory GB/s", "links GB/s", "joined",
             "network GB/s"),
            (
                (name, number(c.flops / 1e12), number(c.memory / 1e9),
                 number(c.memory_rate / 1e9), number(c.links / 1e9), str(c.domain),
                 number(c.network / 1e9))
                for name, c in CHIPS.items()
            ),
        ),
        "\n### Models\n",
        *_table(
            ("model", "GFLOP an image", "parameters M", "state MB", "activations MB an image",
             "batch norms"),
            (_model_row(name, c) for name, c in counts.items()),
        ),
        "\n### Sent by each of 8 chips in a step\n",
        *_table(
            ("model", "data 8: gradients MB", "fsdp 8: gradients MB", "fsdp 8: parameters MB",
             "tensor 8: gradients MB", "tensor 8: activations MB an image"),
            (_exchange_row(name, c) for name, c in counts.items()),
        ),
        "\n### Training state on each of 8 chips\n",
        *_table(
            ("model", *(f"{name}: MB" for name in LAYOUTS)),
            (
                (name, *(number(bytes_per_chip(c.state, x, c) / 1e6) for x in LAYOUTS.values()))
                for name, c in counts.items()
            ),
        ),
    ]  # fmt: skip
    for kind, images in IMAGES.items():
        parts += [
            f"\n### Predicted for 8 x {kind}, {images} images per chip\n",
            *_table(
                ("model", "step ms: data", "step ms: fsdp", "images/s: data", "bound by",
                 "largest batch per chip", "exchange hides from: data", "exchange hides from: fsdp",
                 "waiting below 10% from"),
                (
                    _prediction_row(name, c, kind)
                    for name, c in by_platform[CHIPS[kind].platform].items()
                ),
            ),
        ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _model_row(name: str, counts: Counts) -> tuple[str, ...]:
    parameters = sum(leaf.size for leaf in jax.tree.leaves(counts.state.params))
    return (
        name,
        number(counts.flops / 1e9),
        number(parameters / 1e6),
        number(bytes_of(counts.state) / 1e6),
        number(counts.activations / 1e6),
        str(counts.norms),
    )


def _exchange_row(name: str, counts: Counts) -> tuple[str, ...]:
    data, fsdp, tensor = (exchange(counts, layout) for layout in LAYOUTS.values())
    sent = (data.gradients, fsdp.gradients, fsdp.parameters, tensor.gradients, tensor.activations)
    return name, *(number(size / 1e6) for size in sent)


def _prediction_row(name: str, counts: Counts, kind: str) -> tuple[str, ...]:
    images = IMAGES[kind]
    data, fsdp = (
        predict(counts, CHIPS[kind], LAYOUTS[layout], 8 * images) for layout in ("data 8", "fsdp 8")
    )
    an_image = (data.step - data.waiting) / images
    hides = [str(max(1, math.ceil(p.hiding_batch))) for p in (data, fsdp)]
    if CHIPS[kind].platform == "tpu":
        hides[0] = "never"
    return (
        name,
        *(number(p.step * 1e3) if p.fits else "does not fit" for p in (data, fsdp)),
        number(data.images_per_s) if data.fits else "does not fit",
        "operations" if data.compute > data.memory else "memory",
        str(data.largest_batch // 8),
        *hides,
        str(max(1, math.ceil(9 * data.waiting / an_image))),
    )


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"| --- |{' ---: |' * (len(header) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}, not to the screen")
    is_written = parser.parse_args().write
    jax.config.update("jax_platforms", "cpu")
    text = (
        f"Written on {datetime.date.today()} by `python -m benchmarks.scaling --write`, with jax"
        f" {jax.__version__} and flax {flax.__version__}.\n\n{tables(MODELS)}"
    )
    if not is_written:
        print(text)
        return
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(BLOCK.sub(lambda match: match[1] + text + match[2], page), encoding="utf-8")


if __name__ == "__main__":
    main()
