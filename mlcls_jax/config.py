"""The schema: every option, its type, default, range and meaning, in one place.

Frozen dataclasses are the truth. `default()` gives the same tree as a locked `ConfigDict`, which
config files fill and `--config.…` flags override; `parse()` checks it and turns it into a `Config`.
The rest of the code sees only `Config`.
"""

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from ml_collections import ConfigDict, config_dict

from mlcls_jax import errors, paths
from mlcls_jax.errors import ConfigError, raise_faults

EXPORT_FORMATS = ("stablehlo", "onnx", "litert")
DEFAULT_THRESHOLD = 0.5


def option(
    default: Any,
    help: str,
    *,
    min: float | None = None,
    max: float | None = None,
    path: Literal["local", "any"] | None = None,
    is_secret: bool = False,
) -> Any:
    """A field with one line of help and, for numbers, the range of its values (ends included).

    `path`: the value is a path, in which `~` and `file://` are written out when it is parsed; of
    this machine, or else (any) its reader may understand other URLs. A secret is left out of the
    `repr`.
    """
    metadata = {"help": help, "min": min, "max": max, "path": path}
    return field(default=default, metadata=metadata, repr=not is_secret)


@dataclass(frozen=True, kw_only=True)
class Model:
    """Backbone and head."""

    name: str = option(
        "PP-LCNet_x1_0_ML", "architecture; *_ML has the ML-Decoder head, else mean pooling"
    )
    task: Literal["multilabel", "single"] = option(
        "multilabel", "labels that occur independently, or exactly one an image"
    )
    num_classes: int | None = option(None, "number of labels; None: as many as the data has", min=1)
    image_size: tuple[int, ...] = option(
        (448, 448),
        "height and width; on the command line one number stands for both",
        min=8,
        max=8192,
    )
    weights: str | None = option(
        None,
        "initial weights: a file of Paddle, PyTorch or ours, URL, hf://owner/name@commit, bundle",
        path="any",
    )
    weights_strict: bool = option(True, "fail if weights lack anything but the head")
    query_num: int = option(80, "ML-Decoder: queries, at most one a label", min=0)
    embed_dim: int = option(768, "ML-Decoder: width", min=1)
    hidden_dim: int = option(2048, "ML-Decoder: width of the feed-forward part", min=1)
    num_heads: int = option(8, "ML-Decoder: attention heads; must divide embed_dim", min=1)
    decoder_depth: int = option(1, "ML-Decoder: layers", min=1)
    head_dropout: float = option(0.1, "dropout rate of the head", min=0.0, max=0.99)
    backbone_dropout: float | None = option(
        None, "dropout rate of the backbone; None: the architecture's", min=0.0, max=0.99
    )
    strides: tuple[int, ...] | None = option(
        None, "stride of stem and stages; None: the architecture's", min=1, max=2
    )
    trainable_queries: bool = option(False, "ML-Decoder: train the queries; the original does not")
    text_embeddings: str | None = option(
        None,
        "ML-Decoder: .npy file [labels, size]; queries are made from these embeddings",
        path="local",
    )
    text_dim: int | None = option(
        None, "ML-Decoder: size of the text embeddings; follows text_embeddings", min=1
    )
    memory: Literal["patches", "first_patch"] | None = option(
        None, "CLIP: tokens that the head sees; None: all patches, or as imported weights want it"
    )
    quick_gelu: bool | None = option(
        None, "CLIP: OpenAI's activation; None: exact GELU, or as imported weights want it"
    )
    dtype: Literal["float32", "bfloat16"] = option(
        "float32", "compute type; parameters and logits stay float32"
    )


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where images and labels come from and how they are read."""

    source: str = option(
        "mlcls",
        "kind of data set: mlcls (own images), packed (of `mlcls pack`), tfds, digits (embedded)",
    )
    dir: str | None = option(
        None,
        "mlcls: folder that holds images/, label.txt and the lists; packed: that of the shards;"
        " tfds: where the builders' data lie, None: the library's default",
        path="any",
    )
    train_list: str = option("train.txt", "mlcls: list of training images, in dir", path="local")
    val_list: str = option("val.txt", "mlcls: list of validation images, in dir", path="local")
    label_file: str = option("label.txt", "mlcls: label names, in dir", path="local")
    tfds: str | None = option(None, "tfds: builder and configuration, coco/2017 for instance")
    train_split: str = option("train", "packed, tfds: split to train on")
    val_split: str = option("validation", "packed, tfds: split to validate on")
    epoch_size: int | None = option(
        None, "images that count as one epoch; None: all training images", min=1
    )
    val_size: int = option(1000, "digits: number of validation images", min=1)
    on_error: Literal["raise", "skip"] = option(
        "raise", "an unreadable image stops the run, or is left out and counted"
    )
    train_resize: Literal["fast", "exact"] = option(
        "fast", "training images: OpenCV's bilinear resize, or Pillow's as in evaluation"
    )
    augment: tuple[str, ...] = option(
        (),
        "training augmentations in order: flip, cutout, randaugment_v4, ..., all of them in"
        " docs/augmentation.md; random_resized_crop stands first; (): none",
    )
    mixup: float = option(0.0, "alpha of Mixup on the device; 0: none", min=0.0, max=100.0)
    cutmix: float = option(0.0, "alpha of CutMix on the device; 0: none", min=0.0, max=100.0)
    mix_probability: float = option(
        1.0, "share of the batches that are mixed, by either of the two", min=0.0, max=1.0
    )
    threads: int = option(
        4, "threads that read and decode, in each process; 0: none beside it", min=0, max=1024
    )
    workers: int = option(
        0, "processes that read and decode; 0: threads of this one do", min=0, max=256
    )
    prefetch: int = option(4, "batches read ahead; at least one a thread", min=1, max=1024)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Length and rhythm of training."""

    epochs: int = option(40, "passes over the training images", min=1)
    batch_size: int = option(64, "images a step, over all devices", min=1)
    ema_decay: float = option(
        0.9997, "decay of the averaged weights; 0: no average is kept", min=0.0, max=0.999999
    )
    ema_warmup: bool = option(True, "let the decay of step t be at most (1 + t) / (10 + t)")
    resume: bool = option(True, "go on from the checkpoint in the workdir, if there is one")
    eval_epochs: int = option(1, "epochs between evaluations", min=1)
    save_epochs: int = option(1, "epochs between checkpoints", min=1)
    save_steps: int | None = option(
        None, "steps between further checkpoints inside an epoch", min=1
    )
    keep_checkpoints: int = option(2, "latest checkpoints to keep", min=1)
    log_steps: int = option(10, "steps between log entries", min=1)
    accumulate: int = option(
        1, "parts that a batch is worked through in, for want of memory; must divide it", min=1
    )
    remat: bool = option(False, "compute the backbone's blocks twice rather than keep them")
    nonfinite: Literal["stop", "skip", "rollback"] = option(
        "stop",
        "a loss or gradient that is no number: stop, leave the step out, or go back to the last"
        " checkpoint and on with half the learning rate",
    )
    max_nonfinite: int = option(10, "skip, rollback: how often, before the run stops", min=1)
    time_limit: float | None = option(
        None, "minutes after which the run saves a checkpoint and ends; None: no limit", min=0.0
    )
    compile_cache: bool = option(True, "keep compiled programs in the user's cache folder")


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Optimizer and learning rate."""

    name: Literal["adamw", "momentum", "lion"] = option(
        "adamw", "AdamW; SGD with momentum and the decay as L2 in the gradient; or Lion"
    )
    sam_radius: float = option(
        0.0, "SAM: step towards the worst near by before the gradient; 0: none", min=0.0
    )
    momentum: float = option(0.9, "momentum: decay of the velocity", min=0.0, max=0.999999)

    learning_rate: float = option(1e-4, "peak learning rate", min=0.0)
    rate_scaling: Literal["none", "linear", "sqrt"] = option(
        "none", "how learning_rate grows with train.batch_size / base_batch_size"
    )
    base_batch_size: int = option(256, "batch size that learning_rate is meant for", min=1)
    layer_decay: float = option(
        1.0, "factor from each block to the one before it", min=0.001, max=1.0
    )
    weight_decay: float = option(1e-4, "decay of parameters with two or more axes", min=0.0)
    beta1: float = option(0.9, "AdamW, Lion: decay of the first moment", min=0.0, max=0.999999)
    beta2: float = option(
        0.999,
        "AdamW: decay of the second moment; Lion: of its only one, 0.99 there",
        min=0.0,
        max=0.999999999,
    )
    epsilon: float = option(1e-8, "AdamW: added to the root of the second moment", min=0.0)
    schedule: Literal["cosine", "linear", "step", "onecycle", "constant"] = option(
        "cosine", "learning rate over the steps"
    )
    by_epoch: bool = option(False, "change the learning rate at the ends of epochs only")
    warmup_epochs: float = option(5.0, "epochs of linear warm-up; not for onecycle", min=0.0)
    warmup_start: float = option(1e-6, "learning rate of the first step of warm-up", min=0.0)
    end_learning_rate: float = option(1e-10, "learning rate at the end", min=0.0)
    peak_fraction: float = option(
        0.2, "onecycle: share of the steps before the peak", min=0.001, max=0.999
    )
    divide_factor: float = option(
        25.0, "onecycle: peak divided by the first learning rate", min=1.0
    )
    three_phase: bool = option(False, "onecycle: down to the first rate, then to the end")
    anneal: Literal["cosine", "linear"] = option("cosine", "onecycle: shape of its phases")
    decay_epochs: tuple[int, ...] = option((30, 60, 90), "step: epochs after warm-up", min=1)
    decay_factor: float = option(0.1, "step: factor at each of them", min=0.0, max=1.0)
    lr_multipliers: tuple[str, ...] = option(
        (), "regex=factor: scale the rate of parameters whose path matches; first match wins"
    )
    clip_norm: float | None = option(
        None, "largest global norm of the gradient; None: no limit", min=0.0
    )


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Training loss."""

    name: str = option(
        "asymmetric",
        "asymmetric (ASL), multilabel (binary cross-entropy), cross_entropy (model.task=single)",
    )
    gamma_pos: float = option(0.0, "asymmetric: focusing of positives", min=0.0)
    gamma_neg: float = option(4.0, "asymmetric: focusing of negatives", min=0.0)
    clip: float = option(
        0.05, "asymmetric: probability below which a negative costs nothing", min=0.0, max=0.999
    )
    stop_focal_gradient: bool = option(True, "asymmetric: take the focusing weight as constant")
    reduction: Literal["sum", "mean"] = option("sum", "asymmetric: over all images and labels")
    label_smoothing: float | None = option(
        None, "multilabel, cross_entropy: smoothing of the targets", min=0.0, max=0.999
    )
    size_sum: bool = option(False, "multilabel: sum over labels instead of mean")


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Learning from a teacher's scores besides the targets."""

    teacher: str | None = option(
        None, "bundle of a trained model with the same labels", path="local"
    )
    weight: float = option(0.5, "share of the teacher in the loss", min=0.0, max=1.0)
    temperature: float = option(1.0, "divides both models' logits", min=0.01, max=100.0)
    features: float = option(
        0.0, "weight of a further loss between the two pooled feature maps; 0: none", min=0.0
    )


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """How devices are laid out; their product must be the number of devices."""

    data: int = option(-1, "devices that share out the batch; -1: the rest", min=-1)
    fsdp: int = option(
        1, "devices that share out the batch and the training state; -1: the rest", min=-1
    )
    tensor: int = option(
        1, "devices that share out the matrices of the head and of ViT; -1: the rest", min=-1
    )


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Looking at where the time goes."""

    steps: str | None = option(
        None, "first:last step to trace, 10:15 for instance, into profile/ of the workdir"
    )


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluation, during training and in mode=evaluate."""

    batch_size: int = option(64, "images a batch", min=1)
    map_type: Literal["integral", "11point"] = option(
        "integral", "average precision: all points, or eleven"
    )
    threshold: float | None = option(
        None,
        "score above which a label counts as predicted; None: the bundle's, 0.5 while training",
        min=0.0,
        max=1.0,
    )
    model_dir: str | None = option(
        None, "bundle to evaluate; None: best_model in the workdir", path="local"
    )
    report: bool = option(True, "mode=evaluate: write report.html, with plots and mistakes")
    thresholds: bool = option(
        False, "mode=evaluate: choose thresholds at the end, as mode=thresholds does"
    )

    @property
    def training_threshold(self) -> float:
        """The threshold where there is no bundle yet."""
        return DEFAULT_THRESHOLD if self.threshold is None else self.threshold


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """mode=thresholds: what is chosen on the validation images and stored in the bundle."""

    objective: Literal["f1", "precision", "recall"] = option(
        "f1", "best F1 of each class; or a wanted precision, or recall, with the most of the other"
    )
    target: float | None = option(
        None, "precision or recall that is wanted, 0.9 for instance", min=0.0, max=1.0
    )
    min_positives: int = option(10, "classes with fewer positive images share one threshold", min=1)
    calibrate: bool = option(True, "scale the logits, too, so that scores are probabilities")


