"""Our ONNX graph in Paddle Inference: run by Paddle's own Python, driven over its pipes.

python benchmarks/peers/paddle_worker.py FOLDER BATCH THREADS

FOLDER holds what `paddle_process.write_graph` wrote: nodes.json and weights.npz. The graph is built
anew from paddle's functions, saved by paddle.jit.save and opened with oneDNN. Then each line of
standard input is one order in JSON, answered by one line: {"scores": FILE.npy} gives the scores of
these images, {"calls": N} the milliseconds of as many predictions of them. Needs only NumPy and
Paddle, since the package around it may not be installed here.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import paddle
from paddle.nn import functional


def main() -> None:
    """Build, announce, obey."""
    folder, batch, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    # Paddle writes to standard output, too: what it says goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    description = json.loads((folder / "nodes.json").read_text(encoding="utf-8"))
    layer = Graph(description["nodes"], dict(np.load(folder / "weights.npz")), batch)
    layer.eval()
    shape = [batch, *description["image_shape"]]
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


class Graph(paddle.nn.Layer):
    """Nodes of ONNX by paddle's functions; numbers that no image changes stay NumPy's."""

    def __init__(self, nodes, weights, batch) -> None:
        super().__init__()
        self.nodes, self.batch, self.constants = nodes, batch, {}
        for name, array in weights.items():
            if array.dtype != np.float32:
                self.constants[name] = array
                continue
            initial = paddle.nn.initializer.Assign(array)
            weight = self.create_parameter(list(array.shape), default_initializer=initial)
            self.add_parameter(name, weight)

    def forward(self, images):
        """Scores [B, K] of images [B, 3, H, W] or [B, H, W, 3], as the graph takes them."""
        values = {"images": images, "": None, **self.constants}
        values |= dict(self.named_parameters())
        for node in self.nodes:
            inputs = [values[name] for name in node["inputs"]]
            kind, attributes = node["kind"], node["attributes"]
            if kind == "Shape":
                values[node["output"]] = np.array([self.batch], np.int64)
            elif kind == "ScatterElements":  # sizes with the batch among them
                sizes, places, updates = (np.array(x) for x in inputs)
                sizes[places] = updates
                values[node["output"]] = sizes
            else:
                values[node["output"]] = OPERATIONS[kind](attributes, *inputs)
        return values["scores"]


def _pads(attributes):
    top, left, bottom, right = attributes["pads"]
    return [top, left] if (top, left) == (bottom, right) else [top, bottom, left, right]


def _conv(attributes, x, weight, bias=None):
    return functional.conv2d(
        x,
        weight,
        bias,
        stride=attributes["strides"],
        padding=_pads(attributes),
        dilation=attributes["dilations"],
        groups=attributes["group"],
    )


def _max_pool(attributes, x):
    return functional.max_pool2d(
        x, attributes["kernel_shape"], attributes["strides"], _pads(attributes)
    )


def _clip(_, x, low=None, high=None):
    return paddle.clip(x, *(None if bound is None else float(bound) for bound in (low, high)))


def _layer_norm(attributes, x, weight, bias):
    return functional.layer_norm(x, weight.shape, weight, bias, attributes["epsilon"])


def _slice(_, x, starts, ends, axes=None, steps=None):
    axes = list(range(len(starts))) if axes is None else axes.tolist()
    steps = [1] * len(axes) if steps is None else steps.tolist()
    # A loop by number: Paddle rewrites this function, and knows no zip(strict=True).
    ends = [min(int(ends[i]), x.shape[axes[i]]) for i in range(len(axes))]
    return paddle.strided_slice(x, axes, starts.tolist(), ends, steps)


# kind of ONNX → function (attributes, *inputs)
OPERATIONS = {
    "Add": lambda _, x, y: x + y,
    "Sub": lambda _, x, y: x - y,
    "Mul": lambda _, x, y: x * y,
    "Div": lambda _, x, y: x / y,
    "Erf": lambda _, x: paddle.erf(x),
    "Relu": lambda _, x: functional.relu(x),
    "HardSwish": lambda _, x: functional.hardswish(x),
    "HardSigmoid": lambda a, x: functional.hardsigmoid(x, a["alpha"], a["beta"]),
    "Sigmoid": lambda _, x: functional.sigmoid(x),
    "Softmax": lambda a, x: functional.softmax(x, a["axis"]),
    "MatMul": lambda _, x, y: paddle.matmul(x, y),
    "Gemm": lambda _, x, y, z: paddle.matmul(x, y) + z,
    "Transpose": lambda a, x: paddle.transpose(x, a["perm"]),
    "Reshape": lambda _, x, sizes: paddle.reshape(x, sizes.tolist()),
    "Expand": lambda _, x, sizes: paddle.expand(x, np.broadcast_shapes(x.shape, tuple(sizes))),
    "Concat": lambda a, *x: paddle.concat(x, a["axis"]),
    "Slice": _slice,
    "ReduceMean": lambda a, x: paddle.mean(x, a["axes"], keepdim=True),
    "GlobalAveragePool": lambda _, x: functional.adaptive_avg_pool2d(x, 1),
    "LayerNormalization": _layer_norm,
    "MaxPool": _max_pool,
    "Conv": _conv,
    "Clip": _clip,
}


if __name__ == "__main__":
    main()
