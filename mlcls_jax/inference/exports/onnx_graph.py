"""A jaxpr as a graph of operations on the images, made small before it is written as ONNX.

Whatever does not depend on the images is computed here and now. The rest is rewritten, one
operation after the other, by rules that keep its value: scales and shifts go into the weights
beside them, and what JAX spells out (softmax, layer normalisation, ...) becomes one operation.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from mlcls_jax.errors import ExportError

BATCH = "batch"  # the one size that is not known
NHWC_CONV = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")

Shape = tuple[int | str, ...]


@dataclass(eq=False)
class Op:
    """One operation with one result; `kind` is a primitive of JAX or one that a rule made."""

    kind: str
    inputs: list["Op | np.ndarray"]
    shape: Shape
    params: dict[str, Any] = field(default_factory=dict)
    uses: int = 0  # how many operations read it; weights of one that others read too must stay

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["params"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def x(self) -> "Op":
        """The first input."""
        return self.inputs[0]


def build(traced: ClosedJaxpr) -> Op:
    """The graph of a jaxpr whose one input and one output have a symbolic batch.

    Constants are NumPy arrays; one that JAX repeats for each image has a batch of 1.

    Raises:
      ExportError: it has a primitive without a rule, or mixes the images of a batch.
    """
    (images,) = traced.jaxpr.invars
    source = Op("images", [], _shape(images.aval))
    ops: list[Op] = [source]
    (result,) = _trace(traced.jaxpr, traced.consts, [source], ops)
    if not isinstance(result, Op):
        raise ExportError("the scores do not depend on the images")
    _count_uses(ops, result)
    new: dict[Op, Op] = {source: source}
    for op in ops[1:]:
        if op.uses:
            inputs = [new[i] if isinstance(i, Op) else i for i in op.inputs]
            new[op] = RULES[op.kind](replace(op, inputs=inputs))
    return new[result]


def in_order(result: Op) -> list[Op]:
    """All operations that `result` needs, inputs first."""
    order: dict[Op, None] = {}
    stack = [(result, False)]
    while stack:
        op, is_ready = stack.pop()
        if is_ready:
            order[op] = None
        elif op not in order:
            stack.append((op, True))
            stack += [(i, False) for i in reversed(op.inputs) if isinstance(i, Op)]
    return list(order)


def _count_uses(ops: list[Op], result: Op) -> None:
    result.uses = 1
    for op in reversed(ops):  # users come after what they use
        for operand in op.inputs if op.uses else ():
            if isinstance(operand, Op):
                operand.uses += 1


# From jaxpr to graph


def _trace(jaxpr: Jaxpr, consts: list[Any], inputs: list[Any], ops: list[Op]) -> list[Any]:
    values: dict[Any, Op | np.ndarray] = {}
    values |= zip(jaxpr.constvars, map(np.asarray, consts), strict=True)
    values |= zip(jaxpr.invars, inputs, strict=True)

    def read(atom: Any) -> Any:
        return np.asarray(atom.val) if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        kind, operands = equation.primitive.name, [read(atom) for atom in equation.invars]
        if kind in CALLS:
            params = equation.params
            inner = params.get("jaxpr") or params.get("call_jaxpr") or params["fun_jaxpr"]
            is_closed = isinstance(inner, ClosedJaxpr)
            body, inner_consts = (inner.jaxpr, inner.consts) if is_closed else (inner, [])
            results = _trace(body, inner_consts, operands, ops)
        elif any(isinstance(operand, Op) for operand in operands):
            _check(equation)
            results = list(_operations(equation, operands))
            ops += results
        else:
            results = _compute(equation, operands)
        values |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _compute(equation: JaxprEqn, operands: list[np.ndarray]) -> list[np.ndarray]:
    """The results for a batch of one image: a result that is the same for all."""
    if any(BATCH in _shape(atom.aval) for atom in (*equation.invars, *equation.outvars)):
        _check(equation)
    params = {name: _for_one_image(value) for name, value in equation.params.items()}
    results = equation.primitive.bind(*operands, **params)
    results = results if equation.primitive.multiple_results else [results]
    return [np.asarray(array) for array in results]


def _for_one_image(value: Any) -> Any:
    if type(value) is tuple:
        return tuple(map(_for_one_image, value))
    return 1 if jax.export.is_symbolic_dim(value) else value


def _check(equation: JaxprEqn) -> None:
    """Refuse what has no rule, other types than float32, and what mixes or picks images."""
    kind = equation.primitive.name
    if kind not in RULES and kind != "split":
        raise ExportError(
            f"ONNX: no rule for the primitive {kind} of JAX:"
            f" {', '.join(str(v.aval) for v in equation.invars)}",
            f"Add a rule for {kind} to RULES in {__name__}, or write the model without it.",
        )
    for variable in equation.outvars:
        if _shape(variable.aval).count(BATCH) != 1:
            raise ExportError(f"ONNX: {kind} takes the images of a batch together or apart")
        if variable.aval.dtype != np.float32:
            raise ExportError(f"ONNX: {kind} computes in {variable.aval.dtype}, not float32")


def _operations(equation: JaxprEqn, operands: list[Any]) -> Iterator[Op]:
    kind = equation.primitive.name
    if kind == "split":
        axis, start = equation.params["axis"], 0
        for size, variable in zip(equation.params["sizes"], equation.outvars, strict=True):
            rank = len(variable.aval.shape)
            starts = tuple(start if a == axis else 0 for a in range(rank))
            params = {"start_indices": starts, "is_split": True}
            yield Op("slice", operands, _shape(variable.aval), params)
            start += int(size)
        return
    (variable,) = equation.outvars
    yield Op(kind, operands, _shape(variable.aval), dict(equation.params))


def _shape(aval: Any) -> Shape:
    """Sizes, with BATCH for the symbolic one."""
    if any(jax.export.is_symbolic_dim(n) and str(n) != "b" for n in aval.shape):
        raise ExportError(f"ONNX: {aval} takes the images of a batch together or apart")
    return tuple(BATCH if jax.export.is_symbolic_dim(n) else int(n) for n in aval.shape)


# Rules: each gets an operation whose inputs are done, and gives one of the same value.


def _becomes(op: Op, kind: str, inputs: list[Any], **params: Any) -> Op:
    """What takes the place of `op`."""
    return Op(kind, inputs, op.shape, params, op.uses)


def _keep(op: Op) -> Op:
    return op


def _skip(op: Op) -> Op:
    """The input itself, which the readers of `op` now read."""
    op.x.uses += op.uses - 1
    return op.x


def _cast(op: Op) -> Op:
    return _becomes(op, "cast", op.inputs) if op.x.kind == "images" else _skip(op)


def _arithmetic(op: Op) -> Op:
    """add, sub, mul, div: with a constant, scale * x + shift."""
    left, right = op.inputs
    x, constant = (left, right) if isinstance(left, Op) else (right, left)
    if isinstance(constant, Op):
        return {"mul": _product, "div": _quotient}.get(op.kind, _keep)(op)
    if x.shape != op.shape or (op.kind == "div" and x is right):
        return op
    constant = np.asarray(constant, np.float64)
    if op.kind in ("mul", "div"):
        return _affine(op, x, constant if op.kind == "mul" else 1.0 / constant, 0.0)
    if op.kind == "sub" and x is right:
        return _affine(op, x, -1.0, constant)
    return _affine(op, x, 1.0, constant if op.kind == "add" else -constant)


def _affine(op: Op, x: Op, scale: Any, shift: Any) -> Op:
    """scale * x + shift, put into what gives x where that is possible."""
    scale, shift = _smallest(scale), _smallest(shift)
    if _is(scale, 1) and _is(shift, 0):
        return _skip(replace(op, inputs=[x]))
    if x.kind == "affine":
        return _affine(op, x.x, x.scale * scale, x.shift * scale + shift)
    wide, high = _by_feature(scale), _by_feature(shift)
    if wide is not None and high is not None:
        if _is_flat_map(x):
            inner = _affine(_on_map(op, x), x.x, _row(wide, 4), _row(high, 4))
            return _becomes(op, "reshape", [inner])
        if x.kind in WEIGHTED and x.uses == 1:
            weights = {"weight": np.float32(x.weight * wide), "bias": x.bias * wide + high}
            return _becomes(op, x.kind, x.inputs, **x.params | weights)
    if scale.ndim == shift.ndim == 0:
        if x.kind == "clip" and x.x.kind in WEIGHTED and x.uses == x.x.uses == 1 and scale > 0:
            inner = _affine(x, x.x, scale, shift)
            return _clip(op, inner, x.low * scale + shift, x.high * scale + shift)
        if shift == 0 and (found := _mean(op, x, scale) or _hard_swish(op, x, scale)):
            return found
    return _becomes(op, "affine", [x], scale=scale, shift=shift)


def _mean(op: Op, x: Op, scale: np.ndarray) -> Op | None:
    """sum(x) / n."""
    total = x.x if x.kind == "reshape" else x
    if total.kind != "reduce_sum":
        return None
    if not _is(scale * math.prod(total.x.shape[axis] for axis in total.axes), 1):
        return None
    mean = replace(total, kind="reduce_mean", uses=op.uses)
    return mean if x is total else _becomes(op, "reshape", [mean])


def _hard_swish(op: Op, x: Op, factor_of_x: np.ndarray) -> Op | None:
    """x * clip(x + 3, 0, 6) / 6."""
    if x.kind == "mul" and _is(factor_of_x, 1 / 6):
        for factor, gate in _both_ways(x):
            if gate.kind == "clip" and (gate.low, gate.high) == (0, 6):
                (base, scale, shift), inner = _line(factor), _line(gate.x)
                is_same = inner[0] is base and _close(inner[1], scale)
                if is_same and _close(inner[2], shift + 3):
                    return _becomes(op, "hard_swish", [factor])
    return None


def _product(op: Op) -> Op:
    for x, factor in _both_ways(op):
        if found := _gelu(op, x, factor) or _layer_norm(op, x, factor):
            return found
    return op


def _gelu(op: Op, x: Op, factor: Op) -> Op | None:
    """u * erfc(-u / sqrt(2)) is 2 gelu(u), as erfc(-u) is 1 + erf(u)."""
    is_one_minus = factor.kind == "affine" and _is(factor.scale, -1) and _is(factor.shift, 1)
    if not is_one_minus or factor.x.kind != "erf":
        return None
    base, scale, shift = _line(factor.x.x)
    x_base, x_scale, x_shift = _line(x)
    ratio = _smallest(x_scale / scale)
    if x_base is not base or ratio.ndim or not _close(x_shift, ratio * shift):
        return None
    root = -math.sqrt(2)
    u = _affine(Op("affine", [base], op.shape, uses=1), base, root * scale, root * shift)
    return _affine(op, Op("gelu", [u], op.shape, uses=1), root * ratio, 0.0)


def _layer_norm(op: Op, x: Op, factor: Op) -> Op | None:
    """x * rsqrt(mean(x * x) + eps), where x is y - mean(y), over the last axis."""
    last = (len(op.shape) - 1,)
    if factor.kind != "rsqrt" or factor.x.kind != "affine" or x.kind != "sub":
        return None
    variance, (y, mean) = factor.x.x, x.inputs
    is_norm = (
        _is(factor.x.scale, 1)
        and factor.x.shift.ndim == 0
        and _is_reduced(variance, "reduce_mean", last)
        and variance.x.kind == "mul"
        and all(i is x for i in variance.x.inputs)
        and _is_reduced(mean, "reduce_mean", last)
        and mean.x is y
    )
    if not is_norm:
        return None
    ones, zeros = np.ones(op.shape[-1], np.float32), np.zeros(op.shape[-1], np.float32)
    params = {"weight": ones, "bias": zeros, "epsilon": float(factor.x.shift)}
    return _becomes(op, "layer_norm", [y], **params)


def _quotient(op: Op) -> Op:
    """exp(x - max(x)) / sum(exp(x - max(x))) is the softmax of x; here over the last axis."""
    last = (len(op.shape) - 1,)
    power, total = op.inputs
    is_sum = _is_reduced(total, "reduce_sum", last) and total.x is power
    if is_sum and power.kind == "exp" and power.x.kind == "sub":
        x, top = power.x.inputs
        if _is_reduced(top, "reduce_max", last) and top.x is x:
            return _becomes(op, "softmax", [x])
    return op


def _bound(op: Op) -> Op:
    """max and min: with a number, a clip."""
    for x, bound in (op.inputs, op.inputs[::-1]):
        if isinstance(x, Op) and not isinstance(bound, Op) and np.ndim(_smallest(bound)) == 0:
            bound = float(_smallest(bound))
            return _clip(op, x, bound, np.inf) if op.kind == "max" else _clip(op, x, -np.inf, bound)
    return op


def _clamp(op: Op) -> Op:
    low, x, high = op.inputs
    if isinstance(low, Op) or isinstance(high, Op) or low.ndim or high.ndim:
        raise ExportError("ONNX: no rule for clamp with bounds that are not numbers")
    return _clip(op, x, float(low), float(high))


def _clip(op: Op, x: Op, low: float, high: float) -> Op:
    low, high = float(low), float(high)
    if _is_flat_map(x):
        return _becomes(op, "reshape", [_clip(_on_map(op, x), x.x, low, high)])
    if x.kind == "clip" and max(x.low, low) <= min(x.high, high):
        return _clip(op, x.x, max(x.low, low), min(x.high, high))
    if (low, high) == (-np.inf, np.inf):
        return _skip(replace(op, inputs=[x]))
    if x.kind == "affine" and (low, high) == (0, 1) and x.scale.ndim == x.shift.ndim == 0:
        return _becomes(op, "hard_sigmoid", [x.x], alpha=float(x.scale), beta=float(x.shift))
    return _becomes(op, "clip", [x], low=low, high=high)


def _power(op: Op) -> Op:
    is_square = op.params.get("y", 2) == 2  # `square` has no y
    return _becomes(op, "mul", [op.x, op.x]) if is_square else op


def _erfc(op: Op) -> Op:
    return _affine(op, replace(_becomes(op, "erf", op.inputs), uses=1), -1.0, 1.0)


def _reshape(op: Op) -> Op:
    x = op.x.x if op.x.kind == "reshape" else op.x
    return _skip(replace(op, inputs=[x])) if x.shape == op.shape else _becomes(op, "reshape", [x])


def _broadcast(op: Op) -> Op:
    ones = [1] * len(op.shape)
    for axis, size in zip(op.broadcast_dimensions, op.x.shape, strict=True):
        ones[axis] = size
    inner = _reshape(Op("reshape", op.inputs, tuple(ones), {}, op.uses))
    return inner if inner.shape == op.shape else _becomes(op, "expand", [inner])


def _reduce(op: Op) -> Op:
    """Reductions keep their axes as ones; what JAX drops is dropped by a reshape."""
    is_one = all(op.x.shape[axis] == 1 for axis in op.axes)
    if is_one and len(op.axes) > 1:  # of a map that is one cell
        return _reshape(op)
    kept = tuple(1 if axis in op.axes else size for axis, size in enumerate(op.x.shape))
    return _becomes(op, "reshape", [Op(op.kind, op.inputs, kept, {"axes": tuple(op.axes)}, 1)])


def _slice(op: Op) -> Op:
    if any(step != 1 for step in op.params.get("strides") or ()):
        raise ExportError("ONNX: no rule for a slice with strides")
    starts = tuple(map(int, op.start_indices))
    x = op.x
    is_split = op.params.get("is_split") and op.shape[:-1] == x.shape[:-1]
    if x.kind == "linear" and is_split:  # each part by its own columns
        columns = slice(starts[-1], starts[-1] + op.shape[-1])
        weight, bias = x.weight[:, columns], x.bias[columns]
        return _becomes(op, "linear", x.inputs, weight=weight, bias=bias)
    return _becomes(op, "slice", [x], starts=starts)


def _gather(op: Op) -> Op:
    """With constant indices and whole windows, a slice: what x[:, :1] is for a symbolic batch."""
    x, indices = op.inputs
    names = op.dimension_numbers
    is_slice = not (names.collapsed_slice_dims or names.operand_batching_dims)
    if not is_slice or isinstance(indices, Op) or indices.shape != (len(names.start_index_map),):
        raise ExportError("ONNX: no rule for gather other than a slice")
    starts = [0] * len(x.shape)
    for axis, start in zip(names.start_index_map, indices, strict=True):
        starts[axis] = min(int(start), x.shape[axis] - op.shape[axis])
    return _becomes(op, "slice", [x], starts=tuple(starts))


def _pad(op: Op) -> Op:
    x, value = op.inputs
    if isinstance(value, Op) or any(min(low, high) < 0 or i for low, high, i in op.padding_config):
        raise ExportError("ONNX: no rule for pad other than by a constant at the edges")
    pads = tuple((int(low), int(high)) for low, high, _ in op.padding_config)
    return _becomes(op, "pad", [x], pads=pads, value=float(value))


def _conv(op: Op) -> Op:
    x, kernel = op.inputs
    is_plain = tuple(op.dimension_numbers) == NHWC_CONV and set(op.lhs_dilation) == {1}
    if isinstance(kernel, Op) or not is_plain or op.batch_group_count != 1:
        raise ExportError("ONNX: convolutions must be NHWC, with constant kernels")
    if x.kind == "affine" and x.uses == 1 and op.feature_group_count == 1:
        # scale * (x + shift / scale): zeros around it stay zeros.
        wide, high = _by_feature(x.scale), _by_feature(x.shift)
        if wide is not None and high is not None and np.all(wide):
            wide, high = (np.broadcast_to(v, x.shape[-1:]) for v in (wide, high / wide))
            kernel = kernel * wide[:, None]
            x = _becomes(x, "affine", x.inputs, scale=np.float64(1), shift=_row(high, 4))
    return _becomes(
        op,
        "conv",
        [x],
        weight=kernel,
        bias=np.zeros(kernel.shape[-1], np.float32),
        strides=op.window_strides,
        pads=op.padding,
        dilations=op.rhs_dilation,
        groups=op.feature_group_count,
    )


def _dot(op: Op) -> Op:
    left, right = op.inputs
    (contracted, _), (batched, _) = op.dimension_numbers
    if not isinstance(left, Op):
        return _scores(op, left, right) or op
    if isinstance(right, Op) or batched or right.ndim != 2 or contracted != (len(left.shape) - 1,):
        return op
    weight = right if op.dimension_numbers[0][1] == (0,) else right.T
    if _is_flat_map(left):
        return _becomes(op, "reshape", [_linear(_on_map(op, left), left.x, weight)])
    return _linear(op, left, weight)


def _scores(op: Op, queries: np.ndarray, keys: Op) -> Op | None:
    """Scores [B, h, Q, N] of fixed queries [1, Q, h, d] with keys [B, N, h, d] = x W + b.

    q · (x W + b) is x (W q) + b · q: the queries go into W if that makes fewer multiplications.
    """
    if op.dimension_numbers != (((3,), (3,)), ((0, 2), (0, 2))) or keys.kind != "reshape":
        return None
    linear, (_, tokens, heads, width) = keys.x, keys.shape
    if linear.kind != "linear" or linear.shape[-1] != heads * width or keys.uses * linear.uses != 1:
        return None
    features, count = linear.weight.shape[0], queries.shape[1]
    if count * features >= width * (features + count):
        return None
    products = np.einsum("qhd,ihd->ihq", queries[0], linear.weight.reshape(-1, heads, width))
    shifts = np.einsum("qhd,hd->hq", queries[0], linear.bias.reshape(heads, width))
    weights = {"weight": products.reshape(features, -1), "bias": shifts.reshape(-1)}
    shape = (*linear.shape[:-1], heads * count)
    inner = Op("linear", linear.inputs, shape, weights, 1)
    inner = Op("reshape", [inner], (BATCH, tokens, heads, count), {}, 1)
    return _becomes(op, "transpose", [inner], permutation=(0, 2, 3, 1))


def _linear(op: Op, left: Op, weight: np.ndarray) -> Op:
    bias = np.zeros(weight.shape[1], np.float32)
    if left.kind == "affine":
        wide, high = _by_feature(left.scale), _by_feature(left.shift)
        if wide is not None and high is not None:
            bias = np.broadcast_to(high, weight.shape[:1]) @ weight
            weight = weight * np.broadcast_to(wide, weight.shape[:1])[:, None]
            left = left.x
    return _becomes(op, "linear", [left], weight=weight, bias=bias)


def _is_flat_map(x: Op) -> bool:
    """[B, h, w, C] as [B, N, C]; what is done to each cell is better done to the map.

    There it is a convolution, which needs no other order of axes and has its activation inside.
    """
    if x.kind != "reshape" or len(x.x.shape) != 4 or x.x.shape[0] != BATCH:
        return False
    _, height, width, channels = x.x.shape
    return x.shape[1:] == (height * width, channels)


def _on_map(op: Op, flat: Op) -> Op:
    """`op`, as it is on the map before it was made flat."""
    flat.x.uses = max(flat.x.uses, flat.uses)
    return replace(op, shape=(*flat.x.shape[:-1], op.shape[-1]))


def _max_pool(op: Op) -> Op:
    sizes, strides, pads = op.window_dimensions, op.window_strides, op.padding
    is_plain = set(op.base_dilation) == set(op.window_dilation) == {1}
    if len(sizes) != 4 or not is_plain or {sizes[0], sizes[3], strides[0], strides[3]} != {1}:
        raise ExportError("ONNX: no rule for a window maximum other than over H, W of NHWC")
    return _becomes(
        op, "max_pool", op.inputs, sizes=sizes[1:3], strides=strides[1:3], pads=pads[1:3]
    )


WEIGHTED = ("conv", "linear", "layer_norm")  # weights end with the axis of the features
RULES: dict[str, Callable[[Op], Op]] = {
    **dict.fromkeys(("add", "sub", "mul", "div"), _arithmetic),
    **dict.fromkeys(("max", "min"), _bound),
    **dict.fromkeys(("square", "integer_pow"), _power),
    **dict.fromkeys(("stop_gradient", "copy"), _skip),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshape),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min"), _reduce),
    **dict.fromkeys(("abs", "erf", "exp", "log", "logistic", "rsqrt", "sqrt", "tanh"), _keep),
    **dict.fromkeys(("transpose", "concatenate"), _keep),
    "neg": lambda op: _affine(op, op.x, -1.0, 0.0),
    "clamp": _clamp,
    "erfc": _erfc,
    "convert_element_type": _cast,
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "gather": _gather,
    "pad": _pad,
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "reduce_window_max": _max_pool,
}


# Constants and shapes of patterns


def _smallest(constant: Any) -> np.ndarray:
    """One number if all are equal."""
    constant = np.asarray(constant, np.float64)
    is_one = constant.size and (constant == constant.flat[0]).all()
    return constant.flat[0] if is_one else constant


def _by_feature(constant: np.ndarray) -> np.ndarray | None:
    """One number, or one a feature of the last axis; None: it differs along other axes."""
    if constant.ndim == 0:
        return constant
    return constant.reshape(-1) if constant.shape[-1] == constant.size else None


def _row(vector: np.ndarray, rank: int) -> np.ndarray:
    return vector.reshape((1,) * (rank - 1) + (-1,)) if vector.ndim else vector


def _is(constant: np.ndarray, number: float) -> bool:
    """Whether it is this number but for rounding in float32."""
    return constant.ndim == 0 and math.isclose(constant, number, rel_tol=1e-6)


def _is_reduced(op: "Op | np.ndarray", kind: str, axes: tuple[int, ...]) -> bool:
    return isinstance(op, Op) and op.kind == kind and op.axes == axes


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether they are equal but for rounding in float32."""
    return np.allclose(one, other, rtol=1e-6, atol=1e-7)


def _line(op: Op) -> tuple[Op, np.ndarray, np.ndarray]:
    """What `op` is scale * x + shift of."""
    if op.kind == "affine":
        return op.x, op.scale, op.shift
    return op, np.float64(1), np.float64(0)


def _both_ways(op: Op) -> list[tuple[Op, Op]]:
    left, right = op.inputs
    return [(left, right), (right, left)] if isinstance(left, Op) and isinstance(right, Op) else []
