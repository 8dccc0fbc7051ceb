"""The records of a run tell of the time that its device waits for images."""

import itertools
import json
import logging
import threading
import time

import jax
import jax.numpy as jnp

from mlcls_jax.config import Config, Log, Train
from mlcls_jax.reports.curves import read_history
from mlcls_jax.training import records
from mlcls_jax.training.cadence import Plan
from mlcls_jax.training.in_flight import InFlight
from mlcls_jax.training.progress import Best
from mlcls_jax.training.records import Recorder

STEPS = 12


@jax.jit
def busy_step(x: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, 30, lambda _, x: jnp.tanh(x @ x), x).mean()


def run(tmp_path, batches, step) -> list[dict]:
    """The log entries of an epoch."""
    config = Config(train=Train(epochs=1, batch_size=2, log_steps=3), log=Log(tensorboard=False))
    plan = Plan.of(config.train, epoch_size=2 * STEPS)
    in_flight = InFlight()
    with Recorder(tmp_path, config, plan, start_step=0) as record:
        for number, batch in enumerate(record.timed(batches), start=1):
            numbers = {"loss": step(batch), "learning_rate": jnp.float32(1)}
            in_flight.sent(number, numbers)
            record.sent(numbers)
            for done, values in in_flight.read(before=number - plan.log_steps):
                record.train(done, values)
        for done, values in in_flight.read():
            record.train(done, values)
        record.pause()
        metrics = dict.fromkeys(("MultiLabelMAP", "OF1", "CF1", "HammingDistance"), 0.5)
        record.evaluation(
            STEPS, {"raw": metrics}, Best(0.5, "raw", 1, STEPS, metrics), {"raw": 0.25}
        )
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if "data_wait_ms" in entry]


def slowly():
    for _ in range(STEPS):
        time.sleep(0.05)
        yield jnp.ones((2, 2))


def test_a_device_that_waits_for_images_is_told_of_with_the_way_out(tmp_path, caplog):
    entries = run(tmp_path, slowly(), busy_step)
    assert [entry["step"] for entry in entries] == [3, 6, 9, 12]
    assert max(entry["data_wait_ms"] for entry in entries) > 10
    (warning,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert warning.startswith("The device waited for images ") and "data.threads" in warning


def test_images_that_come_in_time_are_no_news(tmp_path, caplog, monkeypatch):
    all_asked_for = threading.Event()

    def end_of_step(numbers):  # later than the next images, however slow this machine is
        assert all_asked_for.wait(60)
        return time.perf_counter()

    def in_time():
        yield from [jnp.ones((400, 400))] * STEPS
        all_asked_for.set()

    monkeypatch.setattr(records, "_when_ready", end_of_step)
    entries = run(tmp_path, in_time(), busy_step)
    assert [entry["data_wait_ms"] for entry in entries] == [0.0] * 4
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_a_line_tells_the_speed_of_its_own_steps_though_it_is_written_later(tmp_path, monkeypatch):
    """Seen: 263,237 images/s in the last line of an epoch, whose lines are written at once."""
    steps_sent = itertools.count()  # each takes a second, and is sent off as the one before is done
    seconds = 0

    def send(batch):
        nonlocal seconds
        seconds = max(1, next(steps_sent))  # the first is waited for
        return jnp.float32(batch)

    monkeypatch.setattr(records.time, "perf_counter", lambda: float(seconds))
    entries = run(tmp_path, range(STEPS), send)
    assert [entry["images_per_s"] for entry in entries] == [2.0] * 4


def test_programs_find_the_lines_of_paddleclas():
    raw = {"Top1": 0.5, "Top5": 0.75, "BalancedAccuracy": 0.5}
    ema = raw | {"Top1": 0.625}
    best = Best(0.625, "ema", 3, STEPS, ema)
    losses = {"raw": 0.5, "ema": 0.25}
    assert [*records.paddleclas_lines("single", 3, {"raw": raw, "ema": ema}, losses, best)] == [
        "[Eval][Epoch 3][Avg]CELoss: 0.25000, loss: 0.25000, top1: 0.62500, top5: 0.75000",
        "[Eval][Epoch 3][best metric: 0.625]",
    ]
    metrics = {"raw": {"MultiLabelMAP": float("nan")}, "ema": {"MultiLabelMAP": 0.5}}
    [line] = records.paddleclas_lines("multilabel", 1, metrics, losses, None)
    assert line == "[Eval][Epoch 1][Avg]loss: 0.25000, MultiLabelMAP: 0.50000"


def test_lines_that_a_power_cut_left_stop_neither_a_run_nor_its_pages(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [json.dumps({"epoch": 1, "step": step, "loss": 0.5}).encode() for step in (1, 2, 3)]
    path.write_bytes(
        b"\n".join([rows[0], b"\0" * 40, b"\xff[", b"7", rows[1], rows[2], rows[0][:9]])
    )
    assert [line["step"] for line in read_history(path, "run").lines] == [1, 2, 3]
    records._cut_after(path, 2, is_evaluation_due=False)
    assert path.read_bytes() == rows[0] + b"\n" + rows[1] + b"\n"
