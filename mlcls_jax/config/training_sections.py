"""The sections that say what is trained, on what, and how."""

from dataclasses import dataclass
from typing import Literal

from mlcls_jax.config.field import option


@dataclass(frozen=True, kw_only=True)
class Model:
    """Backbone and head."""

    name: str = option(
        "PP-LCNet_x1_0_ML",
        "architecture; *_ML has the ML-Decoder head, *_CSRA residual attention, *_Q2L Query2Label;"
        " other names have mean pooling",
    )
    task: Literal["multilabel", "single"] = option(
        "multilabel", "multilabel: any number of labels per image; single: exactly one"
    )
    num_classes: int | None = option(None, "number of labels; None: as in the data", min=1)
    parents: tuple[int, ...] = option(
        (), "parent's index of each label, or -1; empty: as in the label file", min=-1
    )
    exclusive: tuple[int, ...] = option(
        (), "exclusive group of each label, or -1; empty: as in the label file", min=-1
    )
    image_size: tuple[int, int] = option(
        (448, 448),
        "height and width; one number sets both",
        min=8,
        max=8192,
    )
    weights: str | None = option(
        None,
        "initial weights: auto, official, backbone (`mlcls weights` lists what is published), none;"
        " a file of Paddle, PyTorch or ours, URL, hf://owner/name@commit, bundle, run",
        path="any",
    )
    initial: Literal["default", "paddle"] = option(
        "default", "distributions of random weights: ours, or the original implementations'"
    )
    weights_strict: bool = option(True, "fail if the weights lack anything other than the head")
    query_num: int = option(80, "ML-Decoder: number of queries, at most one per label", min=0)
    embed_dim: int = option(768, "ML-Decoder, Query2Label: width", min=1)
    hidden_dim: int = option(2048, "ML-Decoder, Query2Label: width of the feed-forward part", min=1)
    num_heads: int = option(
        8, "attention heads; must divide embed_dim; CSRA has 1, 2, 4, 6 or 8", min=1
    )
    encoder_depth: int = option(1, "Query2Label: layers of the encoder", min=0)
    decoder_depth: int = option(
        1, "ML-Decoder, Query2Label: layers of the decoder; the latter's paper has 2", min=1
    )
    csra_lambda: float = option(
        0.1, "CSRA: weight of the attention scores, added to the mean over the map", min=0.0
    )
    head_dropout: float = option(0.1, "dropout rate of the head", min=0.0, max=0.99)
    backbone_dropout: float | None = option(
        None, "dropout rate of the backbone; None: the architecture's", min=0.0, max=0.99
    )
    drop_path: float | None = option(
        None,
        "stochastic depth: probability of skipping the last block of the backbone for an image in"
        " training, smaller for earlier blocks; None: never",
        min=0.0,
        max=0.99,
    )
    strides: tuple[int, ...] | None = option(
        None, "stride of stem and stages; None: the architecture's", min=1, max=2
    )
    trainable_queries: bool = option(
        False, "ML-Decoder: train the queries instead of keeping them fixed"
    )
    text: str | None = option(
        None, "ML-Decoder: model or weights whose text tower embeds the labels' names", path="any"
    )
    text_embeddings: str | None = option(
        None, "ML-Decoder: .npy file [labels, size] that queries are made from", path="local"
    )
    text_dim: int | None = option(
        None, "ML-Decoder: size of the text embeddings; follows text_embeddings", min=1
    )
    memory: Literal["patches", "first_patch"] | None = option(
        None, "CLIP: tokens that the head sees; None: all patches, or what imported weights need"
    )
    quick_gelu: bool | None = option(
        None, "CLIP: OpenAI's activation; None: exact GELU, or what imported weights need"
    )
    activation: Literal["gelu", "tanh_gelu"] | None = option(
        None, "ViT: form of the GELU; None: the architecture's, or what imported weights need"
    )
    position_grid: int | None = option(
        None,
        "ViT: patches per side for which position embeddings are stored; they are resampled to the"
        " images' grid; None: as in the name, or as imported weights have them",
        min=1,
        max=1024,
    )
    dtype: Literal["float32", "bfloat16"] = option(
        "float32", "compute type; parameters and logits stay float32"
    )


