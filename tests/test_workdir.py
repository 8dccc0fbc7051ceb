"""The working directory: one run, one configuration."""

import re

import pytest
from ml_collections import ConfigDict

from mlcls_jax import config as schema
from mlcls_jax.config import Config
from mlcls_jax.errors import WorkdirError
from mlcls_jax.workdir import claim, open_workdir

# Another value of each option that does not touch the training, and of some that do.
FREE = {
    "mode": "evaluate", "predict.input": "x.jpg", "predict.threshold": 0.1,
    "export.formats": ("onnx",), "thresholds.calibrate": False, "evaluate.report": False,
    "log.tensorboard": False, "log.pictures": 3, "evaluate.model_dir": "x",
    "evaluate.batch_size": 3, "data.threads": 1, "data.prefetch": 1, "data.on_error": "skip",
    "train.resume": False, "train.save_epochs": 7, "train.save_steps": 7,
    "train.keep_checkpoints": 7, "train.keep_epochs": True, "train.log_steps": 7,
    "model.initial": "paddle",
}  # fmt: skip
FIXED = {
    "seed": 5, "model.name": "PP-LCNet_x0_5_ML", "model.image_size": (64, 64),
    "model.weights": "x.pdparams", "model.dtype": "bfloat16", "data.source": "digits",
    "data.dir": "other", "data.epoch_size": 3, "train.epochs": 3, "train.batch_size": 3,
    "train.ema_decay": 0.5, "train.eval_epochs": 2, "train.resume_from": "a/epoch_5",
    "optimizer.clip_norm": 1.0,
    "optimizer.lr_multipliers": ("a=1",), "loss.gamma_neg": 2.0, "evaluate.threshold": 0.3,
}  # fmt: skip


def config(**changes) -> Config:
    values = ConfigDict(schema.default())
    values.update_from_flattened_dict({"data.dir": "photos"} | changes)
    return schema.parse(values)


def save_something(workdir) -> None:
    (workdir / "checkpoints" / "5").mkdir(parents=True)


def claim_fault(workdir, **changes) -> str:
    with pytest.raises(WorkdirError) as caught:
        claim(workdir, config(**changes))
    return caught.value.message


def test_the_first_run_writes_its_configuration(tmp_path):
    claim(tmp_path, config(seed=3))
    assert (tmp_path / "config.yaml").read_text() == schema.to_yaml(config(seed=3))


def test_the_same_configuration_goes_on(tmp_path):
    everything = {k: v for k, v in (FIXED | FREE).items() if k != "train.resume"}
    for _ in range(2):
        claim(tmp_path, config(**everything))


@pytest.mark.parametrize("key", FREE)
def test_what_does_not_touch_the_training_may_change(tmp_path, key):
    claim(tmp_path, config())
    claim(tmp_path, config(**{key: FREE[key]}))
    assert (tmp_path / "config.yaml").read_text() == schema.to_yaml(config(**{key: FREE[key]}))


def test_a_run_begun_before_there_was_model_initial_goes_on_under_either_value(tmp_path):
    before = schema.to_yaml(config()).replace("  initial: default\n", "")
    (tmp_path / "config.yaml").write_text(before)
    save_something(tmp_path)
    for initial in ("default", "paddle"):
        claim(tmp_path, config(**{"model.initial": initial}))


@pytest.mark.parametrize("key", FIXED)
def test_what_touches_the_training_may_not_change(tmp_path, key):
    claim(tmp_path, config())
    save_something(tmp_path)
    (line,) = claim_fault(tmp_path, **{key: FIXED[key]}).splitlines()[1:]
    assert re.match(f"  {key}: was .+, now .+", line)
    assert (tmp_path / "config.yaml").read_text() == schema.to_yaml(config())


def test_all_differences_are_told_with_old_and_new_value(tmp_path):
    claim(tmp_path, config())
    save_something(tmp_path)
    message = claim_fault(tmp_path, **{"train.epochs": 3, "model.weights": "w", "log.pictures": 1})
    assert message.splitlines() == [
        f"{tmp_path}: belongs to a run of another configuration:",
        "  model.weights: was None, now w",
        "  train.epochs: was 40, now 3",
    ]


