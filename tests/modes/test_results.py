"""What each mode's result says in its file and in the terminal."""

import json
from pathlib import Path

import numpy as np

from mlcls_jax.config import Config
from mlcls_jax.inference.exports import Exported
from mlcls_jax.inference.threshold_fit import Fitted
from mlcls_jax.modes.evaluate_result import EvaluateResult
from mlcls_jax.modes.export import ExportResult
from mlcls_jax.modes.thresholds import ThresholdsResult
from mlcls_jax.modes.train_result import TrainResult

WORKDIR = Path("run")
NUMBERS = {"OF1": 0.5, "CF1": 0.25, "OP": 0.5, "OR": 0.5, "CP": 0.125, "CR": 1.0}
FITTED = Fitted(
    model_dir=Path("run/best_model"),
    wanted={"objective": "recall", "images": 9},
    folds=5,
    overall={
        "temperature": {"before": 1.0, "after": 1.5},
        "NLL": {"before": 0.75, "after": 0.5},
        "ECE": {"before": 0.25, "after": 0.125},
        "MultiLabelMAP": {"before": None, "after": None},
    },
    metrics={"before": NUMBERS, "after": NUMBERS, "cross_validated": NUMBERS},
    classes=[{"label": "cat", "note": "recall 0.9 cannot be reached"}],
)


def lines(result) -> list[str]:
    json.dumps(result.to_json(), allow_nan=False)
    return result.summary(Config(), WORKDIR, "mlcls")


def test_an_evaluation_tells_its_metrics_its_page_and_the_thresholds_chosen():
    result = EvaluateResult(
        metrics={"MultiLabelMAP": None, "OF1": 0.5},
        details={"map_type": "integral"},
        images=1234,
        model_dir=Path("run/best_model"),
        skipped_images=["a.png: broken"],
        warnings=["few positives"],
        thresholds=FITTED,
        report=Path("run/evaluate/report.html"),
    )
    told = lines(result)
    assert told[:4] == [
        "MultiLabelMAP    undefined",
        "OF1              0.5000",
        "on 1,234 images; by class in run/evaluate_result.json",
        "  report  run/evaluate/report.html",
    ]
    assert told[-3:] == [
        "warning: few positives",
        "1 unreadable images were left out:",
        "a.png: broken",
    ]
    values = result.to_json()
    assert list(values) == [
        *("MultiLabelMAP", "OF1", "map_type", "images", "model_dir", "skipped_images"),
        *("warnings", "thresholds", "report"),
    ]
    assert values["thresholds"] == FITTED.to_json()


def test_chosen_thresholds_are_told_as_a_table():
    told = lines(ThresholdsResult(FITTED, []))
    assert told[0].split() == ["before", "after", "cross-validated"]
    assert told[1].split() == ["OF1", "0.5000", "0.5000", "0.5000"]
    assert told[-4].split() == ["temperature", "1.0000", "1.5000"]
    assert told[-3:] == [
        "Thresholds and temperature are in run/best_model.",
        "1 labels cannot reach what was wanted.",
        "by class in run/thresholds_result.json",
    ]
    assert list(FITTED.to_json()) == [
        *("model_dir", "objective", "images", "folds", "temperature", "NLL", "ECE"),
        *("MultiLabelMAP", "before", "after", "cross_validated", "classes"),
    ]


def test_an_export_tells_size_and_difference_of_each_file():
    file = Exported(Path("out/model.onnx"), 1_500_000, np.float64(2e-7))
    result = ExportResult(Path("run/best_model"), Path("out"), {"onnx": file})
    assert lines(result) == [
        "  out/model.onnx  1.5 MB, scores within 2e-07 of JAX's",
        "and the bundle, in out; docs/export.md says how each is loaded",
    ]
    assert result.to_json()["files"] == {
        "onnx": {"path": "out/model.onnx", "bytes": 1_500_000, "largest_difference": 2e-7}
    }


def test_a_training_is_read_back_from_its_file():
    result = TrainResult(
        main_metric="Top1", metric=0.5, best_epoch=3, best_weights="ema", epochs=4, steps=8,
        images_per_s=None, seconds=9.0, nonfinite_steps=[7], skipped_images=["a"], warnings=["b"],
        paths={"best_model": "run/best_model"},
    )  # fmt: skip
    values = result.to_json()
    assert values["Top1"] == 0.5 and "metric" not in values
    assert TrainResult.from_json({"done_flag": True, **values}, "Top1") == result
    assert lines(result)[0] == (
        "Top1 0.5000 on the validation images: ema weights of epoch 3, after 9 s."
    )
