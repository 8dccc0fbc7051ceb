"""Training as a function: what it does when numbers go bad, time is over, or steps are traced."""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mlcls_jax import config as schema
from mlcls_jax.errors import ConfigError, NonFiniteError, PreemptedError, WorkdirError
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.modes.train import train
from tests.helpers.photos import write_lines, write_photos
from tests.helpers.small_run import MODEL, assert_same_weights, run, small

REPOSITORY = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("toy", "compiled_once")


SPEED = {"images_per_s", "data_wait_ms"}
DIVERGING = {"name": "momentum", "learning_rate": 1e6}


FRAMES = """
import sys, traceback
from pathlib import Path

from mlcls_jax import losses, main
from mlcls_jax.models import registry
from tests.helpers import toy_backbone

def seen(*arguments, **options):
    for frame in traceback.extract_stack()[:-1]:
        if "mlcls_jax" in (folders := Path(frame.filename).parts):
            print(*folders[folders.index("mlcls_jax") + 1:], frame.name, sep="/", file=sys.stderr)
    raise SystemExit

losses.LOSSES["multilabel"] = seen
registry.FAMILIES["Toy"] = toy_backbone.FAMILY
main.run(sys.argv)
"""


@pytest.mark.slow
def test_from_main_to_the_loss_there_are_seven_frames(tmp_path):
    (tmp_path / "config.yaml").write_text(schema.to_yaml(small()))
    flags = [f"--config={tmp_path}/config.yaml", f"--workdir={tmp_path}/run"]
    done = subprocess.run(
        [sys.executable, "-c", FRAMES, *flags], cwd=REPOSITORY, capture_output=True, text=True
    )
    frames = [line for line in done.stderr.splitlines() if line.count("/") and ".py/" in line]
    assert frames == [
        "main.py/run",
        "commands/mode.py/run",
        "modes/train.py/train",
        "modes/train.py/fit",
        "training/step.py/__call__",
        "training/step.py/gradient",
    ], done.stderr  # and the loss


def nonfinite(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "nonfinite.jsonl").read_text().splitlines()]


def entries(workdir: Path) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if "loss" in entry]


def test_bad_numbers_stop_the_run_and_name_its_images(tmp_path):
    with pytest.raises(NonFiniteError, match=r"^step \d: the loss is .*learning rate 1e\+06"):
        run(small(optimizer=DIVERGING), tmp_path / "run")
    (entry,) = nonfinite(tmp_path / "run")
    assert len(set(entry["examples"])) == 8
    assert all(name.startswith("board_") for name in entry["examples"])
    assert all(math.isfinite(told["loss"]) for told in entries(tmp_path / "run"))


def test_bad_steps_are_left_out_and_counted_up_to_a_limit(tmp_path):
    config = small(optimizer=DIVERGING, train={"nonfinite": "skip", "max_nonfinite": 3})
    config = replace(config, data=replace(config.data, epoch_size=64))  # none is evaluated before
    with pytest.raises(NonFiniteError, match="; there were 3 such steps before it\n"):
        run(config, tmp_path / "run")
    steps = [entry["step"] for entry in nonfinite(tmp_path / "run")]
    assert len(steps) == 4 and steps == list(range(steps[0], steps[0] + 4))


@pytest.mark.slow
def test_going_back_halves_the_rate_until_training_goes_on(tmp_path, caplog):
    # 1e6 is too much by far; after some halvings of 4e3 it is not.
    rates = DIVERGING | {"learning_rate": 4e3}
    config = small(optimizer=rates, train={"nonfinite": "rollback", "max_nonfinite": 60})
    result = run(config, tmp_path / "run")
    bad = nonfinite(tmp_path / "run")
    assert bad and result["steps"] == 8
    told = [entry["learning_rate"] for entry in entries(tmp_path / "run")]
    halvings = sum("Going back" in record.message for record in caplog.records)
    assert halvings >= len(bad)  # an evaluation may have found more
    assert told[-1] == pytest.approx(4e3 * 0.5**halvings)
    weights = load_file(tmp_path / "run/best_model/weights.safetensors")
    assert all(np.isfinite(values).all() for values in weights.values())


@pytest.mark.slow
def test_going_back_ends_after_its_limit(tmp_path):
    config = small(optimizer=DIVERGING, train={"nonfinite": "rollback", "max_nonfinite": 2})
    with pytest.raises(NonFiniteError):
        run(config, tmp_path / "run")
    assert len(nonfinite(tmp_path / "run")) == 3


