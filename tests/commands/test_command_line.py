"""What can be typed after `mlcls`: words, flags, and the many ways to get them wrong."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from mlcls_jax import command_line, recipes
from mlcls_jax import config as schema
from mlcls_jax.commands import COMMANDS
from mlcls_jax.commands.mode import summary
from mlcls_jax.errors import install_hint
from mlcls_jax.modes import train_result
from mlcls_jax.modes.train_result import TrainResult
from mlcls_jax.recipes.lcnet import get_config as get_demo
from mlcls_jax.yaml_config import get_config

REPOSITORY = Path(__file__).parents[2]
SHOWN = [command for command in COMMANDS.values() if command.group != "hidden"]
WITH_CONFIG = [command.name for command in SHOWN if command.group == "config" and command.mode]
OTHERS = [command.name for command in SHOWN if command.name not in WITH_CONFIG]
CONFIG, WORKDIR = "--config=configs/lcnet.py", "--workdir=never-made"

# Runs each command line in a process of its own, without importing everything again.
PROGRAM = """
import importlib, json, os, sys
from mlcls_jax import main
for command in sys.argv[2:]:  # what they import is imported once
    importlib.import_module(f"mlcls_jax.commands.{command}")
for number, argv in enumerate(json.load(sys.stdin)):
    if os.fork() == 0:
        for stream in (1, 2):
            os.dup2(os.open(f"{sys.argv[1]}/{number}.{stream}", os.O_CREAT | os.O_WRONLY), stream)
        sys.argv = argv
        code = 0
        try:
            main.run()
        except SystemExit as ended:
            code = ended.code or 0
        sys.stdout.flush(), sys.stderr.flush(), os._exit(code)  # tearing down takes long
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def mlcls(tmp_path):
    """A function that runs command lines, of `mlcls` unless told otherwise, in the checkout."""

    def run(*lines: list[str], name: str = "mlcls", imports: tuple[str, ...] = ()) -> list[Done]:
        given = [[name, *line] for line in lines]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path), *imports],
            input=json.dumps(given),
            cwd=REPOSITORY,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": ""},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        said = [[(tmp_path / f"{n}.{s}").read_text() for s in (1, 2)] for n in range(len(given))]
        assert not (REPOSITORY / "never-made").exists()
        assert not any("Traceback" in text for texts in said for text in texts)
        return [Done(int(c), *texts) for c, texts in zip(done.stdout.split(), said, strict=True)]

    return run


def test_help_is_given_however_it_is_asked_for(mlcls):
    bare, word, flag, *versions = mlcls([], ["help"], ["--help"], ["version"], ["--version"])
    assert bare.code == 0 and bare == word == flag and " serve " in bare.out
    assert [v.out.strip() for v in versions] == ["mlcls_jax 0.1.0"] * 2
    words = [*WITH_CONFIG, *OTHERS]
    lines = [line for word in words for line in ([word, "--help"], ["help", word])]
    asked = mlcls(*lines, imports=tuple(OTHERS))
    by_name = dict(zip(words, asked[::2], strict=True))
    for name, long, short in zip(words, asked[::2], asked[1::2], strict=True):
        assert long.code == 0 and long == short, name
        assert long.out.startswith(f"usage: mlcls {name} ")
        assert long.out.count(f"  mlcls {name} ") >= 1, "an example"
    assert "--config.train.epochs=40" in by_name["train"].out
    assert "--config.check_dataset.convert.enable=" in by_name["check"].out
    assert "--config.evaluate.report=" in by_name["evaluate"].out
    assert "--config.thresholds.target=" in by_name["thresholds"].out
    assert all("--workdir" in by_name[word].out for word in WITH_CONFIG)


def test_the_help_names_the_command_as_it_was_called(mlcls):
    told = mlcls(["--help"], ["train", "--help"], ["score", "--help"], name="mlcls_jax/main.py")
    assert all("-m mlcls_jax.main " in each.out for each in told)
    assert not any("  mlcls train" in each.out or "  mlcls score" in each.out for each in told)


