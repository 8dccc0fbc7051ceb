"""PaddleClas' own model in Paddle Inference: run by Paddle's own Python, driven over its pipes.

python benchmarks/peers/paddle_worker.py FOLDER BATCH THREADS

FOLDER holds what `paddle_process.write_model` wrote: model.json and weights.npz. The model is built
by PaddleClas, given these weights, saved by paddle.jit.save as `mode=export` does there, and opened
with oneDNN. Then each line of standard input is one order in JSON, answered by one line:
{"scores": FILE.npy} gives the scores of these images, {"calls": N} the milliseconds of as many
predictions of them. Needs only Paddle and PaddleClas, since the package around it may not be
installed here.
"""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import paddle


def main() -> None:
    """Build, announce, obey."""
    folder, batch, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    # Paddle writes to standard output, too: what it says goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    layer = build(description, dict(np.load(folder / "weights.npz")))
    shape = [batch, 3, description["size"], description["size"]]
    predictor = open_predictor(layer, shape, folder / "paddle", threads)
    source = predictor.get_input_handle(predictor.get_input_names()[0])
    result = predictor.get_output_handle(predictor.get_output_names()[0])
    images = np.zeros(shape, np.float32)

    def predict() -> np.ndarray:
        source.copy_from_cpu(images)
        predictor.run()
        return result.copy_to_cpu()

    predict()
    print(json.dumps({"version": paddle.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "scores" in order:
            images = np.load(order["scores"])
            answer = predict().tolist()
        else:
            answer = []
            for _ in range(order["calls"]):
                began = time.perf_counter()
                predict()
                answer.append(1000 * (time.perf_counter() - began))
        print(json.dumps(answer), file=answers, flush=True)


def build(description, weights):
    """PaddleClas' model with an ML-Decoder, and scores instead of logits, as it is exported."""
    package = importlib.util.find_spec("paddleclas")
    if package is None:
        raise ImportError("paddleclas is missing: benchmarks/requirements.txt says how to get it")
    sys.path.insert(0, package.submodule_search_locations[0])  # it is written to be run in there
    from ppcls.arch import build_model
    from ppcls.utils import logger

    logger.init_logger()  # ResNet's layers warn
    arch = {"name": description["name"], "class_num": description["class_num"]}
    head = {key: description[key] for key in ("class_num", "in_channels", "query_num")}
    model = build_model({"Arch": arch | {"use_ml_decoder": True}, "MLDecoder": head})
    missing, unused = model.set_state_dict(weights)
    if missing or unused:
        raise ValueError(f"weights missing: {missing}, without use: {unused}")
    model.eval()
    scores = paddle.nn.Sequential(model, paddle.nn.Sigmoid())
    scores.eval()
    return scores


def open_predictor(layer, shape, folder, threads):
    """Paddle Inference on the CPU with oneDNN and all its rewriting of graphs."""
    name = str(folder / "inference")
    paddle.jit.save(layer, name, input_spec=[paddle.static.InputSpec(shape, "float32", "images")])
    description = next(f"{name}{end}" for end in (".json", ".pdmodel") if Path(name + end).exists())
    config = paddle.inference.Config(description, f"{name}.pdiparams")
    config.disable_gpu()
    (getattr(config, "enable_onednn", None) or config.enable_mkldnn)()  # its name before 3.3
    config.set_cpu_math_library_num_threads(threads)
    if hasattr(config, "enable_new_ir"):
        config.enable_new_ir(True)
        config.enable_new_executor()
        config.set_optimization_level(3)
    config.switch_ir_optim(True)
    config.enable_memory_optim()
    config.disable_glog_info()
    return paddle.inference.create_predictor(config)


if __name__ == "__main__":
    main()
