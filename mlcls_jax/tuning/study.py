"""A study: runs with values that Optuna proposes, kept in SQLite so that it goes on after any end.

Its folder has `base.yaml`, the run that is to be made better; `study.json`, what is tried;
`study.db`; a run `trial-000`, `trial-001`, … for each trial; and what came of them so far:
`trials.csv`, `trials.png`, and `best.yaml`, a configuration.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import jax
import numpy as np

from mlcls_jax import config as schema
from mlcls_jax import files, lazy
from mlcls_jax.config import Config
from mlcls_jax.data.fingerprint import describe_data
from mlcls_jax.data.sources import open_data
from mlcls_jax.errors import ConfigError, NonFiniteError, UserError, WorkdirError
from mlcls_jax.lock import locked
from mlcls_jax.metrics import MAIN_METRIC, as_text
from mlcls_jax.modes.running import run_mode
from mlcls_jax.modes.train_result import TrainResult
from mlcls_jax.readable import csv_text, shorten
from mlcls_jax.reports.trials_chart import Panel, Point, draw_trials
from mlcls_jax.tuning import space as spaces
from mlcls_jax.tuning.space import Dimension, config_of
from mlcls_jax.workdir import DATA_FILE, FEATURES, check_data
from mlcls_jax.yaml_config import get_config

if TYPE_CHECKING:
    import optuna
    from optuna.trial import TrialState

log = logging.getLogger(__name__)

BASE, STUDY, DATABASE = "base.yaml", "study.json", "study.db"
BEST, TABLE, PICTURE = "best.yaml", "trials.csv", "trials.png"
NAME = "tune"  # of the study in the database
_HINT = "Begin another study; the runs of this one stay in its folders."
UNJUDGED = 4  # trials that are never ended early, for others to be compared with
EARLY = 3  # a trial runs for a third of its epochs before it can be ended


class PrunedError(UserError):
    """A trial is ended early; as a run it can go on."""


@dataclass(frozen=True)
class Plan:
    """What a study tries, and how much of it; the content of `study.json`."""

    space: list[Dimension]
    trials: int
    device: str | None

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        """Return the plan of the study in the folder.

        Raises:
          WorkdirError: there is none, or it is damaged.
        """
        try:
            values = files.read_json(folder / STUDY)
            return cls(**{**values, "space": spaces.from_json(values["space"])})
        except (OSError, TypeError, KeyError) as error:
            raise WorkdirError(f"{folder / STUDY}: is of no study: {error!r}", _HINT) from error

    def write(self, folder: Path) -> None:
        """Keep the plan in the folder."""
        files.write_json(folder / STUDY, dataclasses.asdict(self))


@dataclass(frozen=True)
class Trial:
    """What became of a trial."""

    number: int
    state: str  # complete, pruned, fail, running
    metric: float | None  # the best of its evaluations
    epochs: int  # after which it was evaluated last
    values: dict[str, Any]

    @property
    def folder(self) -> str:
        """The run's folder in that of the study."""
        return folder_of(self.number)


@dataclass(frozen=True)
class Task:
    """A trial to be trained, perhaps on another machine."""

    study: Path  # its folder
    number: int
    base: Config
    values: dict[str, Any]
    is_alone: bool  # no other trial runs meanwhile


# Its state unless complete, its metric, and why it failed.
Outcome: TypeAlias = "tuple[TrialState | None, float | None, str]"
Behind: TypeAlias = Callable[[int, float], bool]  # (epoch, score) → whether to end the trial


class Places(Protocol):
    """Where trials are trained."""

    count: int  # of them at once

    def start(self, task: Task, trial: "optuna.Trial") -> Future[Outcome]:
        """Train a trial."""
        ...


def folder_of(number: int) -> str:
    """Return the name of a trial's folder in that of the study."""
    return f"trial-{number:03d}"


def needs_optuna() -> None:
    """See that Optuna is there, before anything takes time.

    Raises:
      UserError: it is not; says how to install it.
    """
    with lazy.optional("mlcls tune needs Optuna", extra="tune"):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)


def begin(folder: Path, base: Config, plan: Plan) -> None:
    """Write down what a new study is about; `search` does it."""
    files.write_text(folder / BASE, schema.to_yaml(base))
    plan.write(folder)


def base_of(folder: Path) -> Config:
    """Return the configuration of the run that the study makes better."""
    return schema.parse(get_config(str(folder / BASE)))