def test_an_option_added_since_the_run_began_counts_as_its_default(tmp_path):
    claim(tmp_path, config())
    save_something(tmp_path)
    path = tmp_path / "config.yaml"
    older = re.sub("seed: 0\n", "removed_since: 1\n", path.read_text())
    path.write_text(older)
    claim(tmp_path, config())
    path.write_text(older)
    assert "seed: was 0, now 1" in claim_fault(tmp_path, seed=1)


@pytest.mark.parametrize("content", [b"", b"- a\n- b\n", b"a: [", b"\xff\xfe", b"text", b"1: 2"])
def test_a_config_that_is_none_is_left_alone(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    assert str(tmp_path) in claim_fault(tmp_path)
    assert (tmp_path / "config.yaml").read_bytes() == content


def test_a_folder_in_place_of_the_config(tmp_path):
    (tmp_path / "config.yaml").mkdir()
    assert "cannot be read" in claim_fault(tmp_path)


def test_open_workdir_makes_it_and_leaves_nothing_in_it(tmp_path):
    for _ in range(2):
        open_workdir(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_workdir_that_cannot_be_written_to(tmp_path, name):
    (tmp_path / "file").touch()  # permissions would not stop root
    with pytest.raises(WorkdirError, match=f"{name}: cannot be written to") as caught:
        open_workdir(tmp_path / name)
    assert caught.value.hint == "Choose another --workdir."


def test_a_run_that_saved_nothing_lets_go_of_its_workdir(tmp_path):
    claim(tmp_path, config())
    (tmp_path / "checkpoints" / "5.tmp").mkdir(parents=True)
    claim(tmp_path, config(seed=1), DATA)
    claim(tmp_path, config(seed=2), DATA | {"labels": ["dog", "cat"]})
    assert "seed: 2" in (tmp_path / "config.yaml").read_text()
    (tmp_path / "checkpoints" / "5.damaged").mkdir()
    assert "seed: was 2, now 3" in claim_fault(tmp_path, seed=3)


def test_the_way_on_names_the_model_that_is_there(tmp_path):
    claim(tmp_path, config())
    (tmp_path / "best_model").mkdir()
    with pytest.raises(WorkdirError) as caught:
        claim(tmp_path, config(**{"train.epochs": 3}))
    assert (
        f"another --workdir and --config.model.weights={tmp_path}/best_model." in caught.value.hint
    )


SPLIT = {"images": 2, "images listed": "a", "targets": "b"}
DATA = {
    "labels": ["cat", "dog"],
    "train": SPLIT,
    "validation": SPLIT,
    "preprocessing": {"mean": [0.5, 0.25], "image_size": [64, 64]},
}


def test_the_same_data_may_lie_elsewhere(tmp_path):
    claim(tmp_path, config(), DATA)
    save_something(tmp_path)
    elsewhere = {"data.dir": "elsewhere/", "data.train_list": "lists/train.txt"}
    claim(tmp_path, config(**elsewhere), DATA)
    assert "dir: elsewhere/" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": ["dog", "cat"]}, "label 0: was cat, now dog\n  label 1: was dog, now cat"),
        ({"labels": ["cat", "dog", "emu"]}, "labels: were 2, now 3\n  label 2: was None, now emu"),
        ({"train": SPLIT | {"images": 3}}, "train: were 2 images, now 3"),
        (
            {"validation": SPLIT | {"targets": "c"}},
            "validation: other targets than before, or in another order",
        ),
        (
            {"preprocessing": DATA["preprocessing"] | {"mean": [0.5, 0.5]}},
            "preprocessing, mean: was [0.5, 0.25], now [0.5, 0.5]",
        ),
    ],
)
def test_other_data_are_refused_with_what_has_changed(tmp_path, change, told):
    claim(tmp_path, config(), DATA)
    save_something(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(WorkdirError) as caught:
        claim(tmp_path, config(**{"data.dir": "other"}), DATA | change)
    assert caught.value.message == f"{tmp_path}: belongs to a run on other data:\n  {told}"
    assert caught.value.hint == "Choose another --workdir, or put the data back."
    assert {path: path.read_bytes() for path in before} == before
