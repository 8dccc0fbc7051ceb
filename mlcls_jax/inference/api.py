"""`create_model` and `create_pipeline`: three lines of Python from an image to its labels.

Nothing heavy is imported before one of them is called.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcls_jax.errors import InputError
from mlcls_jax.files import regular
from mlcls_jax.parsing import parse_yaml, shorten
from mlcls_jax.paths import expand

if TYPE_CHECKING:
    from mlcls_jax.inference.given_thresholds import Threshold
    from mlcls_jax.inference.opening import Labels
    from mlcls_jax.inference.predictor import OnError, Predictor
    from mlcls_jax.inference.results import Result

PIPELINE = "image_multilabel_classification"
PIPELINES = (PIPELINE, "multi_label_image_classification")  # the second is PaddleX' older name
MODULE = "ImageMultiLabelClassification"  # what a pipeline file calls its only part


def create_model(
    model_name: str | None = None,
    model_dir: str | Path | None = None,
    device: str | None = None,
    threshold: "Threshold | None" = None,
    use_hpip: bool = False,
    *,
    weights: str | Path | None = None,
    labels: "Labels | None" = None,
    backend: str | None = None,
    batch_size: int = 1,
    precision: str = "float32",
) -> "Predictor":
    """Open a model that predicts: `for result in model.predict("photo.jpg"): result.print()`.

    Args:
      model_name: a name such as `PP-LCNet_x1_0_ML`, or the address of a bundle on the Hugging Face
        Hub, `hf://owner/name` or `hf://owner/name@revision`; None: that of `model_dir`.
      model_dir: a bundle, such as `best_model` of a run, or a weight file; None: the published
        model of this name, or `weights`.
      device: `cpu`, `gpu:0`, `gpu:0,1` (one copy per device), `tpu`; None: the first that JAX
        finds.
      threshold: a label is reported if its score is above it: one number, one per label, or a dict
        by class id or label, with "default". None: the bundle's.
      use_hpip: measure the installed backends for a few seconds and take the fastest.
      weights: a weight file of Paddle, PyTorch or ours for `model_name`, its URL, or
        `hf://owner/name`.
      labels: labels of `weights`: a file of lines `<index> <name>`, or the names. None: COCO's if
        there are 80, otherwise numbers. Of a model with a text tower any words; None: those that
        `predict` is given.
      backend: `jax` (the default), `onnxruntime`, `tensorrt`, `openvino`, or `auto`, the same as
        `use_hpip`.
      batch_size: largest batch computed at once, and the default of `predict`.
      precision: `float32`, `bfloat16` or `int8`; `mlcls backends` shows how each changes scores.
        `auto`: bfloat16 on GPUs and TPUs, float32 elsewhere.

    Raises:
      InputError: an option has no such value, or the folder holds another model than the named one.
      WeightsError: bundle or weights are missing or damaged, or the published ones cannot be
        downloaded.
      DataError: the label file is missing or malformed.
    """
    from mlcls_jax.inference.opening import open_model
    from mlcls_jax.inference.predictor import Predictor

    return Predictor(
        open_model(model_name, model_dir, weights, labels),
        device=device,
        backend=backend or ("auto" if use_hpip else "jax"),
        batch_size=batch_size,
        precision=precision,
        threshold=threshold,
    )


class Pipeline:
    """A model with the settings of a pipeline file; `predict` takes {"img": ...}, too."""

    def __init__(self, model: "Predictor") -> None:
        self.model = model

    def predict(
        self,
        input: Any,
        batch_size: int | None = None,
        threshold: "Threshold | None" = None,
        *,
        tta: "Sequence[str]" = (),
        explain: bool = False,
        embeddings: bool = False,
        on_error: "OnError" = "raise",
    ) -> "Iterator[Result]":
        """As `Predictor.predict`; `input` may be a dict {"img": any of its kinds}, or a list."""
        options: dict[str, Any] = {"tta": tta, "explain": explain, "embeddings": embeddings}
        return self.model.predict(input, batch_size, threshold, on_error=on_error, **options)


def create_pipeline(
    pipeline: str | Path = PIPELINE,
    device: str | None = None,
    use_hpip: bool = False,
    *,
    model_name: str | None = None,
    model_dir: str | Path | None = None,
    weights: str | Path | None = None,
    labels: "Labels | None" = None,
    backend: str | None = None,
    batch_size: int | None = None,
    precision: str = "float32",
) -> Pipeline:
    """Open the pipeline of a name or of a YAML file in PaddleX's form; see `pipeline_config`.

    Args:
      pipeline: `image_multilabel_classification` or a `.yaml` file.
      device: as for `create_model`.
      use_hpip: as for `create_model`, like all that is not told here.
      model_name: overrides that of the file, as do `model_dir`, `weights`, `labels` and
        `batch_size`.

    Raises:
      InputError: no such pipeline or file, or a key in it is wrong.
      WeightsError: as `create_model`.
    """
    from mlcls_jax.inference.opening import is_weight_file

    settings = pipeline_settings(pipeline)
    if not (model_name or model_dir or weights):  # else the user means another model
        model_dir = settings["model_dir"]
        # A bundle says itself which model it holds; the file may still have the default's name.
        if not model_dir or is_weight_file(model_dir):
            model_name = settings["model_name"]
        labels = labels or settings["labels"]
    model = create_model(
        model_name,
        model_dir,
        device,
        settings["threshold"],
        use_hpip,
        weights=weights,
        labels=labels,
        backend=backend,
        batch_size=batch_size or settings["batch_size"],
        precision=precision,
    )
    return Pipeline(model)


def pipeline_config() -> str:
    """Return the default pipeline as YAML, to be edited."""
    return f"""\
