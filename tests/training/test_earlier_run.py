"""train.keep_epochs and train.resume_from: every epoch at hand, and a way on from each."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlcls_jax import config as schema
from mlcls_jax.errors import CheckpointError, ConfigError, WorkdirError
from mlcls_jax.inference.bundle import read_bundle
from tests.helpers.small_run import MODEL, run, small

TIMES = {"images_per_s", "data_wait_ms"}


pytestmark = pytest.mark.usefixtures("toy", "compiled_once")


def config_of(epochs: int = 3, **options) -> schema.Config:
    config = small(epochs=epochs, train=options, optimizer={"learning_rate": 1e-2})
    model = replace(config.model, initial="paddle")
    config = replace(config, seed=3, model=model)  # begun so, it is best at the end
    return replace(config, data=replace(config.data, epoch_size=16))  # two steps an epoch


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that kept all of its three epochs, and its result."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return workdir, run(config_of(keep_epochs=True, keep_checkpoints=1), workdir)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def entries(workdir: Path) -> list[dict]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def weights(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def state(workdir: Path, step: int) -> dict[str, np.ndarray]:
    from orbax.checkpoint import v1 as ocp

    from mlcls_jax.trees import by_path

    return {
        k: np.asarray(v) for k, v in by_path(ocp.load(str(workdir / f"checkpoints/{step}"))).items()
    }


def test_every_epoch_is_kept_as_checkpoint_and_as_bundle(whole):
    workdir, result = whole
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["2", "4", "6"]
    bundles = [read_bundle(workdir / f"epoch_{n}") for n in (1, 2, 3)]
    assert [(b.facts["epoch"], b.facts["step"]) for b in bundles] == [(1, 2), (2, 4), (3, 6)]
    best = workdir / f"epoch_{result['best_epoch']}"
    assert weights(best) == weights(workdir / "best_model")
    evaluations = [entry for entry in entries(workdir) if "loss" not in entry]
    for bundle, told in zip(bundles, evaluations, strict=True):
        score = bundle.facts["metrics"]["MultiLabelMAP"]
        assert score == max(told["raw/MultiLabelMAP"], told["ema/MultiLabelMAP"])


@pytest.mark.slow
def test_going_on_from_an_epoch_equals_the_uninterrupted_run_and_leaves_it_alone(whole, tmp_path):
    workdir, result = whole
    before = files_of(workdir)
    config = config_of(resume_from=str(workdir / "epoch_1"))
    again = run(config, tmp_path / "run")
    assert files_of(workdir) == before
    for key in ("MultiLabelMAP", "best_epoch", "best_weights", "steps"):
        assert again[key] == result[key]
    assert entries(tmp_path / "run") == entries(workdir)
    assert weights(tmp_path / "run/best_model") == weights(workdir / "best_model")
    ours, theirs = (state(folder, 6) for folder in (tmp_path / "run", workdir))
    assert ours.keys() == theirs.keys() and len(ours) > 50
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.slow
def test_the_same_command_goes_on_from_its_own_checkpoints(whole, tmp_path, caplog):
    caplog.set_level("INFO")
    workdir, result = whole
    config = config_of(resume_from=str(workdir / "epoch_1"), time_limit=0.0)
    for step in (3, 4, 5):
        with pytest.raises(Exception, match=f"Stopped after step {step} of 6"):
            run(config, tmp_path / "run")
    assert run(config, tmp_path / "run")["MultiLabelMAP"] == result["MultiLabelMAP"]
    assert caplog.text.count("Going on after epoch 1") == 1
    assert entries(tmp_path / "run") == entries(workdir)


@pytest.mark.slow
def test_another_rate_may_go_on_and_a_best_model_that_is_gone_does_not_compete(tmp_path):
    short = run(config_of(epochs=2), tmp_path / "short")  # keeps the two latest checkpoints
    assert short["best_epoch"] == 2
    config = config_of(resume_from=str(tmp_path / "short/epoch_1"))
    config = replace(config, optimizer=replace(config.optimizer, learning_rate=1e-3))
    result = run(config, tmp_path / "run")
    assert result["best_epoch"] > 1
    assert ["has no longer the best weights" in text for text in result["warnings"]] == [True]
    rates = [entry["learning_rate"] for entry in entries(tmp_path / "run") if "loss" in entry]
    assert rates == pytest.approx([1e-2] * 2 + [1e-3] * 4)


@pytest.mark.slow
def test_what_cannot_be_gone_on_from_is_told_with_the_epochs_there_are(whole, tmp_path):
    workdir, _ = whole
    for epoch, told in {
        7: "after step 14; epochs that there are, of 2 steps each: 1, 2, 3",
        0: "after step 0",
    }.items():
        config = config_of(epochs=9, resume_from=str(workdir / f"epoch_{epoch}"))
        with pytest.raises(WorkdirError, match=told):
            run(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="train.epochs=3 must be more than that"):
        run(config_of(resume_from=str(workdir / "epoch_3")), tmp_path / "run")
    with pytest.raises(WorkdirError, match="checkpoints: there is no such folder"):
        run(config_of(resume_from=str(tmp_path / "nothing/epoch_1")), tmp_path / "run")
    assert not (tmp_path / "nothing").exists()
    own = tmp_path / "run"
    with pytest.raises(WorkdirError, match="is of this workdir, where later epochs would be lost"):
        run(config_of(resume_from=str(own / "epoch_1")), own)
    config = config_of(resume_from=str(workdir / "epoch_1"))
    with pytest.raises(CheckpointError, match="2: is of another model: "):
        run(replace(config, model=replace(MODEL, name="PP-LCNet_x0_25")), tmp_path / "run")
    with pytest.raises(WorkdirError, match="an epoch had 2 steps there, and has 4 here"):
        run(replace(config, data=replace(config.data, epoch_size=28)), tmp_path / "run")
    with pytest.raises(WorkdirError, match="of 3 steps each: after step 2, after step 4, 2"):
        run(replace(config, data=replace(config.data, epoch_size=24)), tmp_path / "run")
    with pytest.raises(WorkdirError, match="validation: were 16 images, now 8"):
        run(replace(config, data=replace(config.data, val_size=8)), tmp_path / "run")
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["2", "4", "6"]


def test_a_number_alone_is_refused_with_the_form_that_is_meant():
    with pytest.raises(ConfigError, match=r"train.resume_from='5': must be .* runs/a/epoch_5"):
        values = schema.default()
        values.unlock().update({"data": {"source": "digits"}, "train": {"resume_from": "5"}})
        schema.parse(values)
