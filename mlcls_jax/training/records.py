"""The records of a training run: progress bar, train.log, metrics.jsonl, curves in trackers."""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from mlcls_jax import files
from mlcls_jax.bars import is_quiet, progress
from mlcls_jax.config import Config
from mlcls_jax.data.types import Batch
from mlcls_jax.metrics import MAIN_METRIC, SHOWN_METRICS, as_text, for_json
from mlcls_jax.training.cadence import Plan
from mlcls_jax.training.progress import Best
from mlcls_jax.training.trackers import open_trackers
from mlcls_jax.workdir import METRICS

log = logging.getLogger(__name__)

NONFINITE_FILE = "nonfinite.jsonl"
SLOW_DATA = 0.1  # share of an epoch that the device may wait for images unmentioned


class Recorder:
    """Write down how a run goes, and time it."""

    def __init__(
        self,
        workdir: Path,
        config: Config,
        plan: Plan,
        *,
        start_step: int,
        is_evaluation_due: bool = False,
        quiet: bool = False,
        listen: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Open the files of `workdir`, and drop what will be written again.

        Args:
          workdir: holds all files but the log.
          config: of the run.
          plan: of the run.
          start_step: the steps that are done.
          is_evaluation_due: the evaluation after `start_step` is still to come.
          quiet: write nothing: another process does.
          listen: called with every line of `metrics.jsonl`.
        """
        self._plan, self._batch_size = plan, config.train.batch_size
        self._quiet, self._workdir, self._listen = quiet, workdir, listen
        self.nonfinite_steps: list[int] = []
        self._task = config.model.task
        self._shown = SHOWN_METRICS[self._task]
        self._epoch_losses: list[float] = []
        if not quiet:
            _cut_after(workdir / METRICS, start_step, is_evaluation_due)
        self._metrics = None if quiet else (workdir / METRICS).open("a", encoding="utf-8")
        self._trackers = [] if quiet else open_trackers(workdir, config, start_step)
        self._bar = progress(
            total=plan.total_steps,
            initial=start_step,
            unit="step",
            dynamic_ncols=True,
            disable=quiet or is_quiet() or None,  # None: when not a terminal
        )
        self._doing = ""  # what the bar says in place of numbers
        self._say("compiling …")
        self._watch = Stopwatch()
        self._images, self._is_compiled = 0, False
        self._sent = start_step
        self._last = (start_step, 0.0, 0.0)  # step, training and waiting seconds, last logged
        # Step → those seconds as it was sent off, when the one before was done: its own numbers are
        # read much later, the last ones of an epoch all at once.
        self._marks: dict[int, tuple[float, float]] = {}
        self._threads = ThreadPoolExecutor(1)
        self._step_end: Future[float] | None = None  # when the device was done with the last step
        self._waited = 0.0  # seconds that the device was idle, waiting for a batch
        self._epoch = (0.0, 0.0)  # seconds waited and trained before this epoch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        self._bar.close()
        if self._metrics:
            self._metrics.close()
        for tracker in self._trackers:
            tracker.close()

    @property
    def images_per_second(self) -> float:
        """Training throughput without the first step (compilation), evaluation and saving."""
        return self._images / self._watch.seconds if self._watch.seconds else 0.0

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches; sum up the time that the device is idle, waiting for one."""
        remaining = iter(batches)
        while True:
            asked = time.perf_counter()
            if self._is_compiled:  # after a pause
                self._watch.start()
            try:
                batch = next(remaining)
            except StopIteration:
                self._watch.stop()
                return
            if self._step_end is not None and self._step_end.done():
                self._waited += time.perf_counter() - max(asked, self._step_end.result())
            yield batch

    def sent(self, numbers: dict[str, jax.Array]) -> None:
        """Take note of a step that was sent off; `numbers` are ready once it is done."""
        self._sent += 1
        if not self._is_compiled:  # the first step is not counted
            jax.block_until_ready(numbers)
            self._watch.start()
            self._is_compiled, self._last = True, (self._sent + 1, 0.0, 0.0)
        else:
            self._images += self._batch_size
        self._step_end = self._threads.submit(_when_ready, numbers)
        if self._plan.log_after(self._sent):
            self._marks[self._sent] = self._watch.seconds, self._waited
        self._say("")
        self._bar.update()

    def pause(self, doing: str = "") -> None:
        """Stop the clock, before an evaluation or a save; the bar says what is done."""
        self._say(doing)
        self._watch.stop()
        self._step_end = None

    def _say(self, doing: str) -> None:
        if doing != self._doing:
            self._bar.set_postfix_str(doing)
            self._doing = doing

    def evaluation(
        self,
        step: int,
        results: dict[str, dict[str, float]],
        best: Best | None,
        losses: dict[str, float],
    ) -> None:
        """Write down metrics and losses by weights (raw, ema), and whether they are the best."""
        flat = {
            f"{weights}/{name}": value
            for weights, values in results.items()
            for name, value in for_json(values | {"loss": losses[weights]}).items()
        }
        self._write({"step": step, "epoch": self._plan.epoch(step), **flat})
        self._scalars(step, {f"eval/{name}": value for name, value in flat.items()})
        told, self._epoch_losses = self._epoch_losses, []
        epoch = self._plan.epoch(step)
        log.info(
            "[Train][Epoch %d/%d][Avg] loss: %.5f%s",
            epoch, self._plan.epochs, sum(told) / max(1, len(told)),
            _speed(self.images_per_second),
        )  # fmt: skip
        self._tell_waiting()
        for weights, values in results.items():
            shown = ", ".join(f"{name}: {as_text(values[name])}" for name in self._shown)
            is_best = best and (best.step, best.weights) == (step, weights)
            mark = " (best)" if is_best else ""
            log.info(
                "[Eval][Epoch %d][Avg] %s weights: %s, loss: %.5f%s",
                epoch, weights, shown, losses[weights], mark,
            )  # fmt: skip
        for line in paddleclas_lines(self._task, epoch, results, losses, best):
            log.debug("%s", line)

    def curves(
        self, step: int, scores: np.ndarray, targets: np.ndarray, labels: Sequence[str]
    ) -> None:
        """Hand what an evaluation found, [N, K], to the trackers."""
        for tracker in self._trackers:
            tracker.curves(step, scores, targets, labels)

    def _tell_waiting(self) -> None:
        """Say so if reading the images, not training on them, took much of the epoch."""
        before, self._epoch = self._epoch, (self._waited, self._watch.seconds)
        waited, seconds = (now - then for now, then in zip(self._epoch, before, strict=True))
        share = waited / seconds if seconds else 0.0
        if share >= SLOW_DATA:
            log.warning(
                "The device waited for images %.0f %% of the time. More data.threads help while"
                " there are idle cores; `mlcls pack --short_side` makes large images small once.",
                100 * share,
            )

    def train(self, step: int, numbers: dict[str, float]) -> None:
        """Write down the numbers of a step."""
        self._epoch_losses.append(numbers["loss"])
        if self._plan.log_after(step):
            entry = self._log(step, numbers)
            self._doing = ""
            self._bar.set_postfix_str(f"loss {entry['loss']:.3f}{_speed(entry['images_per_s'])}")

    def nonfinite(self, step: int, numbers: dict[str, float], names: list[str]) -> None:
        """Write down the numbers of a step that are not finite, and the names of its images."""
        self.nonfinite_steps.append(step)
        if not self._quiet:
            entry = {"step": step, **{k: str(v) for k, v in numbers.items()}, "examples": names}
            with (self._workdir / NONFINITE_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _log(self, step: int, values: dict[str, float]) -> dict[str, Any]:
        before, self._last = self._last, (step, *self._marks.pop(step))
        steps, elapsed, waited = (now - then for now, then in zip(self._last, before, strict=True))
        entry = {
            "step": step,
            "epoch": round(step / self._plan.steps_per_epoch, 4),
            **values,
            "images_per_s": round(steps * self._batch_size / elapsed, 1) if steps > 0 else None,
            "data_wait_ms": round(1000 * waited / max(1, steps), 2),
        }
        self._write(entry)
        self._scalars(step, {f"train/{k}": v for k, v in entry.items() if k != "step"})
        log.debug(
            "[Train][Epoch %d/%d][Step %d/%d] lr: %.3e, loss: %.5f%s",
            self._plan.epoch(step), self._plan.epochs, step, self._plan.total_steps,
            values["learning_rate"], values["loss"], _speed(entry["images_per_s"]),
        )  # fmt: skip
        return entry

    def _write(self, entry: dict[str, Any]) -> None:
        if self._metrics:
            self._metrics.write(json.dumps(entry) + "\n")
            self._metrics.flush()
            if self._listen:
                self._listen(entry)

    def _scalars(self, step: int, values: dict[str, float | None]) -> None:
        known = {name: value for name, value in values.items() if value is not None}
        for tracker in self._trackers:
            tracker.scalars(step, known)


def paddleclas_lines(
    task: str,
    epoch: int,
    results: dict[str, dict[str, float]],
    losses: dict[str, float],
    best: Best | None,
) -> Iterator[str]:
    """Yield the lines about an evaluation that programs know from PaddleClas' logs.

    They are about the better weights. The arguments are those of `Recorder.evaluation`.
    """
    main = MAIN_METRIC[task]
    weights = max(results, key=lambda name: (results[name][main] >= 0, results[name][main]))
    found, loss = results[weights], losses[weights]
    if task == "single":
        numbers = {"CELoss": loss, "loss": loss, "top1": found["Top1"], "top5": found["Top5"]}
    else:
        numbers = {"loss": loss, main: found[main]}
    told = ", ".join(f"{name}: {value:.5f}" for name, value in numbers.items())
    yield f"[Eval][Epoch {epoch}][Avg]{told}"
    if best:
        yield f"[Eval][Epoch {epoch}][best metric: {best.score}]"


def _speed(images_per_s: float | None) -> str:
    """Return nothing where it was not measured: the first step after a start is compiled."""
    return f", {images_per_s:.1f} images/s" if images_per_s else ""


def _when_ready(numbers: dict[str, jax.Array]) -> float:
    jax.block_until_ready(numbers)
    return time.perf_counter()


class Stopwatch:
    """Sum up the time between start and stop."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._since: float | None = None

    @property
    def running(self) -> bool:
        return self._since is not None

    @property
    def seconds(self) -> float:
        return self._sum + (0.0 if self._since is None else time.perf_counter() - self._since)

    def start(self) -> None:
        if not self.running:
            self._since = time.perf_counter()

    def stop(self) -> None:
        self._sum, self._since = self.seconds, None


def _cut_after(path: Path, step: int, is_evaluation_due: bool) -> None:
    """Drop the lines of steps and evaluations that will be done again."""
    if not path.exists():
        return

    def stays(line: str) -> bool:
        try:
            entry = json.loads(line)
            is_again = is_evaluation_due and entry["step"] == step and "loss" not in entry
            return line.endswith("\n") and entry["step"] <= step and not is_again
        except (ValueError, RecursionError, TypeError, KeyError):
            return False  # half of it was written as the power went

    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if stays(line)]
    files.write_text(path, "".join(kept))