def test_what_is_wrong_is_told_with_what_was_meant(mlcls):
    cases = {
        # a word and a mode that contradict each other
        ("evaluate", CONFIG, WORKDIR, "--config.mode=predict"): "evaluate means mode=evaluate",
        ("train", CONFIG, WORKDIR, "--config.mode=trian"): "--config.mode=trian: the command train",
        ("train", CONFIG, WORKDIR, "--config.mode", "evaluate"): "--config.mode=evaluate: the comm",
        ("check", "photos", "--config.mode=train"): "the command check means mode=check_dataset",
        ("tune", "photos", "--config.mode=evaluate"): "--config.mode=evaluate: the command itself",
        ("from_words", "photos", "a,b", "--config.mode=check_dataset"): "the command itself says",
        # no configuration: nothing is blamed that nobody typed
        (
            "train",
            "run.yaml",
        ): "run.yaml: is a configuration, not data\nmlcls train --config=run.yaml",
        ("train",): "--config is missing\nusage: mlcls train --config=",
        ("train", "photos", WORKDIR): "of a run with --config\nBeside photos it is called --output",
        ("evaluate", WORKDIR): "--config is missing, and never-made has no config.yaml",
        ("train", WORKDIR, "--config.train.epochs=3"): "--config is missing, and never-made",
        # keys without their section
        ("train", CONFIG, WORKDIR, "--epochs=3"): "--epochs: there is no such flag; did you mean"
        " --config.train.epochs?",
        ("train", "--batch_size", "3"): "did you mean --config.train.batch_size?",
        ("evaluate", "--batch_size=3"): "did you mean --config.evaluate.batch_size?",
        (CONFIG, WORKDIR, "--lr=0.1"): "did you mean --config.optimizer.learning_rate?",
        (CONFIG, WORKDIR, "--train.epochs=3"): "did you mean --config.train.epochs?",
        (CONFIG, WORKDIR, "--model=x"): "did you mean --config.model.name?",
        (CONFIG, WORKDIR, "--num_workers=2"): "did you mean --config.data.workers?",
        (CONFIG, WORKDIR, "--batchsize=2"): "did you mean --config.train.batch_size?",
        (CONFIG, WORKDIR, "--zzyzx=2"): "--zzyzx: there is no such flag\n",
        # values
        (CONFIG, WORKDIR, "--config.train.batch_size=abc"): "train.batch_size=abc: must be int, at",
        (CONFIG, WORKDIR, "--config.train.resume=no-"): "train.resume=no-: must be bool",
        (CONFIG, WORKDIR, "--config.model.image_size=(64,"): "model.image_size=(64,: must be tuple",
        # configuration files
        ("--config=configs/lcnt.py", WORKDIR): "configs/lcnt.py: there is no such configuration"
        " file; did you mean configs/lcnet.py?",
        ("--config=lcnt", WORKDIR): "did you mean configs/lcnet.py?",
        ("--config=configs", WORKDIR): "configs: is a folder; there are configs/clip_vit.py",
        ("--config=gs://b/x.py", WORKDIR): "--config=gs://b/x.py: must be a path on this machine",
        ("--helpconfig=trian",): "trian: there is no such key",
    }
    for (line, told), done in zip(cases.items(), mlcls(*map(list, cases)), strict=True):
        assert done.code == 2 and not done.out, line
        assert done.err.startswith("error: ") and told in done.err, line


def test_no_command_takes_a_url_for_a_folder_of_this_machine(mlcls, tmp_path):
    (tmp_path / "a.png").touch()
    url, model = "s3://bucket/x", str(tmp_path)
    cases = {
        (CONFIG, f"--workdir={url}"): "--workdir",
        ("export", model, "--output", url): "--output",
        ("export", url, "--output", model): "MODEL_DIR",
        ("export", model, "--output", model, "--images", url): "--images",
        ("backends", url): "MODEL_DIR",
        ("predict", "--model_dir", model, "--input", model, "--save_path", url): "--save_path",
        ("--model_dir", url, "--input", model): "--model_dir",
        ("serve", "--model_dir", url): "--model_dir",
        ("--get_pipeline_config", "x", "--save_path", url): "--save_path",
        ("pack", model, url): "DATASET and OUTPUT",
        ("pack", "--verify", url): "DATASET and OUTPUT",
        ("score", "--model_dir", model, "--input", model, "--output", url): "--output",
        ("score", "--model_dir", url, "--input", model, "--output", model): "--model_dir",
    }
    ended = mlcls(*map(list, cases), imports=tuple(OTHERS))
    for (line, option), done in zip(cases.items(), ended, strict=True):
        assert done.code == 1 and not done.out, line
        assert f"error: {option}={url}: must be a path on this machine, not a URL" in done.err
    assert not (REPOSITORY / "s3:").exists()


