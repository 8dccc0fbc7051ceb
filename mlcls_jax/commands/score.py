"""`mlcls score --model_dir BUNDLE --input INPUT --output DIR`: labels of very many images."""

import argparse
import json
from typing import Any

from mlcls_jax import usage
from mlcls_jax.inference.backends import BACKENDS
from mlcls_jax.inference.precision import PRECISIONS
from mlcls_jax.paths import expand, local
from mlcls_jax.scoring.job import Request
from mlcls_jax.scoring.run_job import Summary, score
from mlcls_jax.start import start_jax


def run(argv: list[str]) -> str:
    """Score as the arguments say; a summary.

    Raises:
      UserError: the bundle, the input, the output or an option cannot be used.
      SystemExit: the arguments are wrong, or ask for help.
    """
    parser = _parser()
    args = vars(parser.parse_args(argv))
    engine, address, cpus = args.pop("engine"), args.pop("address"), args.pop("cpus_per_actor")
    if engine == "local" and (address or cpus):
        parser.error("--address and --cpus_per_actor are for --engine=ray")
    shard, shards = args.pop("shard")
    request = Request(**args, shard=shard, shards=shards)
    start_jax(cache=True)
    if engine == "ray":
        import jax

        # This process computes nothing, and must not take memory of a GPU that an actor needs.
        jax.config.update("jax_platforms", "cpu")
        from mlcls_jax.scoring.on_ray import ray_engine

        return _summary(score(request, ray_engine(address, cpus)))
    return _summary(score(request))


def _summary(done: Summary) -> str:
    job = done.job
    shard = f"shard {job.shard}/{job.shards}: " if job.shards > 1 else ""
    lines = [f"{shard}{done.images:,} images, {done.broken:,} of them could not be read."]
    if done.rows + done.broken != done.images:
        lines[0] = (
            f"{shard}{done.images:,} images and documents: {done.rows:,} pictures scored,"
            f" {done.broken:,} could not be read."
        )
    if done.scored:
        rate = f"{done.scored / done.seconds:,.0f} images/s"
        lines.append(f"This run scored {done.scored:,} in {done.seconds:,.0f} s: {rate}.")
    else:
        lines.append("Nothing was left to do.")
    lines.append(f"  results  {job.output}/part-{job.shard:05d}-*.parquet")
    if done.broken:
        lines.append(f"  broken   {job.output}/_errors-{job.shard:05d}-*.parquet")
    lines.append(f"Next: pyarrow.parquet.read_table({str(job.output)!r}), or any Parquet reader.")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = usage.parser(
        "score",
        "Label very many images, into Parquet files. Run again, it goes on where it was stopped.",
        "score --model_dir runs/demo/best_model --input photos --output scores",
    )
    plain = Request("", "", "")
    add = parser.add_argument
    add(
        "--model_dir",
        required=True,
        type=local("--model_dir"),
        help="the bundle: best_model of a training run",
    )
    add(
        "--input",
        required=True,
        type=expand,
        help="a folder of images; a text file with a path or URL a line, or a .csv with a column of"
        " them; a Parquet file or a folder of them; or a packed data set",
    )
    add(
        "--output",
        required=True,
        type=local("--output"),
        help="a new folder, or that of a job that is to go on",
    )
    add("--batch_size", type=_positive, default=plain.batch_size, help="images computed together")
    add("--threshold", type=_threshold, help="a number, or a JSON list or dict; None: the model's")
    add("--all_scores", action="store_true", help="write the scores of all labels")
    add("--shard", type=_shard, default="0/1", metavar="I/N", help="do the part I of N, from 0")
    add("--rows_per_file", type=_positive, default=plain.rows_per_file, help="images in a file")
    add("--device", help="cpu, gpu:0, tpu …; None: the first that JAX finds")
    add("--backend", choices=[*BACKENDS, "auto"], default=plain.backend, help="what computes")
    add("--precision", choices=PRECISIONS, default=plain.precision, help="of the weights")
    add("--threads", type=_positive, default=plain.threads, help="that read images")
    add("--image_column", help="paths, URLs or, of Parquet, encoded images; None: found out")
    add("--path_column", help="of Parquet: names for the output; None: found out")
    add("--split", help="of a packed data set; None: all")
    add("--engine", choices=("local", "ray"), default="local", help="this process, or Ray")
    add("--address", help="of the Ray cluster: auto, or HOST:PORT; None: a Ray of its own")
    add("--cpus_per_actor", type=_positive, help="of Ray without GPUs; None: those of a node")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _threshold(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        told = f"{text!r} is neither a number nor JSON, such as '{{\"cat\": 0.7}}'"
        raise argparse.ArgumentTypeError(told) from error


def _shard(text: str) -> tuple[int, int]:
    numbers = text.split("/")
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 0/4")
    return int(numbers[0]), int(numbers[1])
