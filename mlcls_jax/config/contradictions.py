"""Values that are possible alone but not together."""

import dataclasses
import math
import re
from collections.abc import Iterator

from mlcls_jax import paths
from mlcls_jax.config.mode_sections import EXPORT_FORMATS, Split
from mlcls_jax.config.schema import Config
from mlcls_jax.config.training_sections import TRACKERS
from mlcls_jax.config.tta import tta_faults


def contradictions(config: Config) -> list[str]:
    """Return a message for each combination of values that makes no sense."""
    return [*_in_training(config), *_in_data(config), *_in_modes(config)]


def _in_training(config: Config) -> Iterator[str]:
    model, train = config.model, config.train
    if model.embed_dim % model.num_heads:
        yield f"model.num_heads={model.num_heads}: must divide model.embed_dim={model.embed_dim}"
    if (model.task == "single") != (config.loss.name == "cross_entropy"):
        wanted = "cross_entropy" if model.task == "single" else "another loss"
        yield f"loss.name={config.loss.name}: model.task={model.task} wants {wanted}"
    if config.loss.name == "two_way" and train.accumulate > 1:
        yield (
            f"train.accumulate={train.accumulate}: loss.name=two_way compares the images of a"
            " batch, which must not be divided"
        )
    if config.data.unknown != "ignore" and config.loss.name in ("cross_entropy", "entropy"):
        yield (
            f"data.unknown={config.data.unknown}: loss.name={config.loss.name} has a rule of its"
            " own for labels of -1"
        )
    if train.batch_size % train.accumulate:
        yield (
            f"train.accumulate={train.accumulate}: must divide train.batch_size={train.batch_size}"
        )
    elif train.batch_size // train.accumulate % train.norm_groups:
        yield (
            f"train.norm_groups={train.norm_groups}: must divide the"
            f" {train.batch_size // train.accumulate} images of a batch, or of a part by"
            " train.accumulate"
        )
    if config.data.feature_views:
        yield from _against_features(config)
    if train.resume_from is not None and paths.kept_epoch(train.resume_from) is None:
        yield (
            f"train.resume_from={train.resume_from!r}: must be an epoch of the workdir of another"
            " run, runs/a/epoch_5 for instance; this run gets a new --workdir"
        )
    layout = dataclasses.asdict(config.parallel)
    if list(layout.values()).count(-1) > 1 or 0 in layout.values():
        yield f"parallel: {layout}: one of them may be -1, and none 0"
    if (steps := config.profile.steps) is not None:
        first, _, last = steps.partition(":")
        if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
            yield f"profile.steps={steps!r}: must be first:last, 10:15 for instance"
    for text in config.optimizer.lr_multipliers:
        if not _is_multiplier(text):
            yield (
                f"optimizer.lr_multipliers has {text!r}: must be regex=factor,"
                " backbone/conv1=0.1 for instance"
            )


def _against_features(config: Config) -> Iterator[str]:
    views = config.data.feature_views
    if not config.train.frozen_backbone:
        yield (
            f"data.feature_views={views}: only a backbone that stays gives the same features in"
            " every step; it needs train.frozen_backbone=True"
        )
    if config.data.train_scales:
        yield (
            f"data.feature_views={views}: data.train_scales changes images, which are read but once"
        )
    if (config.data.mixup or config.data.cutmix) and config.data.mix_probability:
        yield (
            f"data.feature_views={views}: data.mixup and data.cutmix mix images, which are read but"
            " once"
        )
    if config.distill.teacher is not None:
        yield f"data.feature_views={views}: distill.teacher sees images, which are read but once"
    if config.train.resume_from is not None:
        yield (
            f"data.feature_views={views}: features are of model.weights, not of the backbone in"
            " train.resume_from"
        )


def _is_multiplier(text: str) -> bool:
    pattern, _, factor = text.rpartition("=")
    try:
        return bool(re.compile(pattern) and pattern) and 0 <= float(factor) < math.inf
    except (ValueError, re.error):
        return False


def _in_data(config: Config) -> Iterator[str]:
    data, needs_data = config.data, config.mode not in ("predict", "export")
    if data.source == "mlcls" and data.dir is None and needs_data:
        yield "data.dir=None: data.source=mlcls needs the folder of the data set"
    if data.source == "packed" and data.dir is None and needs_data:
        yield "data.dir=None: data.source=packed needs the folder of the shards"
    if data.dir and data.source != "packed" and paths.is_url(data.dir):
        yield (
            f"data.dir={data.dir!r}: {paths.why_not_local(data.dir)}."
            " Only data.source=packed is read from there."
        )
    short, least = data.resize_short, min(config.model.image_size)
    if data.fit == "crop" and short is not None and short < least:
        yield (
            f"data.resize_short={short}: must be at least the shorter side of"
            f" model.image_size={config.model.image_size}"
        )
    if data.source == "tfds" and data.tfds is None and needs_data:
        yield "data.tfds=None: data.source=tfds needs a builder, coco/2017 for instance"


def _in_modes(config: Config) -> Iterator[str]:
    if config.mode == "check_dataset" and config.data.source != "mlcls":
        yield f"data.source={config.data.source}: mode=check_dataset checks data.source=mlcls"
    yield from _in_split(config.check_dataset.split)
    if config.mode == "predict" and config.predict.input is None:
        yield "predict.input=None: mode=predict needs an image or a folder"
    yield from tta_faults("evaluate.tta", config.evaluate.tta)
    yield from tta_faults("predict.tta", config.predict.tta)
    thresholds = config.thresholds
    if thresholds.confidence is not None and not (
        thresholds.objective == "recall" and 0 < (thresholds.target or 0) < 1
    ):
        yield (
            f"thresholds.confidence={thresholds.confidence}: guarantees a recall: it wants"
            " thresholds.objective=recall and a target between 0 and 1"
        )
    needs_target = thresholds.objective in ("precision", "recall")
    if (thresholds.target is not None) != needs_target:
        wanted = "a number, 0.9 for instance" if needs_target else "none"
        yield (
            f"thresholds.target={thresholds.target}:"
            f" thresholds.objective={thresholds.objective} wants {wanted}"
        )
    chooses = config.mode == "thresholds" or config.evaluate.thresholds
    if config.model.task == "single" and chooses:
        yield "model.task=single: one label per image has no thresholds to choose"
    if chooses and (config.evaluate.model_dir or "").startswith(paths.HUB):
        yield (
            f"evaluate.model_dir={config.evaluate.model_dir}: thresholds are written into the"
            " bundle: copy it to this machine first, by `mlcls export`"
        )
    if unknown := set(config.export.formats) - {*EXPORT_FORMATS}:
        known = ", ".join(EXPORT_FORMATS)
        yield f"export.formats has {', '.join(sorted(unknown))}: must be some of {known}"
    if unknown := set(config.log.trackers) - {*TRACKERS}:
        known = ", ".join(TRACKERS)
        yield f"log.trackers has {', '.join(sorted(unknown))}: must be some of {known}"


def _in_split(split: Split) -> Iterator[str]:
    percents = (split.train_percent, split.val_percent, split.test_percent)
    if split.enable and sum(percents) != 100:
        yield (
            f"check_dataset.split: train_percent, val_percent and test_percent must add to 100,"
            f" not {' + '.join(map(str, percents))} = {sum(percents)}"
        )
    if split.folds == 1:
        yield "check_dataset.split.folds=1: at least 2 folds divide anything; 0: none"
    if split.group is not None:
        try:
            re.compile(split.group)
        except re.error as error:
            yield (
                f"check_dataset.split.group={split.group!r}: is not a regular expression: {error}"
            )
