"""`mlcls tune DATA`: better settings for a data set, by a search over runs."""

import logging
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlcls_jax import usage
from mlcls_jax.command_line import FlagError
from mlcls_jax.commands import mode
from mlcls_jax.commands.train import asked, look
from mlcls_jax.config import REQUIRED, option
from mlcls_jax.errors import ConfigError
from mlcls_jax.readable import table
from mlcls_jax.start import start_jax
from mlcls_jax.tuning.space import USUAL, make_space
from mlcls_jax.wishes import Wishes

if TYPE_CHECKING:
    from mlcls_jax.ray_cluster import Cluster
    from mlcls_jax.tuning import study

log = logging.getLogger(__name__)

TRIALS = 20
SHOWN = 10  # trials in the summary


@dataclass(frozen=True, kw_only=True)
class Arguments(Wishes):
    """Search for better settings.

    Runs are trained with values that Optuna chooses by the runs before them; those that fall
    behind are ended early. What you set yourself is not searched. An
    interrupted search goes on with `mlcls tune STUDY`.
    """

    data: str = option(
        REQUIRED, "folder or file of images with labels; or a study, to go on with it",
        positional=True, metavar="DATA",
    )  # fmt: skip
    trials: int | None = option(
        None, f"runs in all, those ended early included; None: {TRIALS}, or the study's", min=1
    )
    space: tuple[str, ...] = option(
        (),
        f"what is tried: some of {', '.join(USUAL)}, or options as KEY=LOW:HIGH or KEY=A/B/C; none:"
        " of the named ones all that are not set",
    )
    ray: str | None = option(
        None,
        "trials on a Ray cluster, as many at once as it has devices: auto, HOST:PORT, or local for"
        " this machine alone; None: one after the other in this process",
    )
    cpus_per_trial: int | None = option(
        None, "of Ray without accelerators; None: those of a node", min=1
    )


def run(argv: list[str]) -> str:
    """Search, and return the best trials and how to use them."""
    arguments, settings = asked(
        Arguments, argv, "tune photos --trials 30", "[--trials N] [--space NAME ...] [--model NAME]"
    )
    from mlcls_jax import parallel  # imports JAX, which a help does without
    from mlcls_jax.new_run import removed_after_fault
    from mlcls_jax.tuning import study

    study.needs_optuna()
    cluster, platform = None, None
    if arguments.ray:
        cluster = _cluster(arguments)
        platform = cluster.platform()
    folder = Path(arguments.data)
    if (folder / study.STUDY).is_file():
        free = ("data", "trials", "device", "ray", "cpus_per_trial")
        fixed = [name for name, value in vars(arguments).items() if value and name not in free]
        if fixed := [*fixed, *settings]:
            raise ConfigError(
                f"{folder}: is an existing study, in which {', '.join(fixed)} cannot change",
                "Leave them out to continue it, or start another with its data.",
            )
        plan = study.Plan.read(folder)
        trials, device = arguments.trials or plan.trials, arguments.device or plan.device
        plan = replace(plan, trials=trials, device=device)
        plan.write(folder)
        start_jax(cache=True)
        with parallel.devices(None if cluster else plan.device):
            pass
    else:
        new = look(arguments.data, arguments, settings, suffix="-tune", platform=platform)
        folder, fixed = new.folder, arguments.settings() | settings
        with removed_after_fault(folder):
            space = make_space(arguments.space, new.config, fixed)
            plan = study.Plan(space, arguments.trials or TRIALS, new.device)
            study.begin(folder, new.config, plan)
    log.info("%s", "\n".join(["Searched:", *(f"  {d}" for d in plan.space)]))
    again = f"{usage.program()} tune {shlex.quote(str(folder))}"
    with mode.interruptions(study.base_of(folder), folder, again):
        trials = _search(folder, cluster)
    return "\n".join(["", *_summary(folder, plan, trials)])


def _cluster(arguments: Arguments) -> "Cluster":
    import jax

    from mlcls_jax.ray_cluster import Cluster

    if arguments.device:
        raise FlagError(
            "--ray and --device do not go together", "Each trial has a device of Ray's."
        )
    # This process trains nothing, and must not take memory of a GPU that a trial needs.
    jax.config.update("jax_platforms", "cpu")
    return Cluster(arguments.ray, arguments.cpus_per_trial)


def _search(folder: Path, cluster: "Cluster | None") -> "list[study.Trial]":
    from mlcls_jax.tuning import study

    if cluster is None:
        return study.search(folder)
    from mlcls_jax.tuning.trials_on_ray import OnRay

    with cluster.connected():
        places = OnRay(cluster, folder)
        log.info("%d trials at once; each one's messages are in its train.log.", places.count)
        return study.search(folder, places)


def _summary(folder: Path, plan: "study.Plan", trials: "list[study.Trial]") -> list[str]:
    from mlcls_jax.tuning import study

    lines = table(study.rows_of(trials[:SHOWN], plan.space), to_left=2)
    lines += [f"  table       {folder / study.TABLE}", f"  picture     {folder / study.PICTURE}"]
    best, program = study.best_of(trials), usage.program()
    if best is None:
        return [*lines, "No trial ended with a metric."]
    run = shlex.quote(str(folder / best.folder))
    return [
        *lines,
        f"  best        {folder / study.BEST}",
        "Next:",
        f"  {program} evaluate {run}",
        f"  {program} predict {run} IMAGES",
        f"  {program} train --config={shlex.quote(str(folder / study.BEST))} --workdir=runs/tuned",
    ]