def test_helpconfig_shows_the_values_of_a_file_and_a_part(mlcls):
    everything, part, file, packaged, flag, text = mlcls(
        ["--helpconfig"],
        ["--helpconfig=train"],
        ["--helpconfig", "model", CONFIG],
        ["--helpconfig", "model", "--config=lcnet"],
        ["train", CONFIG, "--helpconfig=train.epochs", "--config.train.epochs=7"],
        ["--helpconfig=learning"],
    )
    assert packaged.out == file.out  # the recipes of the package need no configs/
    assert all(each.code == 0 for each in (everything, part, file, flag, text))
    keys = [key for key in schema.options() if f"--config.{key}=" in part.out]
    assert keys == [key for key in schema.options() if key.startswith("train.")]
    assert "--config.model.name=PP-LCNet_x0_5_ML  (str; default: PP-LCNet_x1_0_ML)" in file.out
    assert "--config.model.dtype=float32  (one of float32, bfloat16)" in file.out
    assert "--config.train.epochs=7  (int, at least 1; default: 40)" in flag.out
    assert "optimizer.learning_rate=" in text.out and "--config.seed=" not in text.out


def test_flags_may_stand_in_a_file(mlcls, tmp_path):
    (tmp_path / "flags.txt").write_text(f"{CONFIG}\n{WORKDIR}\n--config.seed=-1\n")
    done, missing = mlcls([f"--flagfile={tmp_path}/flags.txt"], ["--flagfile=nope.txt"])
    assert (done.code, done.err.splitlines()[0]) == (
        1,
        "error: seed=-1: must be int, 0 to 2147483647",
    )
    assert missing.code == 2 and "nope.txt" in missing.err


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{shlex.quote(sys.executable)} -m mlcls_jax.main --helpconfig"
    shell = ["bash", "-c", f"set -o pipefail; {command} | head -1"]
    done = subprocess.run(shell, capture_output=True, text=True, cwd=REPOSITORY, timeout=300)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: ")


def test_the_record_of_a_run_is_a_configuration(mlcls, tmp_path):
    values = {"data.source": "digits", "train.epochs": 7, "model.image_size": [64, 32]}
    config = schema.default()
    config.update_from_flattened_dict(values | {"model.image_size": (64, 32)})
    workdir = tmp_path / "my runs" / "a"
    workdir.mkdir(parents=True)
    record = workdir / "config.yaml"
    record.write_text(schema.to_yaml(schema.parse(config)))
    again = schema.parse(get_config(str(record)))
    assert again == schema.parse(config)
    # Further flags go before what is in the file; and without --config it is that of the workdir.
    shown = ["--helpconfig=train.epochs"]
    named, found, changed = mlcls(
        [*shown, f"--config={record}"],
        [*shown, f"--config={record}", "--config.train.epochs=9"],
        [f"--workdir={workdir}", "evaluate", "--config.train.epochs=0"],
    )
    assert "--config.train.epochs=7 " in named.out and "--config.train.epochs=9 " in found.out
    assert "'evaluate' is not a flag" in changed.err  # the word goes first
    (evaluated,) = mlcls(["evaluate", f"--workdir={workdir}", "--config.train.epochs=0"])
    assert (evaluated.code, evaluated.err.splitlines()[0]) == (
        1,
        "error: train.epochs=0: must be int, at least 1",
    )


