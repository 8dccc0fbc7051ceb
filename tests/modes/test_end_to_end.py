"""Runs as a user starts them: real processes, a shipped demo made small."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.helpers import toy_backbone
from tests.helpers.commands import forked

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config.data.epoch_size=64",
    "--config.data.val_size=40",
    "--config.train.batch_size=8",
    "--config.train.epochs=3",
    "--config.evaluate.batch_size=16",
    "--config.model.name=Toy_ML",
    "--config.model.embed_dim=16",
    "--config.model.hidden_dim=16",
    "--config.model.image_size=32",
    "--config.model.head_dropout=0.2",  # randomness that a resumed run must find again
    "--config.log.pictures=6",
)


def command(workdir, *options, config="configs/clip_vit.py"):
    return [
        sys.executable,
        "-c",
        toy_backbone.COMMAND,
        f"--config={config}",
        f"--workdir={workdir}",
        *options,
    ]


def environment(**more):
    return os.environ | {"JAX_PLATFORMS": "cpu"} | more


def run(workdir, *options, code=0, config="configs/clip_vit.py", program="mlcls", **env):
    """Run to the end; return standard output and error. The exit code must be `code`."""
    done = forked(program, *command(workdir, *options, config=config)[3:], toy=True, **env)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout, done.stderr


def result(workdir, mode):
    return json.loads((workdir / f"{mode}_result.json").read_text())


def final_state(workdir):
    """All bytes of the newest checkpoint, read back through Orbax."""
    from orbax.checkpoint import v1 as ocp

    newest = max((workdir / "checkpoints").iterdir(), key=lambda p: int(p.name))
    import jax

    leaves = jax.tree_util.tree_flatten_with_path(ocp.load(newest))[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was never interrupted, and what it printed."""
    workdir = tmp_path_factory.mktemp("runs") / "straight"
    return workdir, run(workdir, *SMALL, program=ROOT / "mlcls_jax/main.py")


def test_training_leaves_all_that_it_promises(finished):
    workdir, (out, err) = finished
    outcome = result(workdir, "train")
    assert outcome["done_flag"] is True
    assert 0 < outcome["MultiLabelMAP"] <= 1
    assert outcome["best_epoch"] in (1, 2, 3)
    assert outcome["best_weights"] in ("raw", "ema")
    assert outcome["images_per_s"] > 0 and outcome["seconds"] > 0
    assert all(Path(path).exists() for path in outcome["paths"].values())
    assert {p.name for p in (workdir / "best_model").iterdir()} == {
        "inference.json", "weights.safetensors",
    }  # fmt: skip
    described = json.loads((workdir / "best_model" / "inference.json").read_text())
    assert described["labels"] == list("0123456789")
    assert described["metrics"]["MultiLabelMAP"] == outcome["MultiLabelMAP"]
    assert "[Eval][Epoch 3][Avg] ema weights: MultiLabelMAP" in (workdir / "train.log").read_text()
    assert list((workdir / "tensorboard").glob("events*"))
    entries = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in entries if "loss" in e] == [8, 10, 16, 20, 24]
    assert [e["step"] for e in entries if "ema/MultiLabelMAP" in e] == [8, 16, 24]
    assert Image.open(workdir / "predictions.png").width > 300
    assert f"MultiLabelMAP {outcome['MultiLabelMAP']:.4f}" in out
    assert "--config.mode=evaluate" in out
    assert "\r" not in err  # no progress bar where there is no terminal