pipeline_name: {PIPELINE}
SubModules:
  {MODULE}:
    module_name: {PIPELINE}
    model_name: PP-HGNetV2-B6_ML
    model_dir: null  # a bundle of your own, best_model of a run, whatever model_name says;
                     # or a weight file of model_name
    labels: null  # of a weight file: a file of lines `<index> <name>`
    batch_size: 4
    threshold: null  # a number, a list, or numbers by class id or label; null: the model's own
"""


def pipeline_settings(pipeline: str | Path) -> dict[str, Any]:
    """Return the settings of a pipeline by their keys, with defaults for absent ones.

    Raises:
      InputError: no such pipeline or file, or a key in it is wrong.
    """
    content, name = pipeline_config().encode(), expand(str(pipeline))
    if name.endswith((".yaml", ".yml")):
        try:
            content = regular(name).read_bytes()
        except (OSError, ValueError) as error:
            raise InputError(f"{pipeline}: cannot be read: {error}") from error
    elif name not in PIPELINES:
        raise InputError(
            f"{name}: there is no such pipeline", f"Give {PIPELINE}, or a file that ends in .yaml."
        )
    content = parse_yaml(content, pipeline, InputError)
    defaults = {"module_name": PIPELINE, "model_name": None, "model_dir": None}
    defaults |= {"labels": None, "batch_size": 1, "threshold": None}
    try:
        given = content["SubModules"][MODULE]
        found, pipeline_name = dict(given), content["pipeline_name"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{pipeline}: lacks pipeline_name or SubModules.{MODULE}",
            "`mlcls --get_pipeline_config image_multilabel_classification` writes a right one.",
        ) from error
    if pipeline_name not in PIPELINES:
        raise InputError(
            f"{pipeline}: pipeline_name is {shorten(repr(pipeline_name))}, not {PIPELINE}"
        )
    if unknown := [key for key in found if key not in defaults]:
        raise InputError(
            f"{pipeline}: {MODULE} has the unknown key {shorten(repr(unknown[0]))};"
            f" it may have {', '.join(defaults)}"
        )
    settings = defaults | found
    for key in ("model_name", "model_dir"):
        if not isinstance(settings[key], str | None):
            raise InputError(f"{pipeline}: {key} is {shorten(repr(settings[key]))}, not text")
    if type(size := settings["batch_size"]) is not int or size < 1:
        raise InputError(f"{pipeline}: batch_size is {shorten(repr(size))}, not 1 or more")
    return settings
