"""The benchmarks' shared parts, and that they run without peers; nothing is said about time."""

import importlib.util
import json
import sys

import numpy as np
import pytest

from benchmarks import accuracy, infer, timing
from mlcls_jax import models

NO_PEERS = {"torch", "timm", "paddle"}


def test_candidates_take_turns_and_warm_up():
    order = []

    def candidate(name):
        return timing.timed(lambda: order.append(name))

    times = timing.in_turn({"a": candidate("a"), "b": candidate("b")}, rounds=2, calls=1)
    assert order == list("aabb") * 3  # one round to warm up; one call more at the start of a turn
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2}


def test_spread_is_the_median_between_percentiles():
    assert timing.spread(range(11)) == (5.0, 1.0, 9.0)


def test_table_shows_and_json_holds_every_row(tmp_path, capsys):
    rows = [
        {"model": "M", "path": "ours", "ms": 1.5, "ratio": 0.5},
        {"model": "M", "path": "peer", "ms": None, "ratio": None},
    ]
    timing.print_table("Title", rows, str(tmp_path / "rows.json"))
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("Title")
    assert [line.split() for line in lines] == [
        ["model", "path", "ms", "ratio"],
        ["M", "ours", "1.5", "0.5"],
        ["M", "peer", "-", "-"],
    ]
    assert json.loads((tmp_path / "rows.json").read_text()) == rows


def test_ratios_are_to_the_best_peer_and_to_onnx_runtime():
    times = {
        infer.LIMIT: [4.0, 4.0],
        "ours jax": [30.0],
        infer.REFERENCE: [20.0],
        "peer openvino": [10.0],
    }
    rows = infer.rows_of_model("M", times, 2.0, {infer.PADDLE: "pip install paddlepaddle"})
    ours = rows[0]
    assert (ours["path"], ours["ratio"], ours["to_ort"]) == ("ours jax", 3.0, 1.5)
    assert (ours["limit_ms"], ours["of_limit"]) == (8.0, 3.75)
    assert rows[-1]["path"] == infer.PADDLE and rows[-1]["ms"] is None


def test_prediction_without_peers_names_what_is_missing(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in NO_PEERS else find(name)
    )
    monkeypatch.delenv("PADDLE_PYTHON", raising=False)
    file = tmp_path / "rows.json"
    command = "infer --models PP-LCNet_x0_25_ML --size 32 --rounds 1 --calls 1 --paths jax peers"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--json", str(file)])
    infer.main()
    rows = json.loads(file.read_text())
    paths = {row["path"]: row["ms"] for row in rows}
    assert paths.pop("ours jax") > 0
    assert set(paths) == {*infer.TORCH_PEERS, infer.PADDLE} and not any(paths.values())
    printed = capsys.readouterr().out
    assert "missing: pip install torch timm" in printed
    assert "missing: pip install paddlepaddle" in printed


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "timm")),
    reason="torch or timm is not installed",
)
def test_peers_in_pytorch_have_our_number_of_parameters():
    from benchmarks.peers.pytorch import build, count_parameters
    from mlcls_jax.models.counting import summarize

    for name, more in {"PP-LCNet_x1_0_ML": 1280, "ResNet50_ML": 0}.items():
        assert count_parameters(build(name, 80)) == summarize(name)["parameters"] + more


def test_paddle_is_given_our_weights_and_how_to_build_its_model(tmp_path):
    from benchmarks.peers.paddle_process import write_model

    model = models.create("PP-LCNet_x1_0_ML", num_classes=7, image_size=64)
    write_model(model, tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    assert description["name"] == "PPLCNet_x1_0"
    assert (description["class_num"], description["query_num"]) == (7, 7)
    assert (description["in_channels"], description["size"]) == (1280, 64)
    with np.load(tmp_path / "weights.npz") as weights:
        assert weights["fc.input_proj.weight"].shape == (768, 1280, 1, 1)
        assert len(weights.files) == len(model.network.initial) - 1  # but for feature_scale


def test_a_model_that_paddle_is_not_compared_with_is_named(tmp_path):
    from benchmarks.peers.paddle_process import write_model

    with pytest.raises(ValueError, match="PP-LCNet_x0_25_ML: PaddleClas' is not compared"):
        write_model(models.create("PP-LCNet_x0_25_ML", num_classes=7, image_size=64), tmp_path)


def test_accuracy_has_a_row_an_epoch_with_the_spread_between_seeds():
    def run(seed, loss, score):
        scores = {"raw/MultiLabelMAP": score, "ema/MultiLabelMAP": score / 2}
        lines = [
            *({"epoch": e, "loss": loss + d} for e, d in ((0.5, 1), (1.0, -1), (1.5, 2), (2, 0))),
            *({"epoch": e, **scores} for e in (1, 2)),
        ]
        facts = {"path": accuracy.OURS, "seed": seed, "wall_s": 60.0, "images_per_s": 100.0}
        return facts | {"epochs": accuracy.epochs_of(lines)}

    runs = [run(0, 10.0, 0.2), run(1, 12.0, 0.4)]
    assert [row["loss"] for row in runs[0]["epochs"]] == [10.0, 11.0]
    first, second = accuracy.by_epoch(runs)
    assert first["loss"] == "11.00 ± 1.41" and second["loss"] == "12.00 ± 1.41"
    assert second["raw"] == "0.3000 ± 0.1414" and second["ema"] == "0.1500 ± 0.0707"
    (row,) = accuracy.whole(runs)
    assert row["best_mAP"] == "0.3000 ± 0.1414" and row["runs"] == 2
