"""`mlcls train DATA` and its twin in Python: what is chosen, written, refused and returned."""

import json
import logging
import shlex
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import mlcls_jax
from mlcls_jax import commands
from mlcls_jax import config as schema
from mlcls_jax.commands import check, find_lr
from mlcls_jax.commands.train import with_run
from mlcls_jax.config import Data
from mlcls_jax.errors import CheckFailedError, ConfigError, DataError, WeightsError, WorkdirError
from mlcls_jax.new_run import check_weights, new_folder, numbers_of, plan, recipe_of
from mlcls_jax.wishes import Wishes
from tests.helpers.commands import forked
from tests.helpers.photos import write_image


@pytest.fixture
def classes(tmp_path, monkeypatch):
    """A folder per class, of twelve pictures; the current folder is where runs go."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, colour in (("red", 2), ("blue", 0)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            image = rng.integers(0, 80, (40, 40, 3), np.uint8)
            image[..., colour] += 150
            cv2.imwrite(str(tmp_path / "photos" / name / f"{number}.png"), image)
    return tmp_path / "photos"


RANDOM = Wishes(weights="none", epochs=3)


def files_of(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_a_run_is_chosen_and_the_data_stays_as_it_was(classes):
    before = files_of(classes)
    new = plan(classes, RANDOM, {"log.pictures": 0}, platform="cpu")
    assert files_of(classes) == before
    assert str(new.folder) == "runs/photos-1" and plan(classes, RANDOM, {}, platform="cpu").folder
    assert "photos: a folder per class (blue/, red/ …): 10 images to train on, 2 to" in new.told[0]
    assert any("no validation list: 2 images" in line for line in new.told)
    config = new.config
    assert (config.model.task, config.train.epochs, config.log.pictures) == ("single", 3, 0)
    assert config.model.weights == "none" and config.optimizer.warmup_epochs < 1


def test_a_check_takes_data_of_any_form_and_leaves_it_as_it_was(classes):
    before = files_of(classes)
    told = check.run(["photos", "--pixels", "--config.check_dataset.threads=1"])
    assert files_of(classes) == before
    assert "10 train, 2 val images, 2 labels" in told and "Only headers" not in told
    page = classes.parent / "runs/photos-check-1/check_dataset/report.html"
    assert page.exists() and f"report  {page.relative_to(classes.parent)}" in told
    (classes.parent / "mine/images").mkdir(parents=True)
    (classes.parent / "mine/label.txt").write_text("0 a\n")
    (classes.parent / "mine/train.txt").write_text("images/a.jpg 1\n")
    with pytest.raises(CheckFailedError, match="files that are not there: 1; wrong delimiters: 1"):
        check.run(["mine"])
    assert (
        "val.txt" in (classes.parent / "runs/mine-check-1/check_dataset/findings.txt").read_text()
    )


@pytest.mark.slow
@pytest.mark.parametrize("validation", ["0,0", "1,1", "-1,-1", "1,0"])
def test_the_task_is_single_where_all_images_have_one_label(tmp_path, validation):
    write_image(tmp_path / "images/0.png")
    (tmp_path / "label.txt").write_text("0 cat\n1 dog\n")
    (tmp_path / "train.txt").write_text("images/0.png\t0,1\n")
    (tmp_path / "val.txt").write_text(f"images/0.png\t{validation}\n")
    found = numbers_of(Data(source="mlcls", dir=str(tmp_path)))
    assert found.is_single == (validation == "1,0")


def test_a_rate_is_found_for_the_run_that_the_data_would_have(classes, toy):
    told = find_lr.run(["photos", "--weights=none", "--model=Toy", "--image_size=32", "--output=a"])
    rate = json.loads(Path("a/find_lr_result.json").read_text())["suggestion"]
    flags = "train photos --weights=none --model=Toy --image_size=32"
    assert f"{flags} --config.optimizer.learning_rate={rate:.1e}" in told.splitlines()[-1]


def test_a_run_stands_for_its_data(tmp_path):
    assert with_run(str(tmp_path), ["a", str(tmp_path)]) is None
    (tmp_path / "config.yaml").touch()
    flags = with_run(str(tmp_path), ["--config.seed=1", str(tmp_path)])
    assert flags == [f"--workdir={tmp_path}", "--config.seed=1"]


def test_the_command_in_full_is_the_same_run(classes):
    from mlcls_jax import command_line

    new = plan(classes, RANDOM, {"data.augment": ("flip",), "seed": 3}, platform="cpu")
    for argument in shlex.split(new.flags):
        assert argument.startswith(("--config", "--workdir"))
    command_line.parse(["mlcls", *shlex.split(new.flags)])
    assert schema.parse(command_line.CONFIG.value) == new.config


def test_what_is_refused_leaves_no_folder_behind(classes):
    with pytest.raises(ConfigError, match="train.epohs"):
        plan(classes, RANDOM, {"train.epohs": 3}, platform="cpu")
    (classes / "0.csv").write_text("a.png,red,blue,green\n")
    with pytest.raises(DataError):
        plan("photos/0.csv", RANDOM, {}, platform="cpu")
    assert not files_of(classes.parent / "runs")
    (classes.parent / "disk").mkdir()
    (classes.parent / "link").symlink_to("disk")
    with pytest.raises(DataError):
        plan("photos/0.csv", Wishes(weights="none", output="link"), {}, platform="cpu")
    assert not [*(classes.parent / "link").iterdir()]
    (classes / "0.csv").unlink()
    (classes.parent / "full").mkdir()
    (classes.parent / "full" / "x").touch()
    with pytest.raises(WorkdirError, match="--output full: is in use") as error:
        plan(classes, Wishes(weights="none", output="full"), {}, platform="cpu")
    assert "an existing search by `mlcls tune full`" in str(error.value.hint)


def test_weights_that_cannot_be_fetched_end_it_with_their_address(monkeypatch, tmp_path):
    monkeypatch.setenv("MLCLS_MODELS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="http://127.0.0.1:9/PP-LCNet_x1_0_ML") as caught:
        check_weights("auto", "PP-LCNet_x1_0_ML")
    assert "--weights none" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "kind", "recipe"),
    [
        ("PP-LCNet_x0_5_ML", "small", "lcnet:small"),
        ("PP-HGNetV2-B5_ML", "mlcls", "hgnetv2:mlcls_b4"),
        ("PP-HGNetV2-B4_ML", "single", "hgnetv2:single"),
        ("lcnet_100_ML", "small", "lcnet:small"),
        ("ResNet101_ML", "mlcls", "resnet:mlcls_101"),
        ("CLIP_vit_base_patch16_448_ML", "mlcls", "clip_vit:mlcls"),
    ],
)
def test_a_model_has_a_recipe(name, kind, recipe):
    assert recipe_of(name, kind) == recipe


def test_every_model_has_a_recipe():
    for name in mlcls_jax.list_models():
        assert recipe_of(name, "small").endswith(":small")


def test_no_two_commands_make_one_folder(tmp_path):
    (tmp_path / "out").mkdir()  # both may have found it empty
    with new_folder(str(tmp_path / "out"), "photos") as folder:
        other = new_folder(str(folder), "photos")
        with pytest.raises(WorkdirError, match="is in use by another process"), other:
            pass
        (folder / "label.txt").touch()
    assert [path.name for path in folder.iterdir()] == ["label.txt"]


def test_an_unknown_folder_is_no_run(tmp_path):
    with pytest.raises(WorkdirError, match="is no run"):
        mlcls_jax.load(tmp_path)


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("predict runs/x a.jpg b.jpg --top=3", "--model_dir=runs/x --input a.jpg b.jpg --top=3"),
        ("score runs/x photos --output o", "--model_dir=runs/x --input photos --output o"),
        ("evaluate runs/x --device=cpu", "--workdir=runs/x --device=cpu --config.mode=evaluate"),
        (
            "evaluate runs/x --workdir=o",
            "--config=runs/x/config.yaml --config.evaluate.model_dir=runs/x --workdir=o"
            " --config.mode=evaluate",
        ),
        ("predict --model_dir runs/x --input a.jpg", "--model_dir runs/x --input a.jpg"),
        ("train photos --epochs 3", "photos --epochs 3"),
        ("train --epochs 3 photos", "--epochs 3 photos"),
        ("train --config c.py --workdir x", "--config c.py --workdir x --config.mode=train"),
    ],
)
def test_a_run_or_a_data_set_stands_first(line, arguments):
    command, rest = commands.find(line.split())
    assert rest == arguments.split()
    assert (command.function == "train.run") == ("photos --e" in line or "3 photos" in line)


TINY = {
    "data.threads": 0,
    "log.tensorboard": False,
    "evaluate.batch_size": 4,
}


@pytest.mark.slow
def test_python_trains_twice_and_leaves_the_process_as_it_was(toy, classes):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    logged, epochs, steps = len(logging.getLogger("mlcls_jax").handlers), [], []
    for number in (1, 2):
        run = mlcls_jax.train(
            "photos", model="Toy_ML", epochs=2, batch_size=4, image_size=32,
            weights="none", settings=TINY, on_epoch=epochs.append, on_log=steps.append,
        )  # fmt: skip
        assert str(run.folder) == f"runs/photos-{number}"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert len(logging.getLogger("mlcls_jax").handlers) <= logged + 1  # the terminal's
    assert len(epochs) == 4 and epochs == [e for e in 2 * run.history if "loss" not in e][:2] * 2
    assert all("loss" in step for step in steps)
    assert 0 <= run.metrics["Top1"] <= 1 and "<td>Top1</td>" in run._repr_html_()
    [result] = run.model.predict(str(classes / "red" / "0.png"))
    assert result["label_names"]
    again = mlcls_jax.evaluate(run.folder)
    assert again.metrics["Top1"] == mlcls_jax.load(run.folder).metrics["Top1"]


@pytest.mark.slow
def test_the_command_trains_and_its_folder_is_an_argument(classes):
    settings = TINY | {"model.strides": (2, 1, 2, 2, 1)}
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    done = forked(
        "mlcls", "train", "photos", "--model", "PP-LCNet_x0_25_ML", "--epochs=1",
        "--batch_size=4", "--image_size=32", "--weights=none", "--device=cpu", *flags,
        cwd=classes.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mlcls predict runs/photos-1 IMAGES" in done.stdout
    assert "mlcls train --config=lcnet:small --workdir=runs/photos-1" in done.stderr
    recorded = yaml.safe_load((classes.parent / "runs/photos-1/config.yaml").read_text())
    assert recorded["train"]["epochs"] == 1
    image = "photos/red/0.png"
    for line in (
        ["train", "runs/photos-1"],
        ["evaluate", "runs/photos-1"],
        ["predict", "runs/photos-1", image, "photos/blue/1.png", "--device=cpu"],
        ["score", "runs/photos-1", "photos", "--output=scores"],
        ["export", "runs/photos-1", "--format=stablehlo", "--output=exported", "--images", image],
    ):
        again = forked("mlcls", *line, cwd=classes.parent)
        assert again.returncode == 0, again.stderr
