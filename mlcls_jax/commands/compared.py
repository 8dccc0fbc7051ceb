"""What `mlcls compare` knows of a run or a bundle: facts, metrics, curves, decisions, speed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from mlcls_jax import files
from mlcls_jax.inference.bundle import DESCRIPTION, WEIGHTS
from mlcls_jax.metrics import SHOWN_METRICS
from mlcls_jax.modes.train_result import RESULT_FILE
from mlcls_jax.reports.curves import History, read_history
from mlcls_jax.reports.decisions_file import Kept, kept_of, read_decisions
from mlcls_jax.runs import load
from mlcls_jax.workdir import BEST_MODEL, CONFIG_FILE, DATA_FILE, EVALUATION, METRICS

SPEED = "ms/image"

_TIMING = Lock()


@dataclass(frozen=True)
class Compared:
    """A run, or a bundle that belongs to none."""

    name: str
    model_dir: Path
    task: str
    facts: Mapping[str, str]  # by what they are; "-" or nothing: not known, as of an unfinished run
    history: History
    metrics: Mapping[str, float] = field(default_factory=dict)
    judged: Mapping[str, Any] = field(default_factory=dict)  # what an evaluation has found
    kept: Kept | None = None  # what it decided
    validation: dict[str, Any] | None = None  # which images it was judged on, as `data.json` tells

    @property
    def shown(self) -> dict[str, float]:
        """Return the metrics that are shown of its task, as far as they are known."""
        return {k: self.metrics[k] for k in SHOWN_METRICS[self.task] if k in self.metrics}


def open_compared(given: str) -> Compared:
    """Return what the files of a run, or of a bundle, tell.

    Raises:
      WorkdirError: it is neither.
    """
    folder = Path(given)
    is_of_run = folder.name == BEST_MODEL and (folder.parent / CONFIG_FILE).is_file()
    if (folder / DESCRIPTION).is_file() and not is_of_run:
        return _bundle(given, folder)
    run = load(folder.parent if is_of_run else folder)
    config, done = run.config, _json(run.folder / RESULT_FILE)
    judged = _json(run.folder / EVALUATION)
    return Compared(
        name=given,
        model_dir=run.folder / BEST_MODEL,
        task=config.model.task,
        facts={
            "model": config.model.name,
            "image size": "{} x {}".format(*config.model.image_size),
            "data": str(config.data.dir or config.data.source),
            "start": str(config.model.weights),
            "epochs": str(done.get("epochs", "-")),
            "best epoch": str(done.get("best_epoch", "-")),
            "seconds": _number(done.get("seconds")),
            "images/s": _number(done.get("images_per_s")),
            "MB": _size(run.folder / BEST_MODEL),
        },
        history=read_history(run.folder / METRICS, given),
        metrics=run.metrics if done or judged else {},
        judged=judged,
        kept=read_decisions(run.folder / "evaluate"),
        validation=_json(run.folder / DATA_FILE).get("validation"),
    )


def _bundle(given: str, folder: Path) -> Compared:
    told = _json(folder / DESCRIPTION)
    model = told.get("model", {})
    return Compared(
        name=given,
        model_dir=folder,
        task=model.get("task", "multilabel"),
        facts={
            "model": str(model.get("name", "-")),
            "image size": " x ".join(map(str, model.get("image_size", "-"))),
            "best epoch": str(told.get("epoch", "-")),
            "MB": _size(folder),
        },
        history=History(given, []),
    )


def measured(compared: Sequence[Compared], data: str | None) -> list[Compared]:
    """Return the same with their speed here, and with `data` as evaluated on it.

    Raises:
      UserError: a bundle or the data cannot be read, or their labels differ.
    """
    from mlcls_jax import config as schema
    from mlcls_jax.data.detect import detect
    from mlcls_jax.new_run import prepare_data
    from mlcls_jax.start import start_jax

    start_jax(cache=True)
    if data is not None:
        with TemporaryDirectory() as temporary:
            config = schema.Config()
            section, _ = prepare_data(detect(Path(data)), Path(temporary), config)
            config = replace(config, mode="evaluate", data=section)
            compared = [_evaluated(one, config, Path(temporary)) for one in compared]
    return timed(compared)


def timed(compared: Sequence[Compared]) -> list[Compared]:
    """Return the same with their speed here, which is measured once in a process.

    Raises:
      UserError: a bundle cannot be read.
    """
    with _TIMING:  # two at once would slow each other
        device, times = _milliseconds(tuple(one.model_dir for one in compared))
    return [
        replace(one, facts={**one.facts, f"{SPEED}, {device}": f"{time:.1f}"})
        for one, time in zip(compared, times, strict=True)
    ]


@cache
def _milliseconds(model_dirs: tuple[Path, ...]) -> tuple[str, list[float]]:
    """Return the kind of device, and what an image takes each bundle there, one at a time."""
    import jax

    from mlcls_jax.inference.backends.fastest import measure
    from mlcls_jax.inference.bundle import read_bundle
    from mlcls_jax.inference.exports.verify import sample_images
    from mlcls_jax.inference.predictor import Predictor

    calls = {}
    for number, model_dir in enumerate(model_dirs):
        predictor = Predictor(read_bundle(model_dir))
        images = sample_images(predictor.bundle.image_size)[:1]
        calls[number] = lambda run=predictor.scores, images=images: run(images)
    seconds = measure(calls)
    return jax.devices()[0].device_kind, [1e3 * seconds[number] for number in calls]


def _evaluated(one: Compared, config: Any, temporary: Path) -> Compared:
    from mlcls_jax.metrics import for_json
    from mlcls_jax.metrics.intervals import intervals
    from mlcls_jax.modes.evaluate import measure, run_bundle
    from mlcls_jax.modes.evaluate_result import details_of

    options = replace(config.evaluate, model_dir=str(one.model_dir))
    outputs = run_bundle(replace(config, evaluate=options), temporary, thresholds=False)
    evaluation = measure(outputs, options)
    metrics = for_json(evaluation.metrics)
    kept = None
    if outputs.indices is not None:
        names = [outputs.source.name(index) for index in outputs.indices.tolist()]
        kept = kept_of(evaluation.decisions, names, evaluation.labels)
    return replace(
        one,
        metrics={name: value for name, value in metrics.items() if value is not None},
        judged={
            **metrics,
            **details_of(evaluation, options.map_type),
            "intervals": intervals(evaluation.metrics, outputs.logits, outputs.targets),
        },
        kept=kept,
        validation={"images": len(outputs.targets)},
    )


def _json(path: Path) -> dict[str, Any]:
    return files.read_json(path) if path.exists() else {}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _size(folder: Path) -> str:
    weights = folder / WEIGHTS
    return f"{weights.stat().st_size / 1e6:.1f}" if weights.exists() else "-"
