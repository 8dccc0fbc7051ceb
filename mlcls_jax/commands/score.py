"""`mlcls score --model_dir BUNDLE --input INPUT --output DIR`: labels of very many images."""

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mlcls_jax import lazy, usage
from mlcls_jax.config import add_arguments, from_arguments, option
from mlcls_jax.start import start_jax

with lazy.optional("scores are written as Parquet, which needs pyarrow", extra="score"):
    from mlcls_jax.scoring.job import Request

if TYPE_CHECKING:
    from mlcls_jax.scoring.run_job import Summary


def _shard(text: str) -> tuple[int, int]:
    numbers = text.split("/")
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 0/4")
    return int(numbers[0]), int(numbers[1])


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments besides those of the `Request`: this process's part, and what computes."""

    shard: Any = option("0/1", "do the part I of N, from 0", parse=_shard, metavar="I/N")
    engine: Literal["local", "ray"] = option("local", "this process, or Ray")
    address: str | None = option(
        None, "of the Ray cluster: auto, or HOST:PORT; None: a Ray of its own"
    )
    cpus_per_actor: int | None = option(None, "of Ray without GPUs; None: those of a node", min=1)


def run(argv: list[str]) -> str:
    """Score as the arguments say, and return a summary."""
    parser = usage.parser(
        "score",
        "Label very many images, into Parquet files. Run again, it continues where it stopped.",
        "score runs/photos-1 photos --output scores",
    )
    add_arguments(parser, Request)
    add_arguments(parser, Arguments)
    parsed = parser.parse_args(argv)
    args = from_arguments(Arguments, parsed)
    if args.engine == "local" and (args.address or args.cpus_per_actor):
        parser.error("--address and --cpus_per_actor are for --engine=ray")
    shard, shards = args.shard
    request = from_arguments(Request, parsed, shard=shard, shards=shards)
    start_jax(cache=True)
    from mlcls_jax.scoring.run_job import score  # imports JAX, which a help does without

    if args.engine == "ray":
        import jax

        # This process computes nothing, and must not take memory of a GPU that an actor needs.
        jax.config.update("jax_platforms", "cpu")
        from mlcls_jax.ray_cluster import Cluster
        from mlcls_jax.scoring.on_ray import ray_engine

        cluster = Cluster(args.address, args.cpus_per_actor)
        return _summary(score(request, ray_engine(cluster), platform=cluster.platform))
    return _summary(score(request))


def _summary(done: "Summary") -> str:
    job, asked = done.job, done.job.request
    shard = f"shard {asked.shard}/{asked.shards}: " if asked.shards > 1 else ""
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
    lines.append(f"  results  {job.output}/part-{asked.shard:05d}-*.parquet")
    if done.broken:
        lines.append(f"  broken   {job.output}/_errors-{asked.shard:05d}-*.parquet")
    lines.append(f"Next: pyarrow.parquet.read_table({str(job.output)!r}), or any Parquet reader.")
    return "\n".join(lines)