def open_study(folder: Path, base: Config) -> "optuna.Study":
    """Open the study in its database, which is made if need be."""
    import optuna

    return optuna.create_study(
        study_name=NAME,
        storage=f"sqlite:///{(folder / DATABASE).resolve()}",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(UNJUDGED, base.train.epochs // EARLY),
    )


def search(folder: Path, where: Places | None = None) -> list[Trial]:
    """Run the trials that are left of the study in the folder; return all, the best first.

    A trial that was interrupted goes on as any run does. The values of a trial depend on the seed,
    its number and the trials that ended before it began alone.

    Args:
      folder: of the study.
      where: where trials run, some of them at once; None: here, one after the other.

    Raises:
      PreemptedError: the process was asked to end.
      UserError: a run cannot be made, or the study is another process's or damaged.
    """
    plan, base, where = Plan.read(folder), base_of(folder), where or Here()
    with locked(folder), _database(folder / DATABASE):
        study = open_study(folder, base)
        if not study.trials:  # first of all what would be trained without a search
            study.enqueue_trial(spaces.start_of(plan.space, base))
        running: dict[Future[Outcome], optuna.Trial] = {}
        while True:
            left = plan.trials - sum(trial.state.is_finished() for trial in study.trials)
            while len(running) < min(where.count, left):
                trial = _next(study, base.seed, {t.number for t in running.values()}, where.count)
                values = {d.name: _suggested(d, trial) for d in plan.space}
                told = ", ".join(f"{name}={_text(value)}" for name, value in values.items())
                log.info("%s of %d trials: %s", folder_of(trial.number), plan.trials, told)
                _check_data(folder, base)
                task = Task(folder, trial.number, base, values, where.count == 1)
                running[where.start(task, trial)] = trial
            if not running:
                return trials_of(study)
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                trial, (state, metric, why) = running.pop(ended), ended.result()
                if why:
                    log.warning("%s fails: %s", folder_of(trial.number), why)
                study.tell(trial, metric, state)
                trials = trials_of(study)
                write(folder, base, plan.space, trials)
                log.info("%s", _told(trials, trial.number))


@contextlib.contextmanager
def _database(path: Path) -> Iterator[None]:
    """Turn what goes wrong with the database in the block into errors by its path."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise WorkdirError(f"{path}: cannot be read or written: {shorten(error)}", _HINT) from error


def _check_data(folder: Path, base: Config) -> None:
    """See that a trial is trained and judged on the same data as the first.

    Raises:
      WorkdirError: tells what has changed.
    """
    first = folder / folder_of(0) / DATA_FILE
    if first.exists():
        now = describe_data(*open_data(base.data))
        known = {key: value for key, value in files.read_json(first).items() if key in now}
        check_data(folder, known, now)


def _next(
    study: "optuna.Study", seed: int, running: Collection[int], places: int
) -> "optuna.Trial":
    """Return the trial that an earlier process left unfinished, or else a new one.

    Args:
      study: the study.
      seed: of its draws.
      running: numbers of the trials that this process runs now.
      places: trials at once.
    """
    import optuna

    unfinished = [trial for trial in study.trials if not trial.state.is_finished()]
    left = [trial for trial in unfinished if trial.number not in running]
    number = left[0].number if left else len(study.trials)
    # Each has draws of its own: with one generator, a study that goes on would repeat its first.
    draws = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    # Several at once keep away from each other.
    study.sampler = optuna.samplers.TPESampler(seed=draws, constant_liar=places > 1)
    begun = [t for t in left if t.state is optuna.trial.TrialState.RUNNING]
    if begun:  # no public name leads from a trial in the storage to one that can go on
        return optuna.Trial(study, begun[0]._trial_id)
    return study.ask()


def _suggested(dimension: Dimension, trial: "optuna.Trial") -> Any:
    if dimension.choices:
        return trial.suggest_categorical(dimension.name, dimension.choices)
    name, low, high, is_log = dimension.name, dimension.low, dimension.high, dimension.is_log
    if dimension.is_whole:
        return trial.suggest_int(name, round(low), round(high), log=is_log)
    return trial.suggest_float(name, low, high, log=is_log)


class Here:
    """One trial after the other, in this process."""

    count = 1

    def start(self, task: Task, trial: "optuna.Trial") -> Future[Outcome]:
        """Train a trial before returning."""
        done: Future[Outcome] = Future()
        done.set_result(train(task, partial(is_behind, trial)))
        jax.clear_caches()  # no other trial has the same programs
        return done


def is_behind(trial: "optuna.Trial", epoch: int, score: float) -> bool:
    """Note an evaluation; return whether most other trials were better by then."""
    if epoch in trial.study.trials[trial.number].intermediate_values:  # computed once more
        return False
    trial.report(score, epoch)
    return trial.should_prune()


def train(task: Task, behind: Behind) -> Outcome:
    """Train a trial, which ends early if it falls behind."""
    from optuna.trial import TrialState

    metric, place = MAIN_METRIC[task.base.model.task], task.study / folder_of(task.number)

    def listen(entry: dict[str, Any]) -> None:
        found = [entry.get(f"{weights}/{metric}") for weights in ("raw", "ema")]
        scores = [score for score in found if score is not None]
        if scores and behind(entry["epoch"], max(scores)) and entry["epoch"] < config.train.epochs:
            raise PrunedError(
                f"ended after epoch {entry['epoch']}: most trials were better by then"
            )

    place.mkdir(exist_ok=True)
    try:
        config = config_of(task.base, task.values)
        if config.data.feature_views and task.is_alone:
            _share_features(task.study, place, config)
        result = run_mode(config, place, listen=listen)
    except PrunedError:
        return TrialState.PRUNED, None, ""
    except (NonFiniteError, ConfigError) as error:  # other values may still do
        return TrialState.FAIL, None, error.message
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return TrialState.FAIL, None, "the device has too little memory"
    assert isinstance(result, TrainResult)  # one process is the first one
    if result.metric is None:
        return TrialState.FAIL, None, "it was not evaluated"
    return None, result.metric, ""


def _share_features(folder: Path, place: Path, config: Config) -> None:
    """Let trials that see the same images keep the features of a frozen backbone together."""
    size = "x".join(map(str, config.model.image_size))
    shared = Path(FEATURES) / "-".join((size, *config.data.augment))
    (folder / shared).mkdir(parents=True, exist_ok=True)
    if not (place / FEATURES).exists():
        (place / FEATURES).symlink_to(Path("..") / shared, target_is_directory=True)


def trials_of(study: "optuna.Study") -> list[Trial]:
    """Return the trials, the best first; those that were ended early after those that were not."""
    trials = [
        Trial(
            number=trial.number,
            state=trial.state.name.lower(),
            metric=max(trial.intermediate_values.values(), default=None),
            epochs=max(trial.intermediate_values, default=0),
            values=dict(trial.params),
        )
        for trial in study.trials
    ]
    return sorted(
        trials, key=lambda t: (t.state != "complete", -(-1 if t.metric is None else t.metric))
    )


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """Return the best of trials in the order of `trials_of`; None if none is complete."""
    return trials[0] if trials and trials[0].state == "complete" else None


def rows_of(trials: Sequence[Trial], space: Sequence[Dimension]) -> list[tuple[str, ...]]:
    """Return a table of the trials with a head."""
    names = [dimension.name for dimension in space]
    rows = [
        (t.folder, t.state, as_text(t.metric), f"{t.epochs}",
         *(_text(t.values.get(name, "")) for name in names))
        for t in trials
    ]  # fmt: skip
    return [("trial", "state", "metric", "epochs", *names), *rows]


def write(folder: Path, base: Config, space: Sequence[Dimension], trials: list[Trial]) -> None:
    """Write table, picture and best configuration of the trials so far."""
    files.write_text(folder / TABLE, csv_text(rows_of(trials, space)))
    best = best_of(trials)
    if best:
        files.write_text(folder / BEST, schema.to_yaml(config_of(base, best.values)))
    judged = [t for t in trials if t.metric is not None]

    def point(x: Any, trial: Trial) -> Point:
        kind = "best" if trial is best else "plain" if trial.state == "complete" else "pale"
        return Point(x, trial.metric or 0.0, kind)

    panels = [Panel("trial", False, (), [point(t.number, t) for t in judged])]
    panels += [
        Panel(d.name, d.is_log, d.choices, [point(t.values[d.name], t) for t in judged])
        for d in space
    ]
    title = f"{MAIN_METRIC[base.model.task]} of {len(trials)} trials; red: the best"
    draw_trials(folder / PICTURE, title, panels)


def _told(trials: Sequence[Trial], number: int) -> str:
    best, this = best_of(trials), next(t for t in trials if t.number == number)
    told = f"{this.folder}: {this.state}, {as_text(this.metric)} after epoch {this.epochs}"
    return f"{told}; the best so far: {best.folder}, {as_text(best.metric)}." if best else told


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
