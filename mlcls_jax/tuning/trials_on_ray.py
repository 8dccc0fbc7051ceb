"""Trials of a study on a Ray cluster, as many at once as it has devices.

Optuna asks and tells in the process that searches, as without Ray: the same space and pruning, and
a study that goes on after any end. Ray only carries trials to devices, and starts again those whose
machine is lost; they go on from their checkpoints. All nodes share the study's folder, but one of
them alone opens its database, as SQLite's locks cannot be relied upon across machines.
"""

import logging
import os
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcls_jax.ray_cluster import Cluster
from mlcls_jax.start import start_console, start_jax
from mlcls_jax.tuning.study import Outcome, Task, base_of, is_behind, open_study, train

if TYPE_CHECKING:
    import optuna


class OnRay:
    """Places for trials on a cluster that is connected."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        ray = cluster.ray
        needs, self.count = cluster.shares()
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        judge = ray.remote(num_cpus=0, scheduling_strategy=here)(Judge)
        self._judge = judge.remote(folder.resolve())
        # A process for each trial: one that is done would keep its device's memory.
        self._train = ray.remote(**needs, max_calls=1)(_train)

    def start(self, task: Task, trial: "optuna.Trial") -> Future[Outcome]:
        """Train a trial where there is room."""
        return self._train.remote(os.getcwd(), task, self._judge, trial._trial_id).future()


class Judge:
    """The actor that says whether a trial falls behind."""

    def __init__(self, folder: Path) -> None:
        self._study = open_study(folder, base_of(folder))

    def is_behind(self, trial: int, epoch: int, score: float) -> bool:
        import optuna

        return is_behind(optuna.Trial(self._study, trial), epoch, score)


def _train(cwd: str, task: Task, judge: Any, trial: int) -> Outcome:
    import ray

    os.chdir(cwd)  # paths may be relative
    start_console(logging.WARNING)
    start_jax(cache=True)
    return train(task, lambda *found: ray.get(judge.is_behind.remote(trial, *found)))
