"""The command as users meet it: real processes, their exit codes, messages and files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlcls_jax import config as schema
from mlcls_jax import usage
from mlcls_jax.commands.mode import interruptions, summary
from mlcls_jax.errors import PreemptedError, UserError
from mlcls_jax.modes.predict import PredictResult
from mlcls_jax.modes.train_result import TrainResult
from tests.helpers.commands import forked
from tests.helpers.photos import write_lines, write_photos
from tests.helpers.tiers import slow

REPOSITORY = Path(__file__).parents[2]
CONFIG = "--config=configs/lcnet.py"
PHOTOS = "--config=configs/lcnet.py:mlcls"


def run(*arguments: str, program: tuple[str, ...] = (), **environment: str):
    if not program and not environment:
        return forked(REPOSITORY / "mlcls_jax/main.py", *arguments)
    return subprocess.run(
        [sys.executable, *(program or ("-m", "mlcls_jax.main")), *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def fails(*arguments: str, code: int, **options) -> str:
    """What a failing command says."""
    process = run(*arguments, **options)
    assert process.returncode == code, process.stderr
    assert "Traceback" not in process.stderr
    looked, told, said = process.stderr.partition("error: ")
    assert told and re.fullmatch("(Looking at .* …\n)?", looked)
    assert not process.stdout
    return said


def test_unknown_keys_are_refused_before_anything_is_done(tmp_path):
    typos = ["--config.train.epoch=3", "--noconfig.train.resum", "--config.modle.name", "x"]
    # With such a platform, JAX could not start.
    said = fails(CONFIG, f"--workdir={tmp_path}/run", *typos, code=2, JAX_PLATFORMS="none")
    assert said.splitlines() == [
        "train.epoch: there is no such key; did you mean train.epochs?",
        "train.resum: there is no such key; did you mean train.resume?",
        "modle.name: there is no such key; did you mean model.name?",
    ]
    assert not list(tmp_path.iterdir())


def test_impossible_values_are_refused_together_before_anything_is_done(tmp_path):
    values = ["--config.train.epochs=0", "--config.optimizer.schedule=cosin"]
    said = fails(CONFIG, f"--workdir={tmp_path}/run", *values, code=1, JAX_PLATFORMS="none")
    assert said.splitlines() == [
        "train.epochs=0: must be int, at least 1",
        "optimizer.schedule='cosin': must be one of cosine, linear, step, onecycle, constant;"
        " did you mean cosine?",
        "`mlcls config` lists every key with its range.",
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workdir=x"], "--config is missing, and x has no config.yaml of an earlier run"),
        ([CONFIG], "--workdir is missing"),
        ([CONFIG, "--workdir="], "--workdir is empty"),
        ([CONFIG, "--workdir=x", "more"], "'more' is not a flag"),
        ([CONFIG, "--workdri=x"], "Unknown command line flag 'workdri'. Did you mean: workdir"),
        ([CONFIG, "--workdir=x", "--config.seed=a"], "seed=a: must be int, 0 to 2147483647"),
        ([CONFIG, "--workdir=x", "--config.seed"], "Missing value for flag --config.seed"),
        ([CONFIG, "--workdir=x", "--config.log=3"], "log: is a section; it has log.tensorboard"),
        ([CONFIG + ":nope", "--workdir=x"], "configs/lcnet.py:nope: there are demo, mlcls"),
        (
            ["--config=configs/nope.py", "--workdir=x"],
            "configs/nope.py: there is no such configuration file",
        ),
    ],
)
def test_wrong_flags_get_one_line_and_a_hint(arguments, said):
    assert said in fails(*arguments, code=2)
    assert not (REPOSITORY / "x").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("config.train.epoch = 3", 'Did you mean "epochs" instead of "epoch"?'),
        ("config.train.epochs = '3'", "cannot be casted to type <class 'int'>"),
        ("raise OSError('not mounted')", "not mounted"),
        ("config.sed = seed", "name 'seed' is not defined"),
    ],
)
def test_faults_in_a_configuration_file_are_told_with_their_line(tmp_path, line, said):
    path = tmp_path / "mine.py"
    write_lines(path, [
        "from mlcls_jax.config import default", "def get_config():",
        "    config = default()", f"    {line}", "    return config",
    ])  # fmt: skip
    message = fails(f"--config={path}", f"--workdir={tmp_path}/run", code=2)
    assert message.startswith(f"{path}:4: ") and said in message
    assert "Other fields" not in message


def test_helpconfig_prints_every_key():
    process = run("--helpconfig")
    assert process.returncode == 0 and not process.stderr
    assert all(f"--config.{key}=" in process.stdout for key in schema.options())


def test_none_can_be_given_as_a_flag(tmp_path):
    flags = ["--config.data.epoch_size=None", "--config.model.strides=None", "--config.seed=None"]
    said = fails(CONFIG, f"--workdir={tmp_path}/run", *flags, code=1)
    assert said.splitlines()[:-1] == ["seed=None: must be int, 0 to 2147483647"]


def test_a_fault_in_the_users_data_is_one_message_and_a_result_file(tmp_path):
    root = write_photos(tmp_path / "data")
    write_lines(root / "val.txt", ["images/val_0.png\t0,1,0", "images/val_1.png\t0,1"])
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "train_result.json").write_text('{"done_flag": true}')  # of an earlier start
    told = f"{root}/val.txt:2: 2 values, but there are 3 labels"
    said = fails(PHOTOS, f"--workdir={workdir}", f"--config.data.dir={root}", code=1)
    assert said.splitlines() == [told, "Give one value for every label."]
    assert json.loads((workdir / "train_result.json").read_text()) == {
        "done_flag": False,
        "err_type": "DataError",
        "err_msg": told,
    }


@pytest.mark.parametrize(
    ("flags", "err_type", "said"),
    [
        (
            [PHOTOS, "--config.data.dir={}/nope"],
            "DatasetFileNotFoundError",
            "{}/nope: there is no such folder",
        ),
        (
            [CONFIG, "--config.model.name=PP-LCNet_x0.5_ML"],
            "ConfigError",
            "model.name=PP-LCNet_x0.5_ML: there is no such model; did you mean PP-LCNet_x0_5_ML?",
        ),
        (
            [CONFIG, "--config.mode=predict", "--config.predict.input={}/data/images"],
            "WeightsError",
            "{}/run/best_model/inference.json: there is no such file",
        ),
        (
            [CONFIG, "--config.mode=evaluate"],
            "WeightsError",
            "{}/run/best_model/inference.json: there is no such file",
        ),
    ],
)
def test_faults_found_by_a_mode(tmp_path, flags, err_type, said):
    write_photos(tmp_path / "data")
    flags, said = [flag.format(tmp_path) for flag in flags], said.format(tmp_path)
    assert fails(f"--workdir={tmp_path}/run", *flags, code=1).splitlines()[0] == said
    (result,) = (tmp_path / "run").glob("*_result.json")
    assert json.loads(result.read_text()) == {
        "done_flag": False,
        "err_type": err_type,
        "err_msg": said,
    }


def test_a_workdir_of_another_run_is_left_alone(tmp_path):
    root, workdir = write_photos(tmp_path / "data"), tmp_path / "run"
    workdir.mkdir()
    before = {"config.yaml": "seed: 7\n", "train_result.json": '{"done_flag": true}'}
    for name, text in before.items():
        (workdir / name).write_text(text)
    small = ["--config.model.name=PP-LCNet_x0_25", "--config.model.image_size=32"]
    said = fails(PHOTOS, f"--workdir={workdir}", f"--config.data.dir={root}", *small, code=1)
    assert f"{workdir}: belongs to a run of another configuration:\n" in said
    assert "  seed: was 7, now 0\n" in said
    assert {name: (workdir / name).read_text() for name in before} == before


def test_a_workdir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    said = fails(CONFIG, f"--workdir={tmp_path}/file/run", code=1)
    assert said.splitlines() == [
        f"{tmp_path}/file/run: cannot be written to: Not a directory",
        "Choose another --workdir.",
    ]


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        ("KeyError('x')", 70, "This is a fault of mlcls_jax, not yours:"),
        slow("OSError(28, 'No space left', '/disk')", 1, "error: /disk: No space left"),
        slow("KeyboardInterrupt", 130, "error: Interrupted."),
    ],
)
def test_exit_codes_of_what_is_not_the_users_fault(tmp_path, raised, code, said):
    """A mode that fails as told, in the place of training."""
    (tmp_path / "stub.py").write_text(f"def train(config, workdir):\n    raise {raised}\n")
    program = (
        "-c",
        "import sys, stub; from mlcls_jax import main;"
        "sys.modules['mlcls_jax.modes.train'] = stub; main.run()",
    )
    paths = f"{tmp_path}{os.pathsep}{REPOSITORY}"
    process = run(CONFIG, f"--workdir={tmp_path}/run", program=program, PYTHONPATH=paths)
    assert process.returncode == code and said in process.stderr
    assert ("Traceback" in process.stderr) == (code == 70)
    if code != 130:
        result = json.loads((tmp_path / "run" / "train_result.json").read_text())
        assert (result["done_flag"], result["err_type"]) == (False, raised.split("(")[0])
    if code == 70:
        assert "KeyError" in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.parametrize(
    ("mode", "saved", "said"),
    [
        slow("train", [], "starts over"),
        (
            "train",
            ["8", "16", "24.orbax-checkpoint-tmp-1"],
            "resumes from the checkpoint of step 16",
        ),
        slow("evaluate", ["8"], "starts over"),
    ],
)
def test_after_an_interruption_it_is_told_what_the_same_command_does(tmp_path, mode, saved, said):
    for name in saved:
        (tmp_path / "run" / "checkpoints" / name).mkdir(parents=True)
    stub = f"def {mode}(config, workdir):\n    raise KeyboardInterrupt\n"
    (tmp_path / "stub.py").write_text(stub)
    program = (
        "import sys, stub; from mlcls_jax import main;"
        f"sys.modules['mlcls_jax.modes.{mode}'] = stub; main.run()"
    )
    flags = (CONFIG, f"--workdir={tmp_path}/run", f"--config.mode={mode}")
    paths = f"{tmp_path}{os.pathsep}{REPOSITORY}"
    process = run(*flags, program=("-c", program), PYTHONPATH=paths)
    assert process.returncode == 130
    looked = "" if mode == "evaluate" else "Looking at digits …\n"
    assert process.stderr == f"{looked}error: Interrupted.\nThe same command {said}.\n"


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), PreemptedError("Stopped.")])
def test_a_run_in_a_folder_of_its_own_tells_the_command_that_goes_on(tmp_path, raised):
    """The same command would be refused, or begin another run."""
    with (
        pytest.raises(UserError) as told,
        interruptions(schema.Config(), tmp_path, "mlcls train runs/a"),
    ):
        raise raised
    assert told.value.hint == "It goes on by: mlcls train runs/a"


def test_the_commands_proposed_after_training_repeat_its_flags(tmp_path, monkeypatch):
    given = [CONFIG, "--workdir=my runs/a", "--config.model.image_size=64", "--config.mode=train"]
    monkeypatch.setattr(sys, "argv", ["main.py", *given])
    result = {
        "MultiLabelMAP": 0.5, "best_weights": "ema", "best_epoch": 3, "seconds": 9.0,
        "images_per_s": 10.0, "skipped_images": [], "paths": {"best_model": "my runs/a/best_model"},
        "epochs": 3, "steps": 9,
    }  # fmt: skip
    finished = TrainResult.from_json(result, "MultiLabelMAP")
    text = summary(finished, schema.Config(), Path("my runs/a"), given)
    command = f"{CONFIG} '--workdir=my runs/a' --config.model.image_size=64"
    assert f"{usage.program()} {command} --config.mode=evaluate" in text
    assert f"{usage.program()} {command} --config.mode=predict " in text


def test_skipped_images_are_listed_after_a_run(tmp_path):
    skipped = [f"{i}.jpg" for i in range(12)]
    result = PredictResult(images=3, skipped_images=skipped, model_dir="model", output="out")
    text = summary(result, schema.Config(mode="predict"), tmp_path, [])
    assert "12 unreadable images were left out:" in text
    assert "9.jpg" in text and "10.jpg" not in text
    assert f"all of them in {tmp_path}/predict_result.json" in text


def test_the_command_rarely_looks_for_cycles_and_a_library_leaves_that_alone():
    program = """
import gc, sys
default = gc.get_threshold()
from mlcls_jax import create_model, main
assert gc.get_threshold() == default
sys.argv = ["mlcls", "--help"]
main.run()
assert gc.get_threshold()[0] > 10 * default[0]
"""
    process = run(program=("-c", program))
    assert process.returncode == 0, process.stderr


def test_small_programs_too_are_compiled_once_for_all_runs(tmp_path):
    program = """
import jax
from mlcls_jax.start import start_jax
from tests.helpers.tiers import slow
start_jax(cache=True)
print(jax.jit(lambda x: x + 1)(1))
"""
    cache = {"XDG_CACHE_HOME": str(tmp_path), "JAX_COMPILATION_CACHE_DIR": ""}
    process = run(program=("-c", program), **cache)
    assert process.stdout.strip() == "2", process.stderr
    assert [path for path in tmp_path.rglob("*") if path.name.startswith("jit_")]