def test_faults_of_a_yaml_file_are_told_with_line_and_key(mlcls, tmp_path):
    texts = {
        "train: {epoch: 3,\n  epochs: many}\nmodle: 1": [
            ":3: modle: there is no such key; did you mean mode?",
            ":1: train.epoch: there is no such key; did you mean train.epochs?",
            ":2: train.epochs='many': must be int, at least 1",
        ],
        "base: lcnet:cocoa\nseed: -1": [
            ":1: base: lcnet:cocoa: there is no such recipe; did you mean lcnet:coco?",
            ":2: seed=-1: must be int, 0 to 2147483647",
        ],
        "seed: 1\ntrain:\n  epochs: 2\n  epochs: 3": [":4: train.epochs: is in line 3 already"],
        "- 1": [": is not a configuration"],
        "a: [": [":1: is not YAML: while parsing"],
        "[" * 100_000: [": is nested too deeply"],
        "1: 2": [":1: 1: there is no such key"],
    }
    paths = [tmp_path / f"{number}.yaml" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    ended = mlcls(*([f"--config={path}", WORKDIR] for path in paths))
    for path, told, done in zip(paths, texts.values(), ended, strict=True):
        assert done.code == 2
        for fault in told:
            assert f"{path}{fault}" in done.err


def test_a_yaml_file_has_a_recipe_under_it_and_values_as_people_write_them(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "base: lcnet:coco\noptimizer: {learning_rate: 1e-4, lr_multipliers: ^head/=0.1}\n"
        "data: {dir: photos}\nmodel: {weights: None, image_size: 224}\nprofile: {steps: 10:15}\n"
    )
    config, recipe = schema.parse(get_config(str(path))), recipes.load("lcnet:coco")
    assert config.model.weights is None and config.model.image_size == (224, 224)
    assert config.optimizer.learning_rate == 1e-4 and config.profile.steps == "10:15"
    assert config.optimizer.lr_multipliers == ("^head/=0.1",)
    recipe.data.dir = "photos"
    unchanged = schema.to_dict(schema.parse(recipe))
    assert schema.to_dict(config)["train"] == unchanged["train"]


def test_text_that_looks_like_a_number_stays_text_in_a_record(tmp_path):
    (tmp_path / "config.yaml").write_text(
        schema.to_yaml(schema.Config(data=schema.Data(dir="1e4", train_list="None")))
    )
    data = schema.parse(get_config(str(tmp_path / "config.yaml"))).data
    assert (data.dir, data.train_list) == ("1e4", "None")


def test_a_mode_with_a_command_of_its_own_takes_a_configuration_too(mlcls):
    predict, export = mlcls(
        ["predict", CONFIG, WORKDIR, "--config.seed=-1"],
        ["export", CONFIG, WORKDIR, "--config.seed=-1"],
    )
    for done in (predict, export):
        assert (done.code, done.err.splitlines()[0]) == (
            1,
            "error: seed=-1: must be int, 0 to 2147483647",
        )


def test_the_commands_proposed_after_training_are_as_short_as_those_typed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/venv/bin/mlcls"])
    flags = [CONFIG, "--workdir=my runs/a"]
    result = {
        "MultiLabelMAP": 0.5, "best_weights": "ema", "best_epoch": 3, "seconds": 9.0,
        "images_per_s": 10.0, "skipped_images": [],
        "paths": {"best_model": "my runs/a/best_model", "samples": "my runs/a/samples"},
        "epochs": 3, "steps": 9,
    }  # fmt: skip
    finished = TrainResult.from_json(result, "MultiLabelMAP")
    monkeypatch.setattr(train_result, "find_spec", lambda name: None)
    text = summary(finished, schema.Config(), Path("my runs/a"), flags)
    assert "  mlcls evaluate '--workdir=my runs/a'\n" in text
    assert (
        "  mlcls predict '--model_dir=my runs/a/best_model' '--input=my runs/a/samples'"
        " '--save_path=my runs/a/predictions'" in text
    )
    assert f"tensorboard --logdir='my runs/a'  ({install_hint('tensorboard')})" in text
    monkeypatch.setattr(train_result, "find_spec", lambda name: name)
    assert "pip install" not in summary(finished, schema.Config(), Path("my runs/a"), flags)


def test_command_lines_may_be_parsed_one_after_another():
    """In one process, as from a notebook: the keys of the one are not in the way of the next."""
    for epochs in (3, 4):
        command_line.parse(["mlcls", "--config=lcnet", WORKDIR, f"--config.train.epochs={epochs}"])
        assert schema.parse(command_line.CONFIG.value).train.epochs == epochs
    command_line.parse(["mlcls", "--config=lcnet", WORKDIR])
    assert schema.parse(command_line.CONFIG.value).train.epochs == get_demo().train.epochs