@pytest.mark.slow
def test_a_run_whose_time_is_over_saves_the_step_and_goes_on_the_same(tmp_path):
    whole = run(small(epochs=1), tmp_path / "whole")
    limited = small(epochs=1, train={"time_limit": 0.0})
    for step in range(1, 4):  # it is over after every step
        with pytest.raises(PreemptedError, match=f"^Stopped after step {step} of 4; a checkpoint"):
            run(limited, tmp_path / "run")
        assert (tmp_path / "run/checkpoints" / str(step)).is_dir()
    result = run(limited, tmp_path / "run")
    assert result["MultiLabelMAP"] == whole["MultiLabelMAP"]
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


# In a process of its own: a signal that came too early would end that of the tests.
SIGNALLED = """
import os, signal, sys, time
from pathlib import Path
import mlcls_jax.training.run as module
from mlcls_jax.errors import PreemptedError
from mlcls_jax.models import registry
from tests.helpers import toy_backbone
from tests.helpers.small_run import run, small

registry.FAMILIES["Toy"] = toy_backbone.FAMILY

read = module.eval_batches

def interrupted(*arguments, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)
    yield from read(*arguments, **options)

module.eval_batches = interrupted
try:
    run(small(epochs=2), Path(sys.argv[1]))
except PreemptedError as error:
    print(error.message)
"""