@dataclass(frozen=True, kw_only=True)
class Data:
    """Source of images and labels, and how they are read."""

    source: str = option(
        "mlcls",
        "kind of data set: mlcls (own images), packed (of `mlcls pack`), tfds, digits (embedded)",
    )
    dir: str | None = option(
        None,
        "mlcls: folder with images/, label.txt and the lists; packed: folder of the shards;"
        " tfds: data_dir of the builders, None: the library's default",
        path="any",
    )
    train_list: str = option("train.txt", "mlcls: list of training images, in dir", path="local")
    val_list: str = option("val.txt", "mlcls: list of validation images, in dir", path="local")
    label_file: str = option("label.txt", "mlcls: label names, in dir", path="local")
    tfds: str | None = option(None, "tfds: builder and configuration, such as coco/2017")
    train_split: str = option("train", "packed, tfds: split to train on")
    val_split: str = option("validation", "packed, tfds: split to validate on")
    epoch_size: int | None = option(
        None, "images that count as one epoch; None: all training images", min=1
    )
    val_size: int = option(1000, "digits: number of validation images", min=1)
    on_error: Literal["raise", "skip"] = option(
        "raise", "unreadable images: stop the run, or skip and count them"
    )
    fit: Literal["squeeze", "pad", "crop"] = option(
        "squeeze",
        "pictures of another aspect ratio than model.image_size: squeeze them, pad them, or crop"
        " their centre after a resize to resize_short",
    )
    resize_short: int | None = option(
        None,
        "crop: short side before cropping; None: 8/7 of the images' short side, 256 for 224",
        min=8,
        max=16384,
    )
    train_scales: tuple[float, ...] = option(
        (),
        "multi-scale training: factors of model.image_size, such as 0.875,1,1.125; each step draws"
        " one, and sides are rounded to multiples of the network's stride; (): no other sizes",
        min=0.25,
        max=4.0,
    )
    train_resize: Literal["fast", "exact"] = option(
        "fast", "resize of training images: OpenCV's bilinear, or Pillow's as in evaluation"
    )
    augment: tuple[str, ...] = option(
        (),
        "training augmentations, in order: flip, cutout, randaugment_v4, ..., all listed in"
        " docs/augmentation.md; random_resized_crop must be first; (): none",
    )
    repeat_below: float = option(
        0.0,
        "oversample rare labels: images with a label that a share f < repeat_below of the training"
        " images has appear sqrt(repeat_below / f) times per pass, which gets longer; 0: once",
        min=0.0,
        max=1.0,
    )
    unknown: Literal["ignore", "negative", "selective"] = option(
        "ignore",
        "labels of -1 in training: leave them out of the loss, count them as absent, or count them"
        " as absent where that is probably right; see docs/labels.md",
    )
    feature_views: int = option(
        0,
        "train.frozen_backbone: views of each training image, the plain one and augmented ones,"
        " whose feature maps are computed once and kept in the workdir; 0: computed in every step",
        min=0,
        max=100,
    )
    mixup: float = option(0.0, "alpha of Mixup on the device; 0: none", min=0.0, max=100.0)
    cutmix: float = option(0.0, "alpha of CutMix on the device; 0: none", min=0.0, max=100.0)
    mix_probability: float = option(
        1.0, "fraction of batches that Mixup or CutMix is applied to", min=0.0, max=1.0
    )
    threads: int = option(
        4, "threads that read and decode, per process; 0: the main thread", min=0, max=1024
    )
    workers: int = option(
        0, "processes that read and decode; 0: threads of this process", min=0, max=256
    )
    prefetch: int = option(4, "batches read ahead; at least one per thread", min=1, max=1024)

    @property
    def folder(self) -> str:
        """`dir` of a source that needs it: the config was refused without it."""
        assert self.dir is not None
        return self.dir