@dataclass(frozen=True, kw_only=True)
class Predict:
    """mode=predict."""

    input: str | None = option(None, "an image, or a folder of images", path="any")
    model_dir: str | None = option(
        None,
        "bundle to use, or weight file of model.name; None: best_model in the workdir",
        path="local",
    )
    batch_size: int = option(16, "images a batch", min=1)
    threshold: float | None = option(
        None, "score above which a label is reported; None: the bundle's", min=0.0, max=1.0
    )
    output: str | None = option(
        None, "folder for the results; None: predictions in the workdir", path="local"
    )
    explain: bool = option(False, "draw where the head looked for each label (ML-Decoder)")
    backend: Literal["jax", "onnxruntime", "openvino", "auto"] = option(
        "jax", "what computes; auto: the fastest here, by a short measurement"
    )
    precision: Literal["float32", "bfloat16", "int8"] = option(
        "float32", "weights, and with bfloat16 the arithmetic; `mlcls backends` shows what it costs"
    )


@dataclass(frozen=True, kw_only=True)
class Export:
    """mode=export: the bundle and other runtimes' files, each verified against JAX' scores."""

    model_dir: str | None = option(
        None, "bundle to export; None: best_model in the workdir", path="local"
    )
    formats: tuple[str, ...] = option(
        ("stablehlo", "onnx"), "some of stablehlo, onnx, litert; the bundle is always there"
    )
    output: str | None = option(
        None, "folder for the files; None: export in the workdir", path="local"
    )
    images: str | None = option(
        None,
        "image or folder of images to verify with; None: two photographs of scikit-learn's",
        path="local",
    )


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Conversion to an MLClsDataset, in place, before the check."""

    enable: bool = option(False, "convert data.dir before it is checked")
    source_type: Literal["coco", "csv", "folder", "voc"] = option(
        "coco",
        "what it is: COCO instances; CSV lists `path,label|label`; a folder a class; VOC XML",
    )
    dialect: Literal[
        *("auto", "pipes", "commas", "semicolons", "spaces", "lists", "single", "columns")
    ] = option(
        "auto",
        "CSV: how labels are written: cat|dog; cat,dog; cat;dog; cat dog; ['cat', 'dog']; one label"
        " a cell; or a column of 0 and 1 for each label of the header; auto: as found, and where"
        " several ways are possible, the run stops and asks",
    )
    train_annotations: str | None = option(
        None,
        "COCO JSON, CSV or VOC image set of the training images; None: the usual place",
        path="local",
    )
    val_annotations: str | None = option(None, "the same of the validation images", path="local")
    train_images: str | None = option(
        None,
        "folder of the training images, train2017 for instance, in data.dir or elsewhere; it is"
        " linked from images/; None: the usual place",
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
    """A new division of all listed images, before the check."""

    enable: bool = option(False, "divide the listed images anew before the check")
    train_percent: int = option(80, "share of the training images", min=1, max=100)
    val_percent: int = option(20, "share of the validation images", min=1, max=100)
    test_percent: int = option(
        0, "share of the test images; 0: test.txt, if any, stays as it is", min=0, max=98
    )
    stratify: bool = option(True, "let every label keep its share in each list")
    group: str | None = option(
        None,
        "regex on image paths; images with the same match (its first group, if it has one)"
        " stay together",
    )


@dataclass(frozen=True, kw_only=True)
class CheckDataset:
    """mode=check_dataset."""

    pixels: bool = option(False, "decode every image, and look for near duplicates, too")
    threads: int = option(8, "threads that read images", min=1, max=1024)
    convert: Convert = Convert()
    split: Split = Split()


@dataclass(frozen=True, kw_only=True)
class Log:
    """What is written down while training."""

    tensorboard: bool = option(True, "write TensorBoard events to the workdir")
    pictures: int = option(
        16, "validation images drawn with their predictions at the end", min=0, max=256
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    mode: Literal["train", "evaluate", "thresholds", "predict", "export", "check_dataset"] = option(
        "train", "what to do"
    )
    seed: int = option(
        0, "fixes initial weights, dropout and the order of the data", min=0, max=2**31 - 1
    )
    model: Model = Model()
    data: Data = Data()
    train: Train = Train()
    optimizer: Optimizer = Optimizer()
    loss: Loss = Loss()
    distill: Distill = Distill()
    parallel: Parallel = Parallel()
    profile: Profile = Profile()
    evaluate: Evaluate = Evaluate()
    thresholds: Thresholds = Thresholds()
    predict: Predict = Predict()
    export: Export = Export()
    check_dataset: CheckDataset = CheckDataset()
    log: Log = Log()


def default() -> ConfigDict:
    """The schema's defaults as a locked `ConfigDict`, for config files to fill."""
    return _to_config_dict(Config).lock()


