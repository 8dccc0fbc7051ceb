"""Batch scoring: images/s of `score`, beside its parts alone.

python -m benchmarks.score --model_dir BUNDLE [--images 512] [--json FILE]

JPEGs of 640 x 480. `decode` reads, decodes and resizes in as many threads; `network` only computes;
`predict` makes results and writes nothing. `score` does both parts at once: on a machine with cores
to spare it should come near the slower of the two, else near their sum.
"""

import argparse
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.timing import print_table, rows_of, take_turns
from mlcls_jax.data.images import read_image
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.scoring.in_process import open_job_input, score_here
from mlcls_jax.scoring.job import Job, Request
from mlcls_jax.scoring.run_job import score
from mlcls_jax.start import start_jax

BATCH = 32
THREADS = 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--json", help="also write the rows to this file")
    arguments = parser.parse_args()
    start_jax(cache=True)
    predictor = Predictor(read_bundle(Path(arguments.model_dir)), batch_size=BATCH, threads=THREADS)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        paths = _write(root / "in", arguments.images)
        request = Request(
            arguments.model_dir,
            str(root / "in"),
            str(root / "out"),
            batch_size=BATCH,
            threads=THREADS,
            rows_per_file=arguments.images // 4,
        )
        job: Job = score(request).job

        def compute() -> None:
            images = np.zeros((BATCH, *predictor.bundle.image_size, 3), np.uint8)
            for _ in range(0, arguments.images, BATCH):
                predictor.run(images)

        def decode() -> None:
            with ThreadPoolExecutor(THREADS) as pool:
                for _ in pool.map(lambda path: predictor.prepare(read_image(path)), paths):
                    pass

        def score_all() -> None:
            for path in job.output.glob("part-*"):
                path.unlink()
            for _ in score_here(predictor, job, open_job_input(job), job.ranges):
                pass

        candidates = {
            "score": score_all,
            "predict": lambda: sum(1 for _ in predictor.predict(root / "in")),
            "decode": decode,
            "network": compute,
        }
        rows = rows_of("all images", take_turns(candidates, rounds=5), peer="score")
        for row in rows:
            row["images_per_s"] = round(arguments.images / row["ms"] * 1000)
        print_table(f"Scoring {arguments.images} JPEGs", rows, arguments.json)


def _write(folder: Path, count: int) -> list[Path]:
    """One picture of smooth noise, many times."""
    folder.mkdir()
    cells = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    picture = Image.fromarray(cells).resize((640, 480), Image.Resampling.BICUBIC)
    paths = [folder / f"{i:06}.jpg" for i in range(count)]
    picture.save(paths[0], quality=90)
    for path in paths[1:]:
        shutil.copyfile(paths[0], path)
    return paths


if __name__ == "__main__":
    main()
