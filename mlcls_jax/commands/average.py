"""`mlcls average RUN RUN`: several runs as one, by their weights or by their scores."""

import shlex
from dataclasses import dataclass

from mlcls_jax import usage
from mlcls_jax.config import REQUIRED, option
from mlcls_jax.metrics import as_text
from mlcls_jax.readable import table
from mlcls_jax.start import start_jax


@dataclass(frozen=True)
class Arguments:
    """Several runs as one.

    Where they began with the same weights, the average of their weights is evaluated and
    written as a new run, as large and fast as one of them. The average of their scores is
    measured as well; it needs all the networks, and is not written.
    """

    runs: tuple[str, ...] = option(
        REQUIRED, "folders of runs on the same labels; the first says on which images to evaluate",
        positional=True, metavar="RUN",
    )  # fmt: skip
    greedy: bool = option(
        False, "begin with the best run, and take others in only where the metric does not fall"
    )
    scores: bool = option(False, "average scores alone, and leave the weights")
    output: str | None = option(
        None, "new folder for the averaged run; None: runs/average-1, -2, …", path="local"
    )


def run(argv: list[str]) -> str:
    """Average, and return what the runs reach alone and together."""
    args = usage.arguments(
        Arguments, argv, "average runs/photos-tune-1/trial-003 runs/photos-tune-1/trial-007"
    )
    from mlcls_jax.new_run import new_folder  # imports JAX, which a help does without
    from mlcls_jax.runs import load
    from mlcls_jax.tuning.soup import average

    runs = [load(folder) for folder in args.runs]
    start_jax(cache=True)
    with new_folder(args.output, "average") as folder:
        done = average(runs, folder, is_greedy=args.greedy, only_scores=args.scores)
    rows = [("", done.metric), *((name, as_text(value)) for name, value in done.runs.items())]
    if not done.apart:
        rows += [(f"weights of {len(done.members)}", as_text(done.weights))]
    lines = table([*rows, (f"scores of {len(done.runs)}", as_text(done.scores))])
    if done.apart:
        why = ["The weights are not averaged:", *(f"  {line}" for line in done.apart)]
        return "\n".join([*lines, *why, f"The numbers are in {folder}."])
    place, program = shlex.quote(str(folder)), usage.program()
    if len(done.members) < len(runs):
        lines += [f"Averaged: {', '.join(done.members)}"]
    return "\n".join(
        [*lines, "Next:", f"  {program} predict {place} IMAGES", f"  {program} compare {place} …"]
    )
