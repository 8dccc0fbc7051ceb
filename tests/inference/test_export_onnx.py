"""Models and single layers as ONNX: the same numbers, in the nodes that runtimes are fast at."""

import json
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.data.frame import Frame
from mlcls_jax.errors import ExportError
from mlcls_jax.groups import Groups, consistent
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.inference.exports import onnx as exported
from mlcls_jax.inference.exports.onnx import convert, export_onnx
from mlcls_jax.models import layers, norms
from mlcls_jax.models.kernels import PLAIN
from mlcls_jax.models.network import Model, Network, flatten, unflatten
from tests.helpers.tiers import need

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), np.uint8)


def make_bundle(name, *, size=(96, 64), labels=7, temperature=1.0, **options):
    """Random weights and statistics that leave no part of the model without effect."""
    small = {"embed_dim": 32, "hidden_dim": 48, "num_heads": 4} if name.endswith("_ML") else {}
    config = ModelConfig(name=name, num_classes=labels, image_size=size, **small, **options)
    network = Network.of(config)
    initial = network.init(0)
    rng = np.random.default_rng(0)

    def disturb(path, array):
        if path.endswith("/var"):
            return np.float32(array * rng.uniform(0.5, 2, array.shape))
        is_kernel = array.ndim > 1 and array.any()  # random already
        return array if is_kernel else np.float32(array + 0.1 * rng.normal(size=array.shape))

    arrays = {path: disturb(path, np.asarray(a)) for path, a in flatten(initial).items()}
    model = Model(network, unflatten(arrays, initial))
    threshold = None if config.task == "single" else (0.5,) * labels
    names = tuple(f"label é {i}" for i in range(labels))
    return Bundle(model, names, threshold, {}, Frame(size), temperature)