def parse(values: ConfigDict) -> Config:
    """A checked `Config`.

    Raises:
      ConfigError: lists every fault: unknown key (with the nearest right one), wrong type, value
        out of range, impossible combination.
    """
    faults: list[str] = []
    config = _parse_section(Config, values.to_dict(), "", faults)
    if not faults:
        faults += _contradictions(config)
    if faults:
        raise ConfigError("\n".join(faults), "--helpconfig lists every key with its range.")
    return config


def options(kind: type = Config, prefix: str = "") -> dict[str, dataclasses.Field]:
    """Every option by its dotted name, `train.epochs` for instance."""
    found = {}
    for f in dataclasses.fields(kind):
        if dataclasses.is_dataclass(f.type):
            found |= options(f.type, f"{prefix}{f.name}.")
        else:
            found[prefix + f.name] = f
    return found


def nearest(key: str) -> str | None:
    """The existing option that `key` was most likely meant to be."""
    names = {known: known.rpartition(".")[2] for known in options()}
    name = key.rpartition(".")[2]
    if same_name := [k for k, n in names.items() if n == name]:
        return errors.nearest(key, same_name, cutoff=0.0)
    if close := errors.nearest(key, names):
        return close
    close = errors.nearest(name, names.values())
    return next((k for k, n in names.items() if n == close), None)


