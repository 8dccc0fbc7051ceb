"""The wheel alone, without the checkout: it has the recipes and the templates, and trains."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import mlcls_jax

REPOSITORY = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
TINY = (
    "--config.model.name=PP-LCNet_x0_25",
    "--config.model.image_size=32",
    "--config.data.epoch_size=8",
    "--config.data.val_size=8",
    "--config.train.batch_size=8",
    "--config.train.epochs=1",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, because setuptools writes into the folder that it builds from."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "mlcls_jax", source / "mlcls_jax", ignore=leave)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--no-index", "--wheel-dir", folder, source], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of programs of an environment with the wheel; the requirements are this one's."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    programs = folder / "env/bin"
    pip = [sys.executable, "-m", "pip", f"--python={programs / 'python'}", "install"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True)
    (packages,) = folder.glob("env/lib/python*/site-packages")
    (packages / "requirements.pth").write_text(sysconfig.get_path("purelib"))
    return programs


def run(programs: Path, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [programs / "mlcls", *arguments],
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    files = (path for path in (REPOSITORY / "mlcls_jax").rglob("*") if path.is_file())
    tracked = {str(p.relative_to(REPOSITORY)) for p in files if "__pycache__" not in p.parts}
    held = set(zipfile.ZipFile(wheel).namelist())
    assert tracked == {name for name in held if ".dist-info/" not in name}


def test_the_command_trains_and_predicts_without_the_checkout(installed, tmp_path):
    where = subprocess.check_output(
        [installed / "python", "-c", "import mlcls_jax; print(mlcls_jax.__file__)"],
        cwd=tmp_path,
        text=True,
    )
    assert Path(where).is_relative_to(installed.parent)
    assert mlcls_jax.__version__ in run(installed, "--version", cwd=tmp_path)
    assert "PP-LCNet_x0_25_ML" in run(installed, "models", "PP-LCNet*", cwd=tmp_path)
    run(installed, "train", "--config=lcnet", "--workdir=demo", *TINY, cwd=tmp_path)
    for name in ("best_model/inference.json", "config.yaml", "predictions.png"):
        assert (tmp_path / "demo" / name).is_file(), name
    images = ("--input", "demo/samples", "--save_path", "output")
    run(installed, "predict", "--model_dir", "demo/best_model", *images, cwd=tmp_path)
    assert list((tmp_path / "output").glob("*.json"))


def test_what_extras_have_is_missed_only_where_it_is_used(tmp_path):
    program = """
import sys
sys.modules |= dict.fromkeys(("pyarrow", "pycocotools", "tensorflow_datasets"))
import mlcls_jax.modes.check_dataset, mlcls_jax.modes.train
from mlcls_jax import main
main.run(["mlcls", "score", "--model_dir=x", "--input=x", "--output=x"])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, text=True,
                          capture_output=True)  # fmt: skip
    message, hint = done.stderr.splitlines()
    assert done.returncode == 1 and message.startswith("error: scores are written as Parquet")
    assert hint == 'Install it: pip install -e ".[score]"'


def test_a_hint_names_the_wheel(installed, wheel, tmp_path):
    program = "from mlcls_jax.errors import install_hint; print(install_hint('serve'))"
    hint = subprocess.check_output([installed / "python", "-c", program], cwd=tmp_path, text=True)
    assert hint.strip() == f'Install it: pip install "mlcls_jax[serve] @ {wheel.as_uri()}"'
