"""Scoring on a Ray cluster of two nodes gives what one process alone gives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlcls_jax.scoring.job import Request
from mlcls_jax.scoring.run_job import score
from tests.helpers.bundles import write_images, write_small
from tests.helpers.tiers import need

LAUNCHER = Path(__file__).parents[2] / "launch/ray_score.sh"

# Two nodes with a CPU each; scores there twice, the second time with a device that actors lack.
CLUSTER = """
import shutil, sys
from pathlib import Path
from ray.cluster_utils import Cluster
from mlcls_jax.errors import UserError
from mlcls_jax.commands.score import run

arguments, output = sys.argv[1:], sys.argv[-1]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
try:
    engine = ["--engine=ray", "--address", cluster.address]
    print(run([*arguments, *engine]))
    next(Path(output).glob("part-*")).rename(output + ".part")
    try:
        run([*arguments, *engine, "--device=gpu:7"])
    except UserError as error:
        print("told:", error.message, error.hint)
finally:
    started = [p.process for node in cluster.list_all_nodes() for processes in
               node.all_processes.values() for p in processes]
    cluster.shutdown()
for process in started:
    process.wait()
print("none is left of", len(started))
"""


@pytest.mark.slow
def test_a_cluster_of_two_nodes_writes_the_same_files(tmp_path):
    need("ray.data")
    model = write_small(tmp_path / "model")
    photos = tmp_path / "photos"
    write_images(photos, 22)
    (photos / "05.png").write_bytes(b"broken")
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    options = {"batch_size": 2, "rows_per_file": 4, "threads": 2}
    score(Request(str(model), str(photos), str(alone), **options))

    arguments = ["--model_dir", model, "--input", photos]
    arguments += [word for name, value in options.items() for word in (f"--{name}", value)]
    told = subprocess.run(
        [sys.executable, "-c", CLUSTER, *map(str, [*arguments, "--output", shared])],
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert "22 images, 1 of them could not be read." in told.stdout
    assert "told: device='gpu:7': there is no such device There are: cpu:0." in told.stdout
    assert "none is left of" in told.stdout
    Path(f"{shared}.part").rename(shared / "part-00000-000000.parquet")
    files = [{p.name: p.read_bytes() for p in f.glob("*.parquet")} for f in (alone, shared)]
    assert files[0] == files[1] and len(files[0]) == 7


# Notes what is run where; the job is killed as often as the plan says.
SSH = """#!/usr/bin/env bash
echo "$5 ${*:6}" >>notes
case $* in
  *' score '*) sed -i 1d plan; exit "$(head -n1 plan)" ;;
esac
"""


@pytest.mark.parametrize(
    ("plan", "runs", "code"),
    [(["0"], 1, 0), (["137", "255", "0"], 3, 0), (["1"], 1, 1), (["137", "137"], 2, 137)],
)
def test_the_launcher_starts_scores_again_after_kills_and_stops(tmp_path, plan, runs, code):
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    (tmp_path / "plan").write_text("\n".join(["first", *plan]))
    restarts = len(plan) - 1
    told = subprocess.run(
        [LAUNCHER, "me@a,b", "--dir=/it's", f"--restarts={restarts}", "--", "--input=x y"],
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert told.returncode == code, told.stderr
    ray, there = "exec python -m ray.scripts.scripts", "cd '/it'\\''s' &&"
    assert (tmp_path / "notes").read_text().splitlines() == [
        f"me@a {there} {ray} start --head --port=6379 --disable-usage-stats",
        f"b {there} {ray} start --address=a:6379 --disable-usage-stats",
        *[
            f"me@a {there} exec python -m mlcls_jax.main score --engine=ray --address=a:6379"
            " '--input=x y'"
        ]
        * runs,
        f"me@a {there} {ray} stop",
        f"b {there} {ray} stop",
    ]
