"""`mlcls --pipeline NAME --input …`: PaddleX's command line, on our models.

Prints each result, and saves picture and JSON where `--save_path` is given; with `--serve` it is a
server; `--get_pipeline_config` writes the file that `--pipeline` takes.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlcls_jax import files, usage
from mlcls_jax.commands.listing import Format, print_results
from mlcls_jax.config import Precision, add_arguments, from_arguments, json_value, option
from mlcls_jax.config.tta import HELP as TTA_HELP
from mlcls_jax.errors import InputError
from mlcls_jax.inference.api import PIPELINE, PIPELINES, Pipeline, create_pipeline, pipeline_config
from mlcls_jax.paths import local_text
from mlcls_jax.serving import Options, options_of, serve
from mlcls_jax.start import start_jax

if TYPE_CHECKING:
    from mlcls_jax.inference.results import Result

log = logging.getLogger(__name__)

# The word, and what its help says.
PREDICT = (
    "predict",
    "Print the labels of images; PaddleX's command line, on our models. A run or bundle and the"
    " images may stand first, without their flags.",
    "predict runs/photos-1 photos --save_path output",
)
SERVE = (
    "serve",
    "Answer requests over HTTP, and serve a page to try it. A run or bundle may stand first,"
    " without --model_dir.",
    "serve runs/photos-1 --port 8080",
)


def _model_dir(given: str) -> str:
    from mlcls_jax.inference.opening import is_weight_file  # imports JAX, which helps do without

    return given if is_weight_file(given) else local_text("--model_dir", given)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments; a server has `serving.Options` besides."""

    pipeline: str = option(PIPELINE, "name, or YAML file", path="any")
    model_dir: str | None = option(
        None,
        "a bundle, run, inference folder of PaddleX, or weight file, instead of the pipeline's"
        " model",
        parse=_model_dir,
    )
    model_name: str | None = option(None, "a published model; or what --weights are of")
    weights: str | None = option(
        None, "a weight file, URL or hf://owner/name, of --model_name", path="any"
    )
    labels: str | None = option(
        None, "of --weights: a file of lines `<index> <name>`", path="local"
    )
    input: tuple[str, ...] | None = option(
        None, "images, folders, patterns, URLs, TIFF or PDF", path="any"
    )
    save_path: str | None = option(
        None, "folder for a JSON and a picture of each result", path="local"
    )
    format: Format = option(
        "json",
        "how results are printed: json, indented; table, one line per image; jsonl, one object"
        " per line; csv, one row per label",
    )
    device: str | None = option(None, "cpu, gpu:0, gpu:0,1 or tpu; else the first that JAX finds")
    batch_size: int | None = option(None, "images computed together")
    threshold: Any = option(
        None, "a number, or JSON: a list, or numbers by label", parse=json_value
    )
    tta: tuple[str, ...] = option((), TTA_HELP, metavar="VIEW")
    explain: bool = option(False, "where the model looked, by label")
    use_hpip: bool = option(False, "the fastest backend, by measuring")
    backend: str | None = option(None, "jax, onnxruntime, tensorrt, openvino or auto")
    precision: Precision | None = option(
        None,
        "of the weights and, with bfloat16, the arithmetic; auto: bfloat16 on GPUs and TPUs; None:"
        " auto for a server, else float32",
    )
    on_error: Literal["raise", "yield"] = option(
        "raise", "at an image that cannot be read: stop, or report it and continue"
    )
    get_pipeline_config: str | None = option(None, "write its file and end", metavar="NAME")
    serve: bool = option(False, "answer requests over HTTP")


def run(argv: list[str]) -> str:
    """Predict, serve or write a pipeline's file, and return the text to print at the end."""
    options, server = _parse(argv)
    from mlcls_jax.modes.predict import check_output, open_input  # imports JAX

    if options.get_pipeline_config:
        return _write_config(options.get_pipeline_config, Path(options.save_path or "."))
    if options.save_path:
        check_output(options.save_path)
    if server:
        pipeline = _open(options, server.max_batch)
        serve(pipeline.model, server, announce=lambda text: print(text, flush=True))
        return "The server has answered all pending requests and has stopped."
    assert options.input  # or the parser had refused
    images = open_input(*options.input)  # first: a model may have to be fetched
    return _predict(_open(options, options.batch_size), images, options)


def _open(options: Arguments, batch_size: int | None) -> Pipeline:
    start_jax(cache=True)
    return create_pipeline(
        options.pipeline,
        options.device,
        options.use_hpip,
        model_name=options.model_name,
        model_dir=options.model_dir,
        weights=options.weights,
        labels=options.labels,
        backend=options.backend,
        batch_size=batch_size,
        # A server is for speed; what is printed or saved is held against the reference's numbers.
        precision=options.precision or ("auto" if options.serve else "float32"),
    )


def _parse(argv: list[str]) -> tuple[Arguments, Options | None]:
    parser = usage.parser(*(SERVE if "--serve" in argv else PREDICT))
    add_arguments(parser, Arguments)
    add_arguments(parser.add_argument_group("with --serve"), Options)
    parsed = parser.parse_args(argv)
    options = from_arguments(Arguments, parsed)
    if not (options.input or options.serve or options.get_pipeline_config):
        parser.error("one of --input, --serve and --get_pipeline_config is needed")
    return options, options_of(parsed, options.tta) if options.serve else None


def _predict(pipeline: Pipeline, images: tuple[Any, Any], options: Arguments) -> str:
    """Print every result, and return the summary: none where programs read what is printed.

    `images` are those of `open_input`.
    """
    inputs, save = images
    results = pipeline.predict(
        inputs,
        threshold=options.threshold,
        tta=options.tta,
        explain=options.explain,
        on_error=options.on_error,
    )
    count = broken = 0
    start = time.perf_counter()

    def saved() -> "Iterator[Result]":
        nonlocal count, broken
        for result in results:
            count += 1
            broken += "error" in result
            yield result
            if options.save_path:
                save(result, options.save_path)

    print_results(saved(), options.format, width=max(len(str(path)) for path in inputs))
    seconds = time.perf_counter() - start
    told = [f"{count:,} images, {count / seconds:.1f}/s, the first start included"]
    if broken:
        told.append(f"{broken:,} of them could not be read: their results have an error")
    told.append(
        f"JSON and pictures are in {options.save_path}"
        if options.save_path
        else "--save_path FOLDER saves a JSON and a picture of each"
    )
    text = "; ".join(told) + "."
    if options.format == "json":
        return text
    log.info("%s", text)
    return ""


def _write_config(name: str, folder: Path) -> str:
    if name not in PIPELINES:
        raise InputError(f"{name}: there is no such pipeline", f"There is {PIPELINE}.")
    path = folder / f"{PIPELINE}.yaml"
    if path.exists():
        raise InputError(f"{path}: is there already", "Move it away, or give another --save_path.")
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(path, pipeline_config())
    return f"{path} is written; edit it, then: mlcls --pipeline {path} --input <image or folder>"
