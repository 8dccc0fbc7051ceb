"""The sections of the modes besides training."""

from dataclasses import dataclass
from typing import Literal

from mlcls_jax.config.field import option
from mlcls_jax.config.tta import HELP as TTA_HELP

Backend = Literal["jax", "onnxruntime", "tensorrt", "openvino", "auto"]
Precision = Literal["auto", "float32", "bfloat16", "int8"]
# Each is the name of a module in mlcls_jax/inference/exports.
EXPORT_FORMATS = ("stablehlo", "onnx", "openvino", "triton", "litert")
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluation, during training and in mode=evaluate."""

    batch_size: int = option(64, "images per batch", min=1)
    map_type: Literal["integral", "11point"] = option(
        "integral", "average precision over all points, or over eleven"
    )
    threshold: float | None = option(
        None,
        "score above which a label counts as predicted; None: the bundle's, 0.5 while training",
        min=0.0,
        max=1.0,
    )
    model_dir: str | None = option(
        None,
        "bundle to evaluate, a run, or hf://owner/name; None: best_model in the workdir",
        path="model",
    )
    labels: tuple[str, ...] = option(
        (), "mode=evaluate: also report the metrics of these labels alone"
    )
    tta: tuple[str, ...] = option((), f"mode=evaluate, thresholds: {TTA_HELP}")
    companions: int = option(
        0,
        "mode=evaluate: mask parts of this many images, such as 200, to measure how much labels"
        " depend on their companions; each takes as long as about 80 images; 0: none",
        min=0,
    )
    report: bool = option(True, "mode=evaluate: write report.html, with plots and mistakes")
    gallery: int = option(
        10_000,
        "mode=evaluate: images to look through next to the report; if there are more, those with"
        " the largest mistakes; 0: none",
        min=0,
    )
    thresholds: bool = option(
        False, "mode=evaluate: choose thresholds at the end, as mode=thresholds does"
    )

    @property
    def training_threshold(self) -> float:
        """The threshold where there is no bundle yet."""
        return DEFAULT_THRESHOLD if self.threshold is None else self.threshold


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """mode=thresholds: how thresholds are chosen on the validation images, for the bundle."""

    objective: Literal["f1", "precision", "recall", "prevalence"] = option(
        "f1",
        "best F1 per class; a target precision or recall with the best of the other; or report each"
        " label as often as it occurs",
    )
    target: float | None = option(None, "target precision or recall, such as 0.9", min=0.0, max=1.0)
    confidence: float | None = option(
        None,
        "recall: guarantee the target for each class with this confidence, such as 0.9, if it has"
        " enough positives; None: no guarantee",
        min=0.5,
        max=0.9999,
    )
    min_positives: int = option(10, "classes with fewer positive images share one threshold", min=1)
    calibrate: bool = option(
        True, "also scale the logits, so that scores are calibrated probabilities"
    )


@dataclass(frozen=True, kw_only=True)
class Predict:
    """mode=predict."""

    input: str | None = option(None, "an image, or a folder of images", path="any")
    model_dir: str | None = option(
        None,
        "bundle to use, a run, hf://owner/name, or a weight file of model.name; None: best_model in"
        " the workdir",
        path="model",
    )
    batch_size: int = option(16, "images per batch", min=1)
    threshold: float | None = option(
        None, "score above which a label is reported; None: the bundle's", min=0.0, max=1.0
    )
    output: str | None = option(
        None, "folder for the results; None: predictions in the workdir", path="local"
    )
    tta: tuple[str, ...] = option((), TTA_HELP)
    explain: bool = option(
        False,
        "draw where the head looked for each label; for heads without attention by masking parts of"
        " the picture, which takes as long as 65 images",
    )
    backend: Backend = option(
        "jax", "runtime; auto: measure briefly, and take the fastest on this machine"
    )
    precision: Precision = option(
        "float32",
        "type of the weights and, with bfloat16, the arithmetic; `mlcls backends` shows the cost",
    )


@dataclass(frozen=True, kw_only=True)
class Export:
    """mode=export: the bundle and other runtimes' files, each verified against JAX's scores."""

    model_dir: str | None = option(
        None,
        "bundle to export, a run, or hf://owner/name; None: best_model in the workdir",
        path="model",
    )
    formats: tuple[str, ...] = option(
        ("stablehlo", "onnx"), f"any of {', '.join(EXPORT_FORMATS)}; the bundle is always written"
    )
    output: str | None = option(
        None, "folder for the files; None: export in the workdir", path="local"
    )
    images: str | None = option(
        None,
        "image or folder of images to verify with; None: two photographs of scikit-learn",
        path="local",
    )


SourceType = Literal[
    "coco", "csv", "cvat", "datumaro", "fiftyone", "folder", "imagenet_txt", "label_studio",
    "labelme", "numbered", "nuswide", "openimages", "parquet", "roboflow", "voc", "webdataset",
    "yolo",
]  # fmt: skip


Dialect = Literal[
    "auto", "pipes", "commas", "semicolons", "spaces", "lists", "single", "columns"
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Conversion to an MLClsDataset, in place, before the check."""

    enable: bool = option(False, "convert data.dir before it is checked")
    source_type: Literal["auto", SourceType] = option(
        "coco",
        "format of the data; auto: detect it, and stop and ask if in doubt; coco: instances files;"
        " csv: lists `path,label|label`; folder: one per class; numbered: PaddleClas'"
        " train_list.txt of lines `path 12`; voc: XML; others: see docs/data.md",
    )
    dialect: Dialect = option(
        "auto",
        "CSV: how labels are written: cat|dog; cat,dog; cat;dog; cat dog; ['cat', 'dog']; one label"
        " per cell; or a column of 0 and 1 per label; auto: detect it, and stop and ask if several"
        " are possible",
    )
    train_annotations: str | None = option(
        None,
        "COCO JSON, CSV or VOC image set of the training images; None: the usual place",
        path="local",
    )
    val_annotations: str | None = option(None, "the same for the validation images", path="local")
    train_images: str | None = option(
        None,
        "folder of the training images, such as train2017, in data.dir or elsewhere; it is linked"
        " from images/; None: the usual place",
        path="local",
    )
    val_images: str | None = option(None, "folder of the validation images", path="local")
    crowd: bool = option(False, "COCO: count boxes around crowds; VOC: objects marked difficult")
    min_area: float = option(
        0.0, "COCO, VOC: ignore boxes, or annotations without one, of fewer pixels", min=0.0
    )
    keep_empty: bool = option(True, "keep images without any label, as rows of zeros")