def unknown_key(key: str) -> str:
    """The message for a key that the schema does not have."""
    inside = [known for known in options() if known.startswith(f"{key}.")]
    if inside:
        return f"{key}: is a section; it has {', '.join(inside)}"
    suggestion = nearest(key)
    hint = f"did you mean {suggestion}?" if suggestion else "--helpconfig lists the keys."
    return f"{key}: there is no such key; {hint}"


def kind_of(key: str) -> str:
    """What an option's value must be, in words: `int, at least 1`."""
    return _kind_text(options()[key])


def matching(text: str) -> list[str]:
    """The option of this name, those of this section, or else those that contain the text.

    Raises:
      ConfigError: there are none.
    """
    known = options()
    found = [key for key in known if key == text or key.startswith(f"{text}.")]
    found = found or [
        key for key, f in known.items() if text.lower() in f"{key} {f.metadata['help']}".lower()
    ]
    if not found:
        raise ConfigError(unknown_key(text))
    return found


def describe(keys: Collection[str] | None = None, values: Any = None) -> str:
    """The schema as text: key, type, default, range and help, a section a paragraph.

    Args:
      keys: the options to describe; None: all.
      values: a configuration whose values are shown, with the defaults where they differ.
    """
    rows, previous = [], ""
    for key, f in options().items():
        if keys is not None and key not in keys:
            continue
        name = key.rpartition(".")[0]
        if name != previous:
            rows.append("")
            previous = name
        value = f.default if values is None else _at(values, key)
        default = "" if value == f.default else f"; default: {f.default}"
        rows.append(
            f"  --config.{key}={value}  ({_kind_text(f)}{default})\n      {f.metadata['help']}"
        )
    return "\n".join(rows)