@dataclass(frozen=True, kw_only=True)
class Train:
    """Length of training, and how often it evaluates, saves and logs."""

    epochs: int = option(40, "passes over the training images", min=1)
    batch_size: int = option(64, "images per step, over all devices", min=1)
    ema_decay: float = option(
        0.9997, "decay of the moving average of the weights; 0: no average", min=0.0, max=0.999999
    )
    frozen_backbone: bool = option(
        False,
        "train only the head; the backbone keeps its weights and statistics, without dropout",
    )
    ema_warmup: bool = option(True, "limit the decay at step t to (1 + t) / (10 + t)")
    resume: bool = option(True, "continue from the checkpoint in the workdir, if there is one")
    resume_from: str | None = option(
        None,
        "kept epoch of another run to continue from, in a new workdir: runs/a/epoch_5",
        path="local",
    )
    eval_epochs: int = option(1, "epochs between evaluations", min=1)
    patience: int | None = option(
        None, "stop after this many evaluations without a better main metric; None: never", min=1
    )
    fit_thresholds: Literal["auto", "always", "never"] = option(
        "auto",
        "choose thresholds for the best model at the end, as mode=thresholds does; auto: only if it"
        " would report every label on every image, or none, and evaluate.threshold is None",
    )
    save_epochs: int = option(1, "epochs between checkpoints", min=1)
    save_steps: int | None = option(
        None, "steps between additional checkpoints within an epoch; None: none", min=1
    )
    keep_checkpoints: int = option(2, "latest checkpoints to keep", min=1)
    keep_epochs: bool = option(
        False, "also keep the checkpoint of every epoch, and its better weights as bundle epoch_<n>"
    )
    log_steps: int = option(10, "steps between log entries", min=1)
    accumulate: int = option(
        1, "gradient accumulation: parts per batch, to save memory; must divide batch_size", min=1
    )
    norm_groups: int = option(
        1,
        "groups of a batch, each with batch statistics of its own, as on as many GPUs;"
        " batch_size / accumulate must be a multiple",
        min=1,
    )
    remat: bool = option(
        False, "recompute the backbone's blocks in the backward pass, to save memory"
    )
    nonfinite: Literal["stop", "skip", "rollback"] = option(
        "stop",
        "non-finite loss or gradient: stop, skip the step, or go back to the last"
        " checkpoint and continue at half the learning rate",
    )
    max_nonfinite: int = option(10, "skip, rollback: how often before the run stops", min=1)
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
    sam_radius: float = option(0.0, "SAM: radius of the neighbourhood (rho); 0: no SAM", min=0.0)
    momentum: float = option(0.9, "momentum: decay of the velocity", min=0.0, max=0.999999)

    learning_rate: float = option(1e-4, "peak learning rate", min=0.0)
    rate_scaling: Literal["none", "linear", "sqrt"] = option(
        "none", "how learning_rate grows with train.batch_size / base_batch_size"
    )
    base_batch_size: int = option(256, "batch size that learning_rate refers to", min=1)
    layer_decay: float = option(
        1.0, "factor of the learning rate from each block to the one before it", min=0.001, max=1.0
    )
    weight_decay: float = option(1e-4, "decay of parameters with two or more axes", min=0.0)
    beta1: float = option(0.9, "AdamW, Lion: decay of the first moment", min=0.0, max=0.999999)
    beta2: float = option(
        0.999,
        "AdamW: decay of the second moment; Lion: of its momentum, usually 0.99",
        min=0.0,
        max=0.999999999,
    )
    epsilon: float = option(1e-8, "AdamW: added to the root of the second moment", min=0.0)
    schedule: Literal["cosine", "linear", "step", "onecycle", "constant"] = option(
        "cosine", "shape of the learning rate over the steps"
    )
    by_epoch: bool = option(False, "change the learning rate only between epochs")
    warmup_epochs: float = option(5.0, "epochs of linear warm-up; not for onecycle", min=0.0)
    warmup_start: float = option(1e-6, "learning rate of the first step of warm-up", min=0.0)
    end_learning_rate: float = option(1e-10, "learning rate at the end", min=0.0)
    peak_fraction: float = option(
        0.2, "onecycle: fraction of the steps before the peak", min=0.001, max=0.999
    )
    divide_factor: float = option(
        25.0, "onecycle: ratio of the peak to the initial learning rate", min=1.0
    )
    three_phase: bool = option(
        False, "onecycle: back to the initial rate, then down to the final one"
    )
    anneal: Literal["cosine", "linear"] = option("cosine", "onecycle: shape of its phases")
    decay_epochs: tuple[int, ...] = option(
        (30, 60, 90), "step: epochs after warm-up at which the rate drops", min=1
    )
    decay_factor: float = option(0.1, "step: factor of the rate at each drop", min=0.0, max=1.0)
    lr_multipliers: tuple[str, ...] = option(
        (), "regex=factor: scale the rate of parameters whose path matches; first match wins"
    )
    clip_norm: float | None = option(
        None, "clip the gradient to this global norm; None: no clipping", min=0.0
    )


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Training loss."""

    name: str = option(
        "asymmetric",
        "auto (chosen at the start), asymmetric (ASL), multilabel (binary cross-entropy),"
        " cross_entropy (model.task=single); focal, angular, two_way, hill,"
        " distribution_balanced, entropy, overlap: see docs/labels.md",
    )
    auto: bool = option(False, "written by runs: this section is what name=auto chose")
    gamma_pos: float = option(0.0, "asymmetric: focusing of positives", min=0.0)
    gamma_neg: float = option(4.0, "asymmetric: focusing of negatives", min=0.0)
    clip: float = option(
        0.05, "asymmetric: probability below which a negative adds no loss", min=0.0, max=0.999
    )
    stop_focal_gradient: bool = option(True, "asymmetric: no gradient through the focusing weight")
    reduction: Literal["sum", "mean"] = option(
        "sum", "asymmetric and other losses per entry: sum or mean over images and labels"
    )
    label_smoothing: float | None = option(
        None, "multilabel, cross_entropy: label smoothing of the targets", min=0.0, max=0.999
    )
    size_sum: bool = option(False, "multilabel: sum over labels instead of mean")
    options: tuple[str, ...] = option(
        (), "further arguments of the loss, such as gamma=2,alpha=0.25 for focal"
    )
    class_weights: str = option(
        "none",
        "weight of each label in the loss: none; inverse or effective, from the number of training"
        " images with the label; or a JSON file of weights by label",
        path="local",
    )
    positive_weight: float | None = option(
        None, "weight of positives in the loss; None: 1", min=0.0
    )


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Distillation: learning from a teacher's scores as well as the targets."""

    teacher: str | None = option(
        None, "run, bundle or hf://owner/name of a model with the same labels", path="model"
    )
    weight: float = option(0.5, "share of the teacher in the loss", min=0.0, max=1.0)
    temperature: float = option(1.0, "divides both models' logits", min=0.01, max=100.0)
    features: float = option(
        0.0, "weight of an additional loss between the pooled feature maps; 0: none", min=0.0
    )


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """Layout of the devices; the product must be their number."""

    data: int = option(-1, "devices that the batch is split over; -1: the rest", min=-1)
    fsdp: int = option(
        1, "devices that the batch and the training state are split over; -1: the rest", min=-1
    )
    tensor: int = option(
        1, "devices that matrices of the head and of ViT are split over; -1: the rest", min=-1
    )


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Profiling."""

    steps: str | None = option(
        None, "first:last step to trace into profile/ of the workdir, such as 10:15"
    )


TRACKERS = ("wandb", "mlflow", "aim")


@dataclass(frozen=True, kw_only=True)
class Log:
    """Logging during training."""

    tensorboard: bool = option(True, "write TensorBoard events to the workdir")
    trackers: tuple[str, ...] = option(
        (), "further trackers for the curves, any of wandb, mlflow, aim; (): none"
    )
    pictures: int = option(16, "validation images drawn with their predictions", min=0, max=256)