@dataclass(frozen=True, kw_only=True)
class Split:
    """A new split of all listed images, before the check."""

    enable: bool = option(False, "split the listed images again before the check")
    train_percent: int = option(80, "percentage of training images", min=1, max=100)
    val_percent: int = option(20, "percentage of validation images", min=1, max=100)
    test_percent: int = option(
        0, "percentage of test images; 0: test.txt, if any, stays as it is", min=0, max=98
    )
    folds: int = option(
        0,
        "write this many pairs of lists for cross-validation, fold1_train.txt, fold1_val.txt and so"
        " on, from the training and validation images, whose own lists stay; 0: none",
        min=0,
        max=100,
    )
    stratify: bool = option(True, "keep the share of every label the same in each list")
    group: str | None = option(
        None,
        "regex on image paths; images with the same match (its first group, if it has one)"
        " stay together",
    )


@dataclass(frozen=True, kw_only=True)
class CheckDataset:
    """mode=check_dataset."""

    pixels: bool = option(False, "decode every image, and also look for near duplicates")
    threads: int = option(8, "threads that read images", min=1, max=1024)
    protocol: Literal["coco2014", "coco2017", "voc2007", "nuswide", "openimages"] | None = option(
        None, "public data set that this should be: compare numbers, print the lists' checksums"
    )
    convert: Convert = Convert()
    split: Split = Split()