def _at(values: Any, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), values)


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dicts, lists and scalars, ready for JSON or YAML."""
    return {
        f.name: to_dict(value) if dataclasses.is_dataclass(value) else _plain(value)
        for f in dataclasses.fields(config)
        for value in [getattr(config, f.name)]
    }


def to_yaml(config: Config) -> str:
    """The configuration as YAML, in the order of the schema."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def from_yaml(path: str) -> ConfigDict:
    """The configuration in a file that `to_yaml` wrote, or a part of one, over the defaults.

    Raises:
      ConfigError: it cannot be read; or lists every unknown key and wrong value.
    """
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: is not a configuration", "It has sections such as `train:`.")
    faults: list[str] = []
    config = _parse_section(Config, given, "", faults)
    raise_faults(ConfigError, [f"{path}: {fault}" for fault in faults])
    values = default()
    values.update_from_flattened_dict({key: _at(config, key) for key in options()})
    return values


def model_from_dict(values: dict[str, Any]) -> Model:
    """The `Model` section from plain values, as stored in a bundle.

    Raises:
      ConfigError: like `parse`.
    """
    faults: list[str] = []
    model = _parse_section(Model, dict(values), "model.", faults)
    if faults:
        raise ConfigError("\n".join(faults))
    return model


def _to_config_dict(kind: type) -> ConfigDict:
    values = ConfigDict()
    for f in dataclasses.fields(kind):
        if dataclasses.is_dataclass(f.type):
            values[f.name] = _to_config_dict(f.type)
        elif f.default is None:  # a plain None could not be overridden by a flag
            values[f.name] = config_dict.placeholder(_base_type(f))
        else:
            values[f.name] = f.default
    return values


