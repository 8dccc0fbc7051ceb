"""`mlcls backends MODEL_DIR`: the gain and the cost of each backend and precision here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlcls_jax import usage
from mlcls_jax.config import REQUIRED, option
from mlcls_jax.errors import UserError

if TYPE_CHECKING:  # imports JAX, which a help does without
    from mlcls_jax.inference.bundle import Bundle


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Speed of each backend and precision, and how scores change from those of JAX in float32."""

    model_dir: str = option(
        REQUIRED, "bundle, run, or hf://owner/name", path="model", positional=True
    )
    batch_size: int = option(16, "images computed together", min=1)
    device: str | None = option(None, "cpu, gpu:0, tpu …; None: the first that JAX finds")
    images: str | None = option(
        None, "image or folder, of which up to 64; None: parts of two photographs", path="local"
    )


class Row(NamedTuple):
    """One line of the table: speed, and how scores change from those of JAX in float32."""

    backend: str
    precision: str
    milliseconds: float  # per image, in batches
    speed: float  # images per second over those of JAX in float32
    largest: float  # change of a score
    mean: float
    decisions: float  # share of the labels reported, or not, that change


def run(argv: list[str]) -> str:
    """Measure as the arguments say, and return a table."""
    args = usage.arguments(
        Arguments, argv, "backends runs/demo/best_model --images runs/demo/samples"
    )
    from mlcls_jax.inference.bundle import read_bundle
    from mlcls_jax.inference.devices import device_list
    from mlcls_jax.inference.exports.verify import read_images

    bundle = read_bundle(args.model_dir)
    images = read_images(args.images, bundle.frame)
    rows, missing = compare(bundle, images, device=args.device, batch_size=args.batch_size)
    processor = device_list(args.device)[0].device_kind
    return _text(rows, missing, processor, images=len(images), batch_size=args.batch_size)


def compare(
    bundle: "Bundle", images: np.ndarray, *, device: str | None, batch_size: int
) -> tuple[list[Row], dict[str, UserError]]:
    """Return a row for each backend and precision on a device, and the errors of unusable ones.

    Scores are compared on `images`, uint8 [n, H, W, 3] of the model's size, and time is measured in
    batches of them.
    """
    from mlcls_jax.inference.backends import BACKENDS, open_backend, platform_of
    from mlcls_jax.inference.backends.fastest import measure

    opened, missing = {}, {}
    platform = platform_of("jax", device)
    for name, kind in BACKENDS.items():
        for precision in kind.precisions.get(platform, ()):
            try:
                opened[name, precision] = open_backend(
                    name,
                    bundle,
                    device=device or platform,
                    batch_size=batch_size,
                    precision=precision,
                )
            except UserError as error:
                missing[f"{name} {precision}"] = error
    batch = np.resize(images, (batch_size, *images.shape[1:]))  # repeats them
    calls = {key: lambda backend=backend: backend(batch) for key, backend in opened.items()}
    seconds = measure(calls)
    wanted = opened["jax", "float32"](images)
    rows = []
    for key, backend in opened.items():
        scores = backend(images)
        change = np.abs(scores - wanted)
        flips = bundle.decide(scores) != bundle.decide(wanted)
        rows.append(
            Row(
                *key,
                milliseconds=1e3 * seconds[key] / batch_size,
                speed=seconds["jax", "float32"] / seconds[key],
                largest=float(change.max()),
                mean=float(change.mean()),
                decisions=float(flips.mean()),
            )
        )
    return rows, missing


def _text(
    rows: list[Row],
    missing: dict[str, UserError],
    processor: str,
    *,
    images: int,
    batch_size: int,
) -> str:
    from mlcls_jax.inference.backends.fastest import machine

    facts = machine()
    head = ("ms/image", "speed", "largest change", "mean change", "decisions changed")
    lines = [
        f"{facts['processor']}, {facts['threads']} threads; device {processor};"
        f" time in batches of {batch_size}, scores on {images} images",
        f"{'':12} {'':9} {head[0]:>9} {head[1]:>7} {head[2]:>15} {head[3]:>12} {head[4]:>18}",
    ]
    lines += [
        f"{row.backend:12} {row.precision:9} {row.milliseconds:9.3g} {row.speed:6.2f}×"
        f" {row.largest:15.1e} {row.mean:12.1e} {row.decisions:18.2%}"
        for row in rows
    ]
    lines += [f"{name}: {error.message}. {error.hint or ''}" for name, error in missing.items()]
    return "\n".join(lines)
