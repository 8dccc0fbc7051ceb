"""`mlcls --pipeline NAME --input …`: PaddleX' command line, on our models.

Prints each result, and saves picture and JSON where `--save_path` is given; with `--serve` it is a
server; `--get_pipeline_config` writes the file that `--pipeline` takes.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from mlcls_jax import files, usage
from mlcls_jax.errors import InputError
from mlcls_jax.inference.api import PIPELINE, PIPELINES, Pipeline, create_pipeline, pipeline_config
from mlcls_jax.inference.opening import is_weight_file
from mlcls_jax.modes.predict import check_output, open_input
from mlcls_jax.paths import expand, local, local_text
from mlcls_jax.serving import add_arguments, from_arguments, serve
from mlcls_jax.start import start_jax

# The word, and what its help says.
PREDICT = (
    "predict",
    "Print the labels of images; PaddleX' command line, on our models.",
    "predict --model_dir runs/demo/best_model --input photos --save_path output",
)
SERVE = (
    "serve",
    "Answer requests over HTTP, and serve a page to try it.",
    "serve --model_dir runs/demo/best_model --port 8080",
)


def run(argv: list[str]) -> str:
    """Do what the flags ask for.

    Returns:
      What is to be printed at the end.

    Raises:
      InputError, WeightsError, DataError: a flag, the model or an image is wrong.
      SystemExit: the flags do not parse, or ask for help.
    """
    options = _parse(argv)
    if options.get_pipeline_config:
        return _write_config(options.get_pipeline_config, Path(options.save_path or "."))
    if options.save_path:
        check_output(options.save_path)
    # What is to be labelled is looked at first: a model may have to be fetched.
    images = None if options.serve else open_input(options.input)
    threshold = _threshold(options.threshold)
    start_jax(cache=True)
    server = from_arguments(options) if options.serve else None
    pipeline = create_pipeline(
        options.pipeline,
        options.device,
        options.use_hpip,
        model_name=options.model_name,
        model_dir=options.model_dir,
        weights=options.weights,
        labels=options.labels,
        backend=options.backend,
        batch_size=server.max_batch if server else options.batch_size,
    )
    if server:
        serve(pipeline.model, server, announce=lambda text: print(text, flush=True))
        return "The server has answered what was due and is closed."
    return _predict(pipeline, images, threshold, options)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = usage.parser(*(SERVE if "--serve" in argv else PREDICT))
    parser.add_argument("--pipeline", type=expand, default=PIPELINE, help="name, or YAML file")
    parser.add_argument(
        "--model_dir",
        type=lambda given: given if is_weight_file(given) else local_text("--model_dir", given),
        help="a bundle of your own, or a weight file, instead of the pipeline's model",
    )
    parser.add_argument("--model_name", help="a published model; or what --weights are of")
    parser.add_argument(
        "--weights", type=expand, help="a weight file, URL or hf://owner/name, of --model_name"
    )
    parser.add_argument(
        "--labels", type=local("--labels"), help="of --weights: a file of lines `<index> <name>`"
    )
    parser.add_argument("--input", type=expand, help="image, folder, pattern, URL, TIFF or PDF")
    parser.add_argument(
        "--save_path",
        type=local("--save_path"),
        help="folder for a JSON and a picture of each result",
    )
    parser.add_argument(
        "--device", help="cpu, gpu:0, gpu:0,1 or tpu; else the first that JAX finds"
    )
    parser.add_argument("--batch_size", type=int, help="images computed together")
    parser.add_argument("--threshold", help="a number, or JSON: a list, or numbers by label")
    parser.add_argument("--explain", action="store_true", help="where the model looked, by label")
    parser.add_argument("--use_hpip", action="store_true", help="the fastest backend, by measuring")
    parser.add_argument("--backend", help="jax, onnxruntime, openvino or auto")
    parser.add_argument(
        "--on_error", default="raise", choices=("raise", "yield"),
        help="at an image that cannot be read: stop, or report it and go on",
    )  # fmt: skip
    parser.add_argument("--get_pipeline_config", metavar="NAME", help="write its file and end")
    parser.add_argument("--serve", action="store_true", help="answer requests over HTTP")
    add_arguments(parser.add_argument_group("with --serve"))
    options = parser.parse_args(argv)
    if not (options.input or options.serve or options.get_pipeline_config):
        parser.error("one of --input, --serve and --get_pipeline_config is needed")
    return options


def _predict(
    pipeline: Pipeline, images: tuple[Any, Any], threshold: Any, options: argparse.Namespace
) -> str:
    """Print every result; the summary. `images` are as by `open_input`."""
    inputs, save = images
    results = pipeline.predict(
        inputs,
        threshold=threshold,
        explain=options.explain,
        on_error=options.on_error,
    )
    count = broken = 0
    start = time.perf_counter()
    for result in results:
        count += 1
        broken += "error" in result
        result.print()
        if options.save_path:
            save(result, options.save_path)
    seconds = time.perf_counter() - start
    lines = [f"{count:,} images, {count / seconds:.1f}/s, the first start included"]
    if broken:
        lines.append(f"{broken:,} of them could not be read: their results have an error")
    lines.append(
        f"JSON and pictures are in {options.save_path}"
        if options.save_path
        else "--save_path FOLDER keeps a JSON and a picture of each"
    )
    return "; ".join(lines) + "."


def _threshold(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(
            f"--threshold {text}: is no number and no JSON: {error}",
            """For instance 0.4, or '{"default": 0.5, "dog": 0.3}'.""",
        ) from error


def _write_config(name: str, folder: Path) -> str:
    if name not in PIPELINES:
        raise InputError(f"{name}: there is no such pipeline", f"There is {PIPELINE}.")
    path = folder / f"{PIPELINE}.yaml"
    if path.exists():
        raise InputError(f"{path}: is there already", "Move it away, or give another --save_path.")
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(path, pipeline_config())
    return f"{path} is written; edit it, then: mlcls --pipeline {path} --input <image or folder>"