@pytest.mark.slow
def test_a_signal_during_an_evaluation_saves_the_step_and_the_evaluation_comes_later(tmp_path):
    config = small(epochs=2)
    whole = run(config, tmp_path / "whole")
    told = subprocess.run(
        [sys.executable, "-c", SIGNALLED, tmp_path / "run"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert told.stdout.startswith("Stopped after step 4 of "), told
    assert (tmp_path / "run/checkpoints/4").is_dir()
    assert not (tmp_path / "run/best_model").exists()
    result = run(config, tmp_path / "run")
    for key in ("MultiLabelMAP", "best_epoch", "best_weights"):
        assert result[key] == whole[key]
    ours, theirs = (
        [
            {name: value for name, value in json.loads(line).items() if name not in SPEED}
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("run", "whole")
    )
    assert ours == theirs


def photos(folder: Path, **train_options) -> schema.Config:
    """Two steps an epoch, of which each run does one."""
    config = small(epochs=2, train={"time_limit": 0.0} | train_options)
    return replace(config, data=schema.Data(source="mlcls", dir=str(folder)))


def step_of_next_stop(config: schema.Config, workdir: Path) -> int:
    with pytest.raises(PreemptedError, match=r"^Stopped after step \d") as caught:
        run(config, workdir)
    return int(caught.value.message.split()[3])


@pytest.mark.slow
def test_a_run_goes_on_with_data_that_were_moved_but_not_with_others(tmp_path):
    workdir, data = tmp_path / "run", write_photos(tmp_path / "data", train=12)
    assert step_of_next_stop(photos(data), workdir) == 1
    data = data.rename(tmp_path / "moved")
    assert step_of_next_stop(photos(f"{data}/"), workdir) == 2

    label_file, content = data / "label.txt", (data / "label.txt").read_bytes()
    label_file.write_text("0 dog\n1 cat\n2 bird\n")
    for _ in range(2):
        with pytest.raises(WorkdirError, match="label 0: was cat, now dog") as caught:
            run(photos(f"{data}/"), workdir)
        assert caught.value.hint.endswith("To go on with this run, put the data back.")
        (workdir / "data.json").unlink(missing_ok=True)  # then the checkpoint's record tells
    label_file.write_bytes(content)
    assert step_of_next_stop(photos(f"{data}/"), workdir) == 3

    rows = (data / "train.txt").read_text().splitlines()
    write_lines(data / "train.txt", rows[::-1])
    with pytest.raises(WorkdirError, match="train: other images listed than before"):
        run(photos(data), workdir)
    write_lines(data / "train.txt", rows)
    assert run(photos(data), workdir)["steps"] == 4


@pytest.mark.slow
def test_without_positives_to_validate_no_weights_are_the_best_and_the_last_are_kept(
    tmp_path, caplog
):
    workdir, data = tmp_path / "run", write_photos(tmp_path / "data", train=8)
    write_lines(data / "val.txt", [f"images/val_{i}.png\t0,0,0" for i in range(2)])
    config = photos(data, time_limit=None)  # epochs of one step
    result = run(config, workdir)
    assert [result[key] for key in ("MultiLabelMAP", "best_epoch", "best_weights")] == [None] * 3
    told = [text for text in result["warnings"] if "so that no metric can tell" in text]
    assert told and told[0] in [record.getMessage() for record in caplog.records]
    assert not (workdir / "best_model").exists() and "best_model" not in result["paths"]
    facts = read_bundle(Path(result["paths"]["last_model"])).facts
    assert (facts["weights"], facts["step"]) == ("ema", 2)
    assert "(best)" not in caplog.text and "0.0 images/s" not in caplog.text
    lines = (workdir / "metrics.jsonl").read_text()
    assert '"raw/MultiLabelMAP": null' in lines and "NaN" not in lines
    assert result["images_per_s"] > 0


def test_steps_are_traced_into_the_workdir(tmp_path):
    run(small(epochs=1, profile=schema.Profile(steps="2:3")), tmp_path / "run")
    traces = list((tmp_path / "run/profile").rglob("*.xplane.pb"))
    assert len(traces) == 1 and traces[0].stat().st_size > 1000
    assert list((tmp_path / "run/profile").rglob("perfetto_trace.json.gz"))


@pytest.mark.slow
def test_a_student_learns_from_the_bundle_of_a_teacher(tmp_path):
    run(small(), tmp_path / "teacher")
    teacher = str(tmp_path / "teacher/best_model")
    alone = small(epochs=1)
    distilled = replace(alone, distill=schema.Distill(teacher=teacher, weight=0.7))
    run(alone, tmp_path / "alone"), run(distilled, tmp_path / "distilled")
    first = [entries(tmp_path / name)[0] for name in ("alone", "distilled")]
    assert first[0]["loss"] != first[1]["loss"]


@pytest.mark.slow
def test_batches_that_do_not_divide_among_devices_and_parts_are_refused(tmp_path):
    config = small(epochs=1, train={"accumulate": 8, "batch_size": 8})
    assert run(config, tmp_path / "eight")["steps"] == 4
    with pytest.raises(ConfigError, match=r"train.batch_size=8: .* 1 devices .* and 3 parts"):
        run(small(train={"accumulate": 3, "batch_size": 8}), tmp_path / "three")


@pytest.mark.slow
def test_a_run_without_progress_ends_early_and_goes_on_when_patience_is_withdrawn(tmp_path, caplog):
    caplog.set_level("INFO")
    still = {"learning_rate": 0.0, "weight_decay": 0.0}
    frozen = {"ema_decay": 0.0, "patience": 2}
    model = replace(MODEL, num_classes=None)
    config = small(epochs=6, optimizer=still, train=frozen, model=model)
    result = run(config, tmp_path / "run")
    # Its statistics still follow the data: the best of the first epochs decides when it ends.
    assert result["epochs"] == result["best_epoch"] + 2 < 6
    assert result["steps"] == 4 * result["epochs"]
    assert "training ends after epoch" in caplog.text
    assert run(config, tmp_path / "run")["steps"] == result["steps"]  # from its checkpoint
    told = tmp_path / "run/train_result.json"
    told.write_text(json.dumps(result | {"done_flag": True}))
    assert run(config, tmp_path / "run") == result  # complete
    patient = replace(config, train=replace(config.train, patience=None))
    assert run(patient, tmp_path / "run")["steps"] == 24


def scaled(config: schema.Config, *scales: float) -> schema.Config:
    return replace(config, data=replace(config.data, train_scales=scales))


@pytest.mark.slow
def test_training_at_several_sizes_is_told_and_resumed_and_may_be_finished_at_a_larger_one(
    tmp_path, caplog
):
    config = scaled(small(epochs=1), 1.0, 2.0)
    caplog.set_level("INFO")
    run(config, tmp_path / "whole")
    assert re.search(r"Training images: 32 x 32, 64 x 64, one size per step", caplog.text)
    for _ in range(3):
        with pytest.raises(PreemptedError):
            run(scaled(small(epochs=1, train={"time_limit": 0.0}), 1.0, 2.0), tmp_path / "run")
    run(config, tmp_path / "run")
    assert_same_weights(tmp_path / "run", tmp_path / "whole")
    caplog.clear()
    weights = str(tmp_path / "whole" / "best_model")
    larger = replace(MODEL, image_size=(64, 64), weights=weights)
    run(small(epochs=1, model=larger), tmp_path / "larger")
    assert read_bundle(tmp_path / "larger" / "best_model").image_size == (64, 64)
    assert re.search(
        r"Weights from .*best_model: \d+ tensors loaded \(mlcls_jax names\)", caplog.text
    )


def test_two_factors_that_come_to_one_size_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="come to 32 x 32, 32 x 32: one of them twice"):
        train(scaled(small(), 1.0, 1.1), tmp_path)
