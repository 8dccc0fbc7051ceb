"""Training input: images/s of reading, decoding, resizing to 448 and batching JPEG files.

python -m benchmarks.input [--images FOLDER] [--json FILE]

On one core and on two: ours, PyTorch's DataLoader with Pillow doing the same, and the limit: bare
libjpeg-turbo in as many threads, without and with OpenCV's resize, no pipeline around it. Without
--images, 384 JPEGs of 640 x 480 are made from scikit-learn's two photographs, each of them read
four times a pass. Needs PyTorch for the comparison; what is missing is named.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from benchmarks import pillow_recipe
from benchmarks.timing import print_table, take_turns
from mlcls_jax.config import Data
from mlcls_jax.data.frame import Frame
from mlcls_jax.data.image_files import Files, list_images
from mlcls_jax.data.pipeline import Reader, train_batches

SIZE = 448
BATCH = 32
PASS = 1536  # images at least, or starting a pass would count too much
RECIPE = ("cutout", "randaugment_v4")
PEER = "torch DataLoader, Pillow"
LIMIT = "limit: decode, resize"


class PillowFiles:
    """Image files for PyTorch: Pillow decodes, resizes and augments."""

    def __init__(self, paths: Sequence[Path], *, is_augmented: bool) -> None:
        self.paths, self.is_augmented = paths, is_augmented

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        with Image.open(self.paths[index]) as file:
            image = file.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        if self.is_augmented:
            image = pillow_recipe.augment(image, np.random.default_rng(index))
        return np.array(image), np.ones(1, np.float32)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", help="folder of JPEGs to read instead")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = list_images(arguments.images or make_photos(Path(folder)))
        paths *= -(-PASS // len(paths))
        paths = paths[: len(paths) // BATCH * BATCH]
        rows = []
        for cores in (1, 2):
            if cores <= len(available := sorted(os.sched_getaffinity(0))):
                os.sched_setaffinity(0, available[:cores])
                rows += measure(paths, cores, rounds=arguments.rounds)
                os.sched_setaffinity(0, available)
    print_table(f"Input, {len(paths):,} JPEGs to {SIZE} x {SIZE}", rows, arguments.json)
    if not has_torch():
        print("torch is not installed: no comparison with its DataLoader.")


def measure(paths: Sequence[Path], cores: int, *, rounds: int) -> list[dict[str, object]]:
    """Rows of all candidates on so many cores, with and without the recipe's augmentation."""
    cv2.setNumThreads(0)  # as our pipeline does; matters for the limit
    rows = []
    for work, augment in (("plain", ()), ("augmented", RECIPE)):
        candidates = {"mlcls_jax": ours(paths, augment, cores)}
        if not augment:
            candidates["limit: decode"] = bare(paths, cores, resize=False)
            candidates[LIMIT] = bare(paths, cores, resize=True)
        if has_torch():
            candidates[PEER] = torch_loader(paths, cores, is_augmented=bool(augment))
        times = take_turns(candidates, rounds=rounds)
        rates = {
            name: len(paths) / (statistics.median(values) / 1000) for name, values in times.items()
        }
        for name, rate in rates.items():
            fastest, slowest = (len(paths) / (f(times[name]) / 1000) for f in (min, max))
            rows.append(
                {
                    "case": f"{cores} core{'s' * (cores > 1)}, {work}",
                    "path": name,
                    "images/s": round(rate),
                    "slowest": round(slowest),
                    "fastest": round(fastest),
                    "of torch": round(rate / rates[PEER], 2) if PEER in rates else "",
                    "of limit": round(rate / rates[LIMIT], 2) if LIMIT in rates else "",
                }
            )
    return rows


def ours(paths: Sequence[Path], augment: tuple[str, ...], threads: int) -> Callable[[], object]:
    """One pass of the pipeline that training uses."""
    reader = Reader(Files(paths, ("label",)), Frame((SIZE, SIZE)), "raise")
    config = Data(threads=threads, augment=augment)

    def read() -> int:
        steps = len(paths) // BATCH
        batches = train_batches(
            reader, config, batch_size=BATCH, seed=0, start_step=0, end_step=steps
        )
        return sum(batch["image"].shape[0] for batch in batches)

    return read


def bare(paths: Sequence[Path], threads: int, *, resize: bool) -> Callable[[], object]:
    """Decoding and perhaps resizing, and nothing else."""

    def read_one(path: Path) -> int:
        image = simplejpeg.decode_jpeg(path.read_bytes(), min_height=SIZE, min_width=SIZE)
        if resize:
            image = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        return image.shape[0]

    def read() -> int:
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(read_one, paths))

    return read


def torch_loader(
    paths: Sequence[Path], workers: int, *, is_augmented: bool
) -> Callable[[], object]:
    """One pass of PyTorch's DataLoader, its processes started beforehand."""
    from torch.utils.data import DataLoader

    loader = DataLoader(
        PillowFiles(paths, is_augmented=is_augmented),
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
    )
    return lambda: sum(len(images) for images, _ in loader)


def has_torch() -> bool:
    """Whether PyTorch can be imported."""
    return importlib.util.find_spec("torch") is not None


def make_photos(folder: Path, count: int = 384) -> Path:
    """Different cuts of two photographs as JPEGs of 640 x 480."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for number in range(count):
        left, top = rng.uniform(0, 0.3, 2)
        photograph = photographs[number % 2]
        width, height = photograph.size
        box = (left * width, top * height, (left + 0.7) * width, (top + 0.7) * height)
        cut = photograph.resize((640, 480), Image.Resampling.BICUBIC, box=box)
        cut.save(folder / f"{number:04d}.jpg", quality=90)
    return folder


if __name__ == "__main__":
    main()