def test_a_killed_run_ends_as_an_uninterrupted_one(finished, tmp_path):
    straight, _ = finished
    workdir = tmp_path / "killed"
    process = subprocess.Popen(
        command(workdir, *SMALL, "--config.train.save_steps=5"),
        cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        # After the checkpoint of step 10, inside the second epoch.
        if (workdir / "checkpoints" / "10").exists():
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (workdir / "train_result.json").exists()

    # Other threads, buffers and log intervals may not matter.
    _, err = run(workdir, *SMALL, "--config.data.threads=1", "--config.train.log_steps=3")
    assert "Resumed after step" in err
    ours, theirs = result(workdir, "train"), result(straight, "train")
    for key in ("MultiLabelMAP", "best_epoch", "best_weights", "steps"):
        assert ours[key] == theirs[key]
    ours, theirs = final_state(workdir), final_state(straight)
    assert ours.keys() == theirs.keys() and len(ours) > 100
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    best = (d / "best_model" / "weights.safetensors" for d in (workdir, straight))
    ours, theirs = map(load_file, best)
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    steps = [json.loads(s)["step"] for s in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_a_finished_run_is_not_run_again(finished):
    workdir, _ = finished
    before = (workdir / "train_result.json").read_bytes()
    _, err = run(workdir, *SMALL)
    assert "This run is complete" in err
    assert (workdir / "train_result.json").read_bytes() == before


def test_a_workdir_of_another_configuration_is_left_alone(finished):
    workdir, _ = finished
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    _, err = run(workdir, *SMALL, "--config.optimizer.learning_rate=0.5", code=1)
    assert "optimizer.learning_rate: was 0.0003, now 0.5" in err
    after = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    assert {p: b for p, b in after.items() if p.suffix != ".log"} == {
        p: b for p, b in before.items() if p.suffix != ".log"
    }


def test_evaluation_gives_exactly_the_best_map_of_training(finished):
    workdir, _ = finished
    out, _ = run(workdir, *SMALL, "--config.mode=evaluate")
    outcome = result(workdir, "evaluate")
    assert outcome["done_flag"] is True
    assert outcome["MultiLabelMAP"] == result(workdir, "train")["MultiLabelMAP"]
    assert outcome["images"] == 40
    assert set(outcome["average_precision"]) == set("0123456789")
    assert "MultiLabelMAP" in out


def test_prediction_writes_a_json_and_a_picture_for_each_image(finished, tmp_path):
    workdir, _ = finished
    samples = workdir / "samples"
    output = tmp_path / "out"
    options = (f"--config.predict.input={samples}", f"--config.predict.output={output}")
    run(workdir, *SMALL, "--config.mode=predict", "--config.predict.threshold=0.01", *options)
    names = sorted(path.stem for path in samples.iterdir())
    assert len(names) == 6
    expected = sorted([f"{n}_res.json" for n in names] + [f"{n}_res.png" for n in names])
    assert sorted(path.name for path in output.iterdir()) == expected
    one = json.loads((output / expected[0]).read_text())["res"]
    assert one["scores"] == sorted(one["scores"], reverse=True)
    assert one["label_names"] == [str(i) for i in one["class_ids"]]
    assert result(workdir, "predict")["images"] == 6

    broken = tmp_path / "in" / "broken.jpg"
    broken.parent.mkdir()
    broken.write_bytes(b"\xff\xd8\xff not really")
    Image.open(samples / f"{names[0]}.png").save(tmp_path / "in" / "whole.png")
    options = (f"--config.predict.input={broken.parent}", f"--config.predict.output={output}/2")
    _, err = run(workdir, *SMALL, "--config.mode=predict", *options, code=1)
    assert str(broken) in err
    assert result(workdir, "predict")["err_type"] == "DataError"
    out, _ = run(workdir, *SMALL, "--config.mode=predict", "--config.data.on_error=skip", *options)
    assert "1 unreadable images were left out" in out and str(broken) in out
    assert (output / "2" / "whole_res.json").exists()


def write_dataset(folder, *, images=24, size=40):
    """Own images: label 0 is red, 1 is green, 2 is blue."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "label.txt").write_text("0 red\n1 light green\n2 青\n", encoding="utf-8")
    lines = []
    for index in range(images):
        present = rng.integers(0, 2, 3)
        pixels = rng.integers(0, 60, (size, size + index, 3)) + 180 * present
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{index}.jpg")
        lines.append(f"images/{index}.jpg\t{','.join(map(str, present))}\n")
    (folder / "train.txt").write_text("".join(lines[:16]))
    (folder / "val.txt").write_text("".join(lines[16:]))
    return folder


OWN = (
    "--config.model.name=Toy_ML",
    "--config.model.weights=none",
    "--config.model.embed_dim=16",
    "--config.model.hidden_dim=16",
    "--config.model.image_size=32",
    "--config.train.epochs=1",
    "--config.train.batch_size=8",
    "--config.evaluate.batch_size=4",
)


@pytest.mark.slow
def test_own_images_train_on_two_devices_and_broken_ones_are_named_or_left_out(tmp_path):
    data = write_dataset(tmp_path / "data")
    broken = data / "images" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    options = (*OWN, f"--config.data.dir={data}")
    env = {
        "config": "configs/clip_vit.py:mlcls",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }

    workdir = tmp_path / "stops"
    _, err = run(workdir, *options, code=1, **env)
    assert f"{data / 'train.txt'}:4" in err and str(broken) in err
    assert result(workdir, "train")["err_type"] == "DataError"
    assert not (workdir / "best_model").exists()

    workdir = tmp_path / "skips"
    out, err = run(workdir, *options, "--config.data.on_error=skip", **env)
    outcome = result(workdir, "train")
    assert len(outcome["skipped_images"]) == 1 and str(broken) in outcome["skipped_images"][0]
    assert "1 unreadable images were left out" in out
    assert "on 2 x cpu" in err
    assert "samples" not in outcome["paths"]  # the user has the files

    _, err = run(tmp_path / "new", *options, "--config.train.batch_size=9", code=1, **env)
    assert "train.batch_size=9: must be a multiple of the 2 devices" in err
    (data / "label.txt").write_text("0 red\n1 light green\n2 青\n3 more\n", encoding="utf-8")
    _, err = run(workdir, *options, "--config.mode=evaluate", code=1, **env)
    assert f"{data / 'val.txt'}:1: 3 values, but there are 4 labels" in err
    (data / "label.txt").write_text("0 light green\n1 red\n2 青\n", encoding="utf-8")
    _, err = run(workdir, *options, "--config.mode=evaluate", code=1, **env)
    assert "label 0 is 'red', but in the data it is 'light green'" in err


@pytest.mark.slow
def test_a_diverging_run_stops_and_says_where(tmp_path):
    _, err = run(tmp_path / "w", *SMALL, "--config.optimizer.learning_rate=1e30", code=1)
    assert "the loss is" in err and "Lower optimizer.learning_rate" in err
    assert not (tmp_path / "w" / "best_model").exists()
