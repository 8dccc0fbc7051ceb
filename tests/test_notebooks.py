"""The notebooks run in a kernel, on small data and with small networks."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from tests.helpers import towers
from tests.helpers.commands import REPOSITORY
from tests.helpers.tiers import need

NOTEBOOKS = sorted((REPOSITORY / "docs" / "notebooks").glob("*.ipynb"))
# What kernel and command know besides: small networks, of drawn weights.
SMALL = """
import pytest
from mlcls_jax.models import registry
from tests.helpers import tiny_vit, towers, toy_backbone

registry.FAMILIES["Toy"] = toy_backbone.FAMILY
tiny_vit.register(pytest.MonkeyPatch(), "DINOv2")
towers.register(pytest.MonkeyPatch())
"""
# After the cell that is tagged `parameters`: what there is without a network.
GIVEN = {
    "your_photographs": 'MODEL, WEIGHTS, IMAGE_SIZE, EPOCHS = "Toy_ML", "none", 32, 2',
    "words": 'TOWERS, WEIGHTS = "SigLIP_vit_tiny_patch16_224", "towers"\n'
    'STUDENT = "--model Toy_ML --image_size 32 --epochs 1 --weights none --labels_only --lr 0.001"',
    "dino": 'MODEL, WEIGHTS, IMAGE_SIZE = "DINOv2_tiny_ML", "none", 28\nHEAD = ALL = {"epochs": 1}',
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a command that knows the small networks."""
    program = tmp_path / "bin" / "mlcls"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{SMALL}\nfrom mlcls_jax import main\nmain.run()\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    towers.write(tmp_path / "towers", "siglip_huggingface")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_on_small_data(place, path):
    """Each cell of one twice, as people do."""
    nbclient, nbformat = need("nbclient"), need("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells, is_twice = [], path.stem == "your_photographs"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cells += [cell, nbformat.from_dict(cell)] if is_twice else [cell]
        if "parameters" in cell.metadata.get("tags", ()):
            cells.append(nbformat.v4.new_code_cell(f"{SMALL}\n{GIVEN[path.stem]}"))
    notebook.cells = cells
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(place)}}
    )
    client.execute()
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("text/html" in output.get("data", ()) for output in outputs)
    said = "".join(output["text"] for output in outputs if output.output_type == "stream")
    assert "error:" not in said and "Traceback" not in said, said


def test_notebooks_are_kept_without_what_they_showed():
    for path in NOTEBOOKS:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
        assert code and not any(cell["outputs"] or cell["execution_count"] for cell in code)