def load(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more would wait for each other beside other tests
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def kinds(model):
    return Counter(node.op_type for node in model.graph.node)


def check(layer, *expected, images=IMAGES):
    """`layer` of the images as float32 gives the same in ONNX, by the expected kinds of node."""

    def scores(images):
        return layer(jnp.asarray(images, jnp.float32) / 64 - 2)

    model = convert(scores, images.shape[1:3])
    onnx.checker.check_model(model, full_check=True)
    session = load(model.SerializeToString())
    for count in (1, 3):
        (given,) = session.run(["scores"], {"images": images[:count]})
        np.testing.assert_allclose(given, scores(images[:count]), rtol=1e-5, atol=1e-5)
    found = kinds(model)
    around = {"Cast", "Mul", "Add", "Transpose"}  # of the images, and of the result back to NHWC
    assert set(found) - around == set(expected) - around
    return found


MODELS = [
    ("PP-LCNet_x0_25_ML", {"temperature": 1.7, "query_num": 3}),
    ("PP-LCNet_x1_0", {"task": "single", "temperature": 0.6}),
    ("PP-LCNet_x0_35_ML", {"text_dim": 5, "size": (33, 70)}),
    ("PP-HGNetV2-B0_ML", {"decoder_depth": 2, "trainable_queries": True}),
    ("PP-HGNetV2-B4", {"size": (65, 95)}),
    ("ResNet18", {"labels": 1, "temperature": 9.0}),
    ("ResNet50_ML", {"size": (79, 41)}),
    ("CLIP_tiny_ML", {"memory": "first_patch", "quick_gelu": True}),
    ("CLIP_tiny", {"size": (70, 40)}),
    ("CLIP_tiny_ML", {}),
    ("PP-LCNet_x2_5_ML", {"dtype": "bfloat16"}),
]
QUICK = ("PP-LCNet_x0_25_ML", "PP-LCNet_x1_0", "ResNet18")


def exported_with_scores(name, options, folder):
    """Export a model; return the path of its file, three images, and JAX's scores of them."""
    bundle = make_bundle(name, **options)
    path = export_onnx(bundle, folder / "model.onnx")
    onnx.checker.check_model(path, full_check=True)
    assert [p.name for p in folder.iterdir()] == ["model.onnx"]
    images = np.random.default_rng(1).integers(0, 256, (3, *bundle.image_size, 3), np.uint8)
    if "dtype" in options:  # the file computes in float32 whatever the model does
        bundle = make_bundle(name, **options | {"dtype": "float32"})
    expected = np.asarray(jax.jit(bundle.scores)(bundle.model.variables, images))
    assert expected.std() > 1e-3
    return path, images, expected


@pytest.mark.parametrize(("name", "options"), [case for case in MODELS if case[0] in QUICK])
def test_onnxruntime_gives_the_scores_of_jax(name, options, tmp_path):
    path, images, expected = exported_with_scores(name, options, tmp_path)
    session = load(path)
    for count in (1, 3):
        given = session.run(None, {"images": images[:count]})[0]
        np.testing.assert_allclose(given, expected[:count], atol=2e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(("name", "options"), MODELS)
def test_onnxruntime_and_openvino_give_the_scores_of_jax(name, options, tmp_path):
    openvino = need("openvino")
    path, images, expected = exported_with_scores(name, options, tmp_path)
    session = load(path)
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    other = openvino.Core().compile_model(path, "CPU", options)
    for count in (1, 3):
        given = {"images": images[:count]}
        np.testing.assert_allclose(session.run(None, given)[0], expected[:count], atol=2e-5)
        np.testing.assert_allclose(other(given)["scores"], expected[:count], atol=1e-4)


def test_a_convolutional_network_is_convolutions_with_their_activations():
    bundle = make_bundle("PP-LCNet_x1_0_ML", temperature=2.0)
    found = kinds(convert(lambda x: bundle.scores(bundle.model.variables, x), bundle.image_size))
    assert found["Conv"] == 1 + 13 * 2 + 2 * 2 + 1 + 3  # the head's projections too
    assert found["HardSwish"] == 1 + 13 * 2 + 1
    assert found["GlobalAveragePool"] == found["LayerNormalization"] == 2
    assert found["Transpose"] <= 5
    assert found["Add"] + found["Mul"] <= 10  # none of them on a map but those of squeeze-excite
    assert "BatchNormalization" not in found and "Einsum" not in found


def test_the_file_says_what_it_is(tmp_path):
    bundle = make_bundle("PP-LCNet_x0_25", temperature=1.5)
    model = onnx.load(export_onnx(bundle, tmp_path / "model.onnx"))
    facts = {p.key: json.loads(p.value) for p in model.metadata_props}
    assert facts["labels"] == list(bundle.labels) and facts["threshold"] == [0.5] * 7
    assert facts["temperature"] == 1.5 and facts["image_size"] == [96, 64]
    assert {"mlcls_jax"} <= set(facts)
    (images,), (scores,) = model.graph.input, model.graph.output
    sizes = [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim]
    assert (images.name, sizes) == ("images", ["batch", 96, 64, 3])
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    sizes = [d.dim_param or d.dim_value for d in scores.type.tensor_type.shape.dim]
    assert (scores.name, sizes) == ("scores", ["batch", 7])


def test_a_model_that_does_not_fit_leaves_the_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_text("old")
    monkeypatch.setattr(exported, "MAX_BYTES", 1000)
    with pytest.raises(ExportError, match=r"model.onnx: the weights take .* 2 at most"):
        export_onnx(make_bundle("PP-LCNet_x0_25"), path)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def random(*shape):
    return jnp.asarray(np.random.default_rng(2).normal(size=shape), jnp.float32)


def test_activations_are_one_node():
    check(layers.hardswish, "HardSwish")
    check(layers.hardsigmoid, "HardSigmoid")
    check(jax.nn.relu, "Relu")
    check(jax.nn.relu6, "Clip")
    check(jax.nn.sigmoid, "Sigmoid")
    check(jax.nn.softmax, "Softmax")
    check(layers.quick_gelu, "Sigmoid", "Mul")
    assert check(layers.gelu, "Div", "Erf")["Erf"] == 1


def test_what_almost_is_an_activation_is_written_as_it_stands():
    check(lambda x: x * jnp.clip(x + 2.5, 0, 6) / 6, "Clip")
    check(lambda x: x * jnp.clip(x + 3, 0, 6) / 5, "Clip")
    check(lambda x: (x + 1) * (0.5 + 0.5 * jax.lax.erf(x)), "Erf")
    check(lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True), "Exp", "ReduceSum", "Div")
    check(lambda x: jax.nn.softmax(x, axis=1), "ReduceMax", "Sub", "Exp", "ReduceSum", "Div")
    check(lambda x: jax.nn.gelu(x, approximate=True), "Pow", "Tanh")
    check(lambda x: 1 / (x + 9) - jnp.sqrt(jnp.abs(x)), "Div", "Sqrt", "Abs", "Sub")


def test_batch_norm_and_affine_go_into_the_convolution_beside_them():
    kernel, scale, shift = random(3, 3, 3, 4), random(4), random(4)

    def layer(x):
        return jax.nn.relu(PLAIN.conv2d(x, kernel, stride=2) * scale + shift) * 0.7 - 0.2

    found = check(layer, "Conv", "Clip")
    assert found["Conv"] == 1 and found["Mul"] == 0
    assert found["Add"] == 1  # the images': at the border it differs from what a bias can say
    found = check(lambda x: jax.nn.relu(PLAIN.conv2d(x, kernel) * scale) * -0.7, "Conv", "Relu")
    assert found["Mul"] == 1  # a negative number turns the Relu around


def test_a_convolution_with_two_readers_is_computed_once():
    kernel = random(3, 3, 3, 4)

    def layer(x):
        x = PLAIN.conv2d(x, kernel)
        return jnp.concatenate([x * 2, x + 1, jnp.max(x, (1, 2), keepdims=True) - x], -1)

    assert check(layer, "Conv", "Concat", "ReduceMax", "Sub")["Conv"] == 1


def test_convolutions_of_all_forms():
    assert check(lambda x: x @ random(3, 5), "Conv")["Conv"] == 1
    check(lambda x: PLAIN.conv2d(x, random(2, 2, 3, 4)), "Conv")
    check(lambda x: PLAIN.conv2d(x, random(5, 5, 1, 3), stride=2, groups=3), "Conv")
    depthwise = PLAIN.conv2d, random(3, 3, 1, 3)
    check(lambda x: depthwise[0](x, depthwise[1], groups=3), "Conv")
    images = np.random.default_rng(3).integers(0, 256, (3, 9, 7, 3), np.uint8)
    check(lambda x: PLAIN.conv2d(x, random(3, 3, 3, 2), stride=2), "Conv", images=images)


@pytest.mark.parametrize("pads", [((0, 1), (0, 1)), ((1, 1), (1, 1)), ((1, 0), (0, 0))])
@pytest.mark.parametrize("stride", [1, 2])
def test_max_pooling_never_sees_its_padding(pads, stride):
    def layer(x):
        return jax.lax.reduce_window(
            x - 50,
            -jnp.inf,
            jax.lax.max,
            (1, 2, 2, 1),
            (1, stride, stride, 1),
            ((0, 0), *pads, (0, 0)),
        )

    check(layer, "MaxPool")


def test_means_and_norms():
    check(lambda x: x.mean((1, 2)), "ReduceMean", "Reshape")
    kernel = random(3, 3, 3, 4)
    check(lambda x: PLAIN.conv2d(x, kernel).mean((1, 2)), "Conv", "GlobalAveragePool", "Reshape")
    norm = norms.LayerNorm(3)
    norm.scale[...], norm.bias[...] = random(3), random(3)
    found = check(norm, "LayerNormalization")
    assert found["LayerNormalization"] == 1


def test_attention_and_broadcasting():
    queries, weight = random(1, 5, 8), random(3, 8)

    def layer(x):
        tokens = x.reshape(x.shape[0], -1, 3)[:, 2:40] @ weight
        first = jnp.broadcast_to(queries[:, :1], (x.shape[0], 1, 8))
        tokens = jnp.concatenate([first, tokens], 1)
        asked = jnp.broadcast_to(queries, (x.shape[0], 5, 8))
        return layers.attend(asked, tokens, tokens, num_heads=2)

    check(
        layer,
        "Reshape",
        "Slice",
        "MatMul",
        "Shape",
        "ScatterElements",
        "Expand",
        "Concat",
        "Softmax",
    )
    check(lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)), constant_values=0.5), "Pad")
    check(lambda x: jnp.einsum("bhwc,bwdc->bhd", x, jnp.swapaxes(x, 1, 2) ** 2), "Einsum")
    check(
        lambda x: jnp.broadcast_to(x[:, :, :, None], (*x.shape[:3], 2, 3)) * 2, "Reshape", "Expand"
    )


