"""`mlcls tune`: what is tried, and a study that goes on after SIGKILL."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from mlcls_jax import config as schema
from mlcls_jax.commands import tune
from mlcls_jax.config import Config, Data, Loss, Model, Optimizer, Train
from mlcls_jax.errors import ConfigError, InputError, WorkdirError
from mlcls_jax.models import registry
from mlcls_jax.ray_cluster import Cluster
from mlcls_jax.readable import table
from mlcls_jax.reports.trials_chart import Panel, Point, draw_trials
from mlcls_jax.tuning import study
from mlcls_jax.tuning.space import (
    HEAD_RATE,
    Dimension,
    config_of,
    from_json,
    make_space,
    start_of,
)
from mlcls_jax.tuning.study import Plan, begin, best_of, open_study, search
from mlcls_jax.tuning.trials_on_ray import OnRay
from tests.helpers import toy_backbone
from tests.helpers.commands import REPOSITORY, forked
from tests.helpers.small_run import small
from tests.helpers.tiers import need

PATHS = os.pathsep.join(sys.path)  # for processes of Ray
BASE = Config(
    model=Model(image_size=(224, 224)),
    data=Data(dir="photos", augment=("flip",)),
    optimizer=Optimizer(learning_rate=1e-3, lr_multipliers=("^head/=0.1",)),
)


def space_of(*names: str, base: Config = BASE, fixed: tuple[str, ...] = ()) -> dict[str, Dimension]:
    return {dimension.name: dimension for dimension in make_space(names, base, fixed)}


def test_the_usual_space_is_made_around_the_recipe():
    space = space_of()
    rate = space["optimizer.learning_rate"]
    assert (rate.low, rate.high, rate.is_log) == (1e-4, 1e-2, True)
    assert space["model.image_size"].choices == ("160", "224", "288")
    assert space["data.augment"].choices[:2] == ("flip", "()")
    assert {HEAD_RATE, "loss.gamma_neg", "loss.gamma_pos"} < space.keys()
    kept = json.loads(json.dumps([*map(asdict, space.values())]))
    assert from_json(kept) == [*space.values()]


def test_what_is_set_or_of_no_use_is_not_searched():
    space = space_of(fixed=("optimizer.learning_rate", "model.image_size"))
    assert not {"optimizer.learning_rate", "model.image_size"} & space.keys()
    frozen = Config(train=Train(frozen_backbone=True), loss=Loss(name="multilabel"), data=BASE.data)
    assert not {HEAD_RATE, "loss.gamma_neg"} & space_of(base=frozen).keys()
    with pytest.raises(ConfigError, match="head_rate: is set, or of no use"):
        space_of("head_rate", base=frozen)


def test_any_option_can_be_searched():
    space = space_of(
        "optimizer.weight_decay=1e-4:1e-1", "train.batch_size=16/32", "train.epochs=5:9", "rate"
    )
    assert space["optimizer.weight_decay"].is_log and not space["train.epochs"].is_log
    assert space["train.epochs"].is_whole and len(space) == 4
    assert config_of(BASE, {"train.batch_size": "16"}).train.batch_size == 16


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gamas", "did you mean gammas"),
        ("train.epoch=1:2", "did you mean train.epochs"),
        ("train.epochs=9:5", "is no range"),
        ("loss.name=asymmetric:multilabel", "is no range"),
        ("data.augment=flip/flop", "flop"),
        ("model.head_dropout=0.1:2.0", "head_dropout=2.0"),
        ("data.val_list=a.txt/b.txt", "is the same for all runs"),
        ("mode=train/evaluate", "is the same for all runs"),
        ("evaluate.map_type=integral/11point", "is the same for all runs"),
    ],
)
def test_a_wrong_space_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        space_of(text)


def test_an_option_is_searched_once_and_need_not_have_a_value_before():
    with pytest.raises(ConfigError, match="weight_decay=0:1: is there already"):
        space_of("optimizer.weight_decay=1e-4:1e-1", "optimizer.weight_decay=0:1")
    space = [*space_of("optimizer.clip_norm=0.1:0.9").values()]
    assert start_of(space, BASE) == {}


def test_values_become_a_configuration_and_the_recipe_is_among_them():
    space = [*space_of().values()]
    assert config_of(BASE, start_of(space, BASE) | {HEAD_RATE: 1.0}) == schema.changed(
        BASE, {"optimizer.lr_multipliers": ("^head/=1", "^head/=0.1")}
    )
    config = config_of(
        BASE, {HEAD_RATE: 3.0, "data.augment": "random_resized_crop,flip", "model.image_size": "96"}
    )
    assert config.optimizer.lr_multipliers == ("^head/=3", "^head/=0.1")
    assert config.data.augment == ("random_resized_crop", "flip")
    assert config.model.image_size == (96, 96)


def test_a_refused_search_leaves_no_folder_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "needs_optuna", lambda: None)
    with pytest.raises(ConfigError, match="did you mean gammas"):
        tune.run(["digits", "--space", "gamas"])
    assert not [*tmp_path.glob("runs/*")]


def test_a_folder_without_a_study_is_none(tmp_path):
    with pytest.raises(WorkdirError, match="is of no study"):
        Plan.read(tmp_path)


@pytest.mark.parametrize("text", ["{}", '{"space": 5}', '{"space": [{}], "trials": 2}'])
def test_a_damaged_study_is_told_by_its_file(tmp_path, text):
    (tmp_path / study.STUDY).write_text(text)
    with pytest.raises(WorkdirError, match=r"study\.json: is of no study"):
        Plan.read(tmp_path)


def test_what_a_study_tries_cannot_change(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "needs_optuna", lambda: None)
    begin(tmp_path, BASE, Plan(make_space(["rate"], BASE, ()), trials=1, device="cpu"))
    with pytest.raises(ConfigError, match=r"in which lr, space, train\.epochs cannot change"):
        tune.run([str(tmp_path), "--space", "gammas", "--lr=0.5", "--config.train.epochs=3"])


@pytest.mark.slow
def test_a_study_outlives_a_broken_trial_but_not_other_data(tmp_path, toy):
    need("optuna")
    base = small(epochs=1)
    space = make_space(["train.batch_size=8/16", "train.accumulate=2/4"], base, ())
    begin(tmp_path, base, Plan(space, trials=1, device="cpu"))
    (tmp_path / study.DATABASE).write_bytes(b"no database" * 100)
    with pytest.raises(WorkdirError, match=r"study\.db: cannot be read"):
        search(tmp_path)
    (tmp_path / study.DATABASE).unlink()

    def broken(*_):
        raise ConfigError("does not go together")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "config_of", broken)
        assert [trial.state for trial in search(tmp_path)] == ["fail"]
    Plan(space, trials=2, device="cpu").write(tmp_path)
    assert [trial.state for trial in search(tmp_path)] == ["complete", "fail"]
    Plan(space, trials=3, device="cpu").write(tmp_path)
    (tmp_path / "trial-001").rename(tmp_path / "trial-000")
    begin(
        tmp_path,
        schema.changed(base, {"data.val_size": 8}),
        Plan(space, trials=3, device="cpu"),
    )
    with pytest.raises(WorkdirError, match="validation: were 16 images, now 8"):
        search(tmp_path)


def test_trials_are_drawn_by_each_value(tmp_path):
    points = [Point(x, y, kind) for x, y, kind in ((1e-3, 0.2, "pale"), (1e-1, 0.4, "best"))]
    panels = [
        Panel("rate", True, (), points),
        Panel("augment", False, ("flip", "()"), [Point("()", 0.3, "plain")]),
        Panel("none", False, (), []),
    ]
    draw_trials(tmp_path / "trials.png", "mAP", panels)
    assert Image.open(tmp_path / "trials.png").size == (760, 656)


def test_a_table_has_its_first_columns_to_the_left():
    assert table([("a", "bb", "c"), ("aa", "b", "cc")]) == ["a   bb   c", "aa   b  cc"]
    assert table([("a", "bb"), ("aa", "b")], to_left=2) == ["a   bb", "aa  b"]


@pytest.mark.slow
def test_a_study_goes_on_after_sigkill_with_the_same_trial(tmp_path, toy):
    need("optuna")
    base = small(epochs=1, train={"save_steps": 1})
    folder = tmp_path / "study"
    folder.mkdir()
    begin(folder, base, Plan(make_space(["rate"], base, ()), trials=2, device="cpu"))
    killed = subprocess.Popen(
        [sys.executable, "-c", toy_backbone.COMMAND, "tune", "study"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "GLIBC_TUNABLES": ""},
        stderr=subprocess.DEVNULL,
    )
    while not (folder / "trial-001/checkpoints/1").exists():
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = (folder / "trial-001/config.yaml").read_text()
    done = forked("mlcls", "tune", "study", cwd=tmp_path, toy=True)
    assert done.returncode == 0, done.stderr
    assert "Resumed after step" in (folder / "trial-001/train.log").read_text()
    assert (folder / "trial-001/config.yaml").read_text() == before
    head, *rows = csv.reader((folder / "trials.csv").open())
    assert head[:2] == ["trial", "state"] and {row[1] for row in rows} == {"complete"}
    assert rows[0][2] >= rows[1][2] and rows[0][4] != rows[1][4]
    assert "train --config=study/best.yaml" in done.stdout
    best = (folder / "best.yaml").read_text()
    assert best == (folder / rows[0][0] / "config.yaml").read_text()


def offer_toy():
    registry.FAMILIES["Toy"] = toy_backbone.FAMILY


@pytest.mark.slow
def test_trials_run_beside_each_other_on_ray_and_an_unfinished_one_goes_on(tmp_path, monkeypatch):
    need("optuna")
    ray = need("ray")
    monkeypatch.chdir(tmp_path)
    base, folder = small(epochs=1, train={"save_steps": 1}), Path("study")
    folder.mkdir()
    begin(folder, base, Plan(make_space(["rate"], base, ()), trials=3, device=None))
    open_study(folder, base).ask()  # as a killed process leaves it
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"worker_process_setup_hook": offer_toy, "env_vars": {"PYTHONPATH": PATHS}},
    )
    try:
        places = OnRay(Cluster("local", 1), folder)
        trials = search(folder, places)
        with pytest.raises(InputError, match="no node of the Ray cluster has 3 CPUs"):
            Cluster("local", 3).shares()
    finally:
        ray.shutdown()
    assert places.count == 2
    assert sorted(trial.number for trial in trials) == [0, 1, 2]
    assert {(trial.state, trial.epochs) for trial in trials} == {("complete", 1)}
    assert (folder / "best.yaml").read_text() == (
        folder / trials[0].folder / "config.yaml"
    ).read_text()


@pytest.mark.slow
def test_a_trial_that_falls_behind_is_ended(tmp_path, monkeypatch, toy):
    optuna = need("optuna")
    # All are behind what cannot be reached.
    monkeypatch.setattr(
        optuna.pruners, "MedianPruner", lambda *_: optuna.pruners.ThresholdPruner(lower=2.0)
    )
    base = small(epochs=2)
    begin(tmp_path, base, Plan(make_space(["rate"], base, ()), trials=1, device="cpu"))
    [trial] = search(tmp_path)
    assert (trial.state, trial.epochs) == ("pruned", 1) and best_of([trial]) is None
    assert not (tmp_path / "best.yaml").exists() and (tmp_path / "trials.png").exists()
    fault = json.loads((tmp_path / "trial-000/train_result.json").read_text())
    assert not fault["done_flag"] and fault["err_type"] == "PrunedError"
