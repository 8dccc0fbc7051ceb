"""A study: runs with values that Optuna proposes, kept in SQLite so that it goes on after any end.

Its folder has `base.yaml`, the run that is to be made better; `study.json`, what is tried;
`study.db`; a run `trial-000`, `trial-001`, … for each trial; and what came of them so far:
`trials.csv`, `trials.png`, and `best.yaml`, a configuration.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        except (OSError, ValueError, TypeError, KeyError) as error:
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


def search(folder: Path) -> list[Trial]:
    """Run the trials that are left of the study in the folder; return all, the best first.

    A trial that was interrupted goes on as any run does. The values of a trial depend on the seed,
    its number and the trials before it alone.

    Raises:
      PreemptedError: the process was asked to end.
      UserError: a run cannot be made, or the study is another process's or damaged.
    """
    import optuna

    plan, base = Plan.read(folder), base_of(folder)
    with locked(folder), _database(folder / DATABASE):
        study = optuna.create_study(
            study_name=NAME,
            storage=f"sqlite:///{(folder / DATABASE).resolve()}",
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(UNJUDGED, base.train.epochs // EARLY),
        )
        if not study.trials:  # first of all what would be trained without a search
            study.enqueue_trial(spaces.start_of(plan.space, base))
        while sum(trial.state.is_finished() for trial in study.trials) < plan.trials:
            trial = _next(study, base.seed)
            values = {d.name: _suggested(d, trial) for d in plan.space}
            told = ", ".join(f"{name}={_text(value)}" for name, value in values.items())
            log.info("%s of %d trials: %s", folder_of(trial.number), plan.trials, told)
            _check_data(folder, base)
            state, metric = None, None
            try:
                state, metric = _run(trial, folder, config_of(base, values))
            except (NonFiniteError, ConfigError) as error:  # other values may still do
                log.warning("%s fails: %s", folder_of(trial.number), error.message)
                state = optuna.trial.TrialState.FAIL
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                log.warning("%s fails: the device has too little memory", folder_of(trial.number))
                state = optuna.trial.TrialState.FAIL
            study.tell(trial, metric, state)
            jax.clear_caches()  # no other trial has the same programs
            trials = trials_of(study)
            write(folder, base, plan.space, trials)
            log.info("%s", _outcome(trials, trial.number))
        return trials_of(study)


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


def _next(study: "optuna.Study", seed: int) -> "optuna.Trial":
    """Return the trial that an earlier process left unfinished, or else a new one."""
    import optuna

    open_ones = [trial for trial in study.trials if not trial.state.is_finished()]
    number = open_ones[0].number if open_ones else len(study.trials)
    # Each has draws of its own: with one generator, a study that goes on would repeat its first.
    draws = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=draws)
    running = [t for t in open_ones if t.state is optuna.trial.TrialState.RUNNING]
    if running:  # no public name leads from a trial in the storage to one that can go on
        return optuna.Trial(study, running[0]._trial_id)
    return study.ask()


def _suggested(dimension: Dimension, trial: "optuna.Trial") -> Any:
    if dimension.choices:
        return trial.suggest_categorical(dimension.name, dimension.choices)
    name, low, high, is_log = dimension.name, dimension.low, dimension.high, dimension.is_log
    if dimension.is_whole:
        return trial.suggest_int(name, round(low), round(high), log=is_log)
    return trial.suggest_float(name, low, high, log=is_log)


def _run(
    trial: "optuna.Trial", folder: Path, config: Config
) -> tuple["optuna.trial.TrialState | None", float | None]:
    """Train a trial; return its state, if it is not a complete one, and its metric."""
    from optuna.trial import TrialState

    metric, known = MAIN_METRIC[config.model.task], trial.study.trials[trial.number]
    reported = {*known.intermediate_values}

    def listen(entry: dict[str, Any]) -> None:
        """Report an evaluation; end the trial if most others were better by then."""
        found = [entry.get(f"{weights}/{metric}") for weights in ("raw", "ema")]
        scores = [score for score in found if score is not None]
        if not scores or entry["epoch"] in reported:
            return
        reported.add(entry["epoch"])
        trial.report(max(scores), entry["epoch"])
        if entry["epoch"] < config.train.epochs and trial.should_prune():
            raise PrunedError(
                f"ended after epoch {entry['epoch']}: most trials were better by then"
            )

    place = folder / folder_of(trial.number)
    place.mkdir(exist_ok=True)
    if config.data.feature_views:
        _share_features(folder, place, config)
    try:
        result = run_mode(config, place, listen=listen)
    except PrunedError:
        return TrialState.PRUNED, None
    assert isinstance(result, TrainResult)  # one process is the first one
    return (TrialState.FAIL if result.metric is None else None), result.metric


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


def _outcome(trials: Sequence[Trial], number: int) -> str:
    best, this = best_of(trials), next(t for t in trials if t.number == number)
    told = f"{this.folder}: {this.state}, {as_text(this.metric)} after epoch {this.epochs}"
    return f"{told}; the best so far: {best.folder}, {as_text(best.metric)}." if best else told


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