@pytest.mark.parametrize(("count", "products", "widths"), [(5, 1, {10, 16}), (20, 2, {16})])
def test_few_fixed_queries_go_into_the_weights_of_the_keys(count, products, widths):
    features, queries = random(1, 1, 3, 16), random(1, count, 16)
    keys, values, shift = random(16, 16), random(16, 16), random(16)

    def layer(x):
        tokens = jax.nn.relu(PLAIN.conv2d(x, features)).reshape(x.shape[0], -1, 16)
        asked = jnp.broadcast_to(queries, (x.shape[0], count, 16))
        return layers.attend(asked, tokens @ keys + shift, tokens @ values, num_heads=2)

    assert check(layer, "Conv", "Relu", "Reshape", "Softmax", "MatMul")["MatMul"] == products
    model = convert(lambda x: layer(x.astype(jnp.float32)), IMAGES.shape[1:3])
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    shapes = {weight.name: weight.dims for weight in model.graph.initializer}
    assert {shapes[node.input[1]][0] for node in convolutions} == widths


def test_functions_inside_functions_are_followed():
    @jax.custom_vjp
    def double(x):
        return x * 2

    double.defvjp(lambda x: (double(x), None), lambda _, gradient: (gradient * 2,))
    check(lambda x: jax.jit(lambda x: jax.nn.silu(double(x)))(x), "Sigmoid")