def _parse_section(kind: type, values: dict[str, Any], prefix: str, faults: list[str]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    faults += [unknown_key(f"{prefix}{name}") for name in values if name not in fields]
    parsed = {}
    for name, f in fields.items():
        if name not in values:
            continue
        if dataclasses.is_dataclass(f.type) and isinstance(values[name], dict):
            parsed[name] = _parse_section(f.type, values[name], f"{prefix}{name}.", faults)
        elif dataclasses.is_dataclass(f.type):
            faults.append(unknown_key(prefix + name))
        else:
            value, fault = _parse_value(f, values[name])
            parsed[name] = value
            if fault:
                faults.append(f"{prefix}{name}={values[name]!r}: {fault}")
    return kind(**parsed)


def _parse_value(f: dataclasses.Field, value: Any) -> tuple[Any, str | None]:
    """The value in the field's type, and what is wrong with it (None: nothing)."""
    if value is None:
        return None, None if _is_optional(f) else f"must be {_kind_text(f)}"
    base, choices = _base_type(f), _choices(f)
    if base is tuple:
        value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        item = typing.get_args(_bare(f))[0]
        if not all(isinstance(v, item) and not isinstance(v, bool) for v in value):
            return value, f"must be {_kind_text(f)}"
        if len(value) == 1 and item is str and re.fullmatch(r"\w+(,\w+)+", value[0]):
            value = tuple(value[0].split(","))  # names given as one flag: a,b,c
    elif base is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    elif not isinstance(value, base) or (isinstance(value, bool) and base is not bool):
        return value, f"must be {_kind_text(f)}"
    if f.metadata["path"]:
        value = paths.expand(value)
        fault = paths.why_not_local(value)
        if fault and not (f.metadata["path"] == "any" and paths.is_url(value)):
            return value, fault
    if choices and value not in choices:
        close = errors.nearest(str(value), choices)
        hint = f"; did you mean {close}?" if close else ""
        return value, f"must be one of {', '.join(choices)}{hint}"
    low, high = f.metadata["min"], f.metadata["max"]
    for number in value if isinstance(value, tuple) else (value,):
        if (low is not None and not number >= low) or (high is not None and not number <= high):
            return value, f"must be {_kind_text(f)}"
        if isinstance(number, float) and not math.isfinite(number):
            return value, "must be finite"
    return value, None


def _contradictions(config: Config) -> list[str]:
    """Values that are possible alone but not together."""
    model, faults = config.model, []
    if len(model.image_size) not in (1, 2):
        faults.append(f"model.image_size={model.image_size}: must be one number or (height, width)")
    if model.embed_dim % model.num_heads:
        faults.append(
            f"model.num_heads={model.num_heads}: must divide model.embed_dim={model.embed_dim}"
        )
    if (model.task == "single") != (config.loss.name == "cross_entropy"):
        faults.append(
            f"loss.name={config.loss.name}: model.task={model.task} wants "
            + ("cross_entropy" if model.task == "single" else "asymmetric or multilabel")
        )
    if config.train.batch_size % config.train.accumulate:
        faults.append(
            f"train.accumulate={config.train.accumulate}: must divide"
            f" train.batch_size={config.train.batch_size}"
        )
    layout = dataclasses.asdict(config.parallel)
    if list(layout.values()).count(-1) > 1 or 0 in layout.values():
        faults.append(f"parallel: {layout}: one of them may be -1, and none 0")
    if config.profile.steps is not None:
        first, _, last = config.profile.steps.partition(":")
        if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
            faults.append(
                f"profile.steps={config.profile.steps!r}: must be first:last, 10:15 for instance"
            )
    needs_data = config.mode not in ("predict", "export")
    if config.data.source == "mlcls" and config.data.dir is None and needs_data:
        faults.append("data.dir=None: data.source=mlcls needs the folder of the data set")
    if config.data.source == "packed" and config.data.dir is None and needs_data:
        faults.append("data.dir=None: data.source=packed needs the folder of the shards")
    if config.data.dir and config.data.source != "packed" and paths.is_url(config.data.dir):
        faults.append(
            f"data.dir={config.data.dir!r}: {paths.why_not_local(config.data.dir)}."
            " Only data.source=packed is read from there."
        )
    if config.data.source == "tfds" and config.data.tfds is None and needs_data:
        faults.append("data.tfds=None: data.source=tfds needs a builder, coco/2017 for instance")
    if config.mode == "check_dataset" and config.data.source != "mlcls":
        faults.append(
            f"data.source={config.data.source}: mode=check_dataset checks data.source=mlcls"
        )
    split = config.check_dataset.split
    percents = (split.train_percent, split.val_percent, split.test_percent)
    if split.enable and sum(percents) != 100:
        faults.append(
            f"check_dataset.split: train_percent, val_percent and test_percent must add to 100,"
            f" not {' + '.join(map(str, percents))} = {sum(percents)}"
        )
    if split.group is not None:
        try:
            re.compile(split.group)
        except re.error as error:
            faults.append(
                f"check_dataset.split.group={split.group!r}: is not a regular expression: {error}"
            )
    if config.mode == "predict" and config.predict.input is None:
        faults.append("predict.input=None: mode=predict needs an image or a folder")
    if (config.thresholds.target is None) != (config.thresholds.objective == "f1"):
        faults.append(
            f"thresholds.target={config.thresholds.target}: "
            f"thresholds.objective={config.thresholds.objective} wants "
            + ("none" if config.thresholds.objective == "f1" else "a number, 0.9 for instance")
        )
    chooses = config.mode == "thresholds" or config.evaluate.thresholds
    if config.model.task == "single" and chooses:
        faults.append("model.task=single: one label an image has no thresholds to choose")
    if unknown := set(config.export.formats) - {*EXPORT_FORMATS}:
        faults.append(
            f"export.formats has {', '.join(sorted(unknown))}:"
            f" must be some of {', '.join(EXPORT_FORMATS)}"
        )
    for text in config.optimizer.lr_multipliers:
        pattern, _, factor = text.rpartition("=")
        try:
            re.compile(pattern)
            valid = bool(pattern) and 0 <= float(factor) < math.inf
        except (ValueError, re.error):
            valid = False
        if not valid:
            faults.append(
                f"optimizer.lr_multipliers has {text!r}: must be regex=factor,"
                " backbone/conv1=0.1 for instance"
            )
    return faults


def _bare(f: dataclasses.Field) -> Any:
    """The field's type without None."""
    args = [a for a in typing.get_args(f.type) if a is not types.NoneType]
    return args[0] if _is_optional(f) else f.type


def _is_optional(f: dataclasses.Field) -> bool:
    return types.NoneType in typing.get_args(f.type)


def _base_type(f: dataclasses.Field) -> type:
    bare = _bare(f)
    origin = typing.get_origin(bare)
    return str if origin is Literal else origin or bare


def _choices(f: dataclasses.Field) -> tuple[str, ...]:
    bare = _bare(f)
    return typing.get_args(bare) if typing.get_origin(bare) is Literal else ()


def _kind_text(f: dataclasses.Field) -> str:
    """What a value must be, in words: `int, at least 1` or `one of cosine, constant`."""
    base, choices = _base_type(f), _choices(f)
    if choices:
        return f"one of {', '.join(choices)}"
    name = f"tuple of {typing.get_args(_bare(f))[0].__name__}" if base is tuple else base.__name__
    low, high = f.metadata["min"], f.metadata["max"]
    if low is not None and high is not None:
        name += f", {low} to {high}"
    elif low is not None:
        name += f", at least {low}"
    return name + (" or None" if _is_optional(f) else "")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