def test_parts_of_a_product_are_products():
    weight = random(3, 6)

    def layer(x):
        parts = jnp.split(x.reshape(x.shape[0], -1, 3)[:, 1:] @ weight + 1, 3, axis=-1)
        rows = jnp.split(parts[0], [20], axis=1)
        return jnp.concatenate([rows[1], parts[1][:, :27] * parts[2][:, :27]], 1)

    assert check(layer, "Reshape", "Slice", "MatMul", "Concat")["MatMul"] == 3


def test_a_reshape_moves_nothing_that_lies_together():
    kernel, weight = random(1, 1, 3, 8), random(8, 8)

    def heads(x):
        x = PLAIN.conv2d(x, kernel)
        tokens = jax.nn.relu(x.reshape(x.shape[0], -1, 8)) @ weight
        return tokens.reshape(x.shape[0], -1, 2, 4).transpose(0, 2, 3, 1)

    found = check(heads, "Conv", "Relu", "Reshape")
    assert (found["Conv"], found["Transpose"]) == (2, 1)
    check(lambda x: heads(x).reshape(x.shape[0], 4, -1), "Conv", "Relu", "Reshape")
    check(lambda x: x.reshape(x.shape[0], 2, 4, 18).sum(2), "Reshape", "ReduceSum")


def test_what_has_no_rule_is_named():
    with pytest.raises(ExportError, match="primitive cumsum of JAX") as caught:
        convert(lambda x: jnp.cumsum(x.astype(jnp.float32), 1), (8, 6))
    assert "cumsum" in caught.value.hint
    with pytest.raises(ExportError, match="computes in bfloat16"):
        convert(lambda x: x.astype(jnp.bfloat16) * 2, (8, 6))
    with pytest.raises(ExportError, match="computes in uint8"):  # it wraps around
        convert(lambda x: x + 250, (8, 6))
    with pytest.raises(ExportError, match="do not depend on the images"):
        convert(lambda x: jnp.ones((x.shape[0], 2)), (8, 6))


@pytest.mark.parametrize(
    "mixing",
    [
        lambda x: x - x.max(0),
        lambda x: x.reshape(-1, 3),
        lambda x: jnp.concatenate([x, x]),
        lambda x: x[:1],
        lambda x: jnp.einsum("bhwc,dhwc->bd", x, x),
        lambda x: jnp.einsum("bhwc,bhwd->cd", x, x),
        lambda x: x * jnp.broadcast_to(random(1, 1, 1, 3), x.shape).sum(0),
    ],
)
def test_scores_that_depend_on_the_rest_of_the_batch_are_refused(mixing):
    with pytest.raises(ExportError, match="images of a batch together"):
        convert(lambda x: mixing(x.astype(jnp.float32)), (8, 6))


def random_function(seed):
    """A chain of operations, some of which read what is further back; its operations repeat."""
    rng = np.random.default_rng(seed)

    def constant(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    def kernel(x):  # [C, 4]
        return constant(x.shape[-1], 4) / x.shape[-1]

    def normalized(x):
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        return centred * jax.lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + 1e-3)

    window = {
        "window_strides": (1, 1),
        "padding": "SAME",
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
    }
    steps = [
        lambda x, old: x * constant(x.shape[-1]) + constant(x.shape[-1]),
        lambda x, old: x * float(rng.uniform(0.5, 2)) - float(rng.normal()),
        lambda x, old: x @ kernel(x),
        lambda x, old: jax.lax.conv_general_dilated(x, kernel(x)[None, None], **window),
        lambda x, old: jnp.clip(x, 0, 1) if rng.integers(2) else jax.nn.relu(x),
        lambda x, old: x * jnp.clip(x + 3, 0, 6) / 6,
        lambda x, old: layers.gelu(x),
        lambda x, old: jax.nn.softmax(x, axis=-1),
        lambda x, old: normalized(x),
        lambda x, old: x + jnp.mean(x, axis=(1, 2), keepdims=True),
        lambda x, old: (x.reshape(x.shape[0], 48, -1) * 0.5).reshape(x.shape),
        lambda x, old: jnp.concatenate([x, old], axis=-1)[..., 1:],
        lambda x, old: x + old if x.shape == old.shape else x - jnp.max(old, -1, keepdims=True),
        lambda x, old: jnp.swapaxes(x, 1, 2).swapaxes(1, 2) / 2,
    ]  # fmt: skip
    chosen = rng.integers(len(steps), size=9)
    state = rng.bit_generator.state

    def function(x):
        rng.bit_generator.state = state  # the same constants each time
        values = [x]
        for step in chosen:
            values.append(steps[step](values[-1], values[rng.integers(len(values))]))
        return values[-1]

    return function


@pytest.mark.parametrize(
    "seed", [0, 1, 2, *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 16))]
)
def test_random_functions_give_the_same_numbers(seed):
    function = random_function(seed)

    def scores(images):
        return function(images.astype(jnp.float32) / 64 - 2)

    session = load(convert(scores, IMAGES.shape[1:3]).SerializeToString())
    (given,) = session.run(["scores"], {"images": IMAGES})
    wanted = np.asarray(jax.jit(scores)(IMAGES))
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_groups_of_labels_are_part_of_the_model():
    groups = Groups((-1, 0, 1, 1, -1), (0, -1, 1, 1, 0))
    weights = jnp.array(np.random.default_rng(1).normal(size=(3, 5)), jnp.float32)

    def scores(images):
        return consistent(images.mean((1, 2)) @ weights, groups)

    check(scores, "ReduceMean", "Reshape", "Gemm", "Clip", "Exp", "Log", "Sub", "Gather", "Min")
