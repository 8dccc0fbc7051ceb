"""Convolution padded by k - 1 in all: as XLA has it, and in the forms that CPUs compute faster.

An odd kernel pads both sides alike; an even one pads one more below and on the right.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlcls_jax.models.kernels.depthwise import depthwise_shifted
from mlcls_jax.models.kernels.product import matmul_on_cpus
from mlcls_jax.models.kernels.windows import (
    Taps,
    by_phases,
    output_shape,
    pad,
    padding,
    squares_to_channels,
    window,
)


def conv2d(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k i D"], *, stride: int = 1, groups: int = 1
) -> Float[Array, "B h w D"]:
    """Return the convolution as XLA computes it best; 1 x 1 is a product with a matrix."""
    if kernel.shape[0] == stride == groups == 1:
        return x @ kernel[0, 0]
    return xla_conv2d(x, kernel, stride=stride, groups=groups)


def conv2d_portable(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k i D"], *, stride: int = 1, groups: int = 1
) -> Float[Array, "B h w D"]:
    """Return the same; depthwise, the program holds both forms, and the platform takes its own."""
    if not _is_depthwise(x, kernel, groups):
        return conv2d(x, kernel, stride=stride, groups=groups)
    cpu, default = (partial(f, stride=stride, groups=groups) for f in (conv2d_on_cpus, conv2d))
    return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def conv2d_on_cpus(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k i D"], *, stride: int = 1, groups: int = 1
) -> Float[Array, "B h w D"]:
    """Return the same: 1 x 1, with strides too, by matrix products; depthwise by shifted products.

    XLA's CPU matrix product beats its 1 x 1 convolution, with strides and in gradients by far, and
    the gradient of its convolution in groups, which takes ten to two hundred times as long. With
    strides, `conv2d_by_hand` gives its input's gradient.
    """
    if kernel.shape[0] == groups == 1:
        return matmul_on_cpus(x if stride == 1 else x[:, ::stride, ::stride], kernel[0, 0])
    if _is_depthwise(x, kernel, groups):
        return depthwise_shifted(x, kernel[:, :, 0], stride)
    if groups > 1:
        return conv2d_in_groups(x, kernel, stride, groups)
    if stride > 1:
        return conv2d_by_hand(x, kernel, stride, False)
    return xla_conv2d(x, kernel, stride=stride)


def conv2d_on_one_cpu(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k i D"], *, stride: int = 1, groups: int = 1
) -> Float[Array, "B h w D"]:
    """Return the same, with gradients of kernels summed by rows where that is faster.

    Measured on AVX-512 cores. Several devices would exchange each row's sum.
    """
    size, channels = kernel.shape[0], kernel.shape[-1]
    if groups == 1 and (size > 3 or (size == 3 and 32 < channels < 512)):
        return conv2d_by_hand(x, kernel, stride, True)
    return conv2d_on_cpus(x, kernel, stride=stride, groups=groups)


def conv2d_on_nvidia(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k i D"], *, stride: int = 1, groups: int = 1
) -> Float[Array, "B h w D"]:
    """Return the same; that of an image, with stride 2, by squares of 2 x 2 pixels as channels.

    Tensor cores take eight channels at a time: of three, most of what they multiply is padding.
    """
    if groups == 1 and stride == 2 and kernel.shape[0] > 1 and x.shape[-1] <= 4:
        return conv2d_of_squares(x, kernel)
    return conv2d(x, kernel, stride=stride, groups=groups)


def conv2d_of_squares(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k C D"]
) -> Float[Array, "B h w D"]:
    """Return the convolution of stride 2 as one of stride 1 over squares of 2 x 2 pixels."""
    size, channels = kernel.shape[0], kernel.shape[2]
    half, before = (size + 1) // 2, padding(size)[0]
    sides = output_shape(x.shape[1], x.shape[2], 2)
    around = [
        (before, 2 * (out + half - 1) - side - before)
        for out, side in zip(sides, x.shape[1:3], strict=True)
    ]
    fill = (0, -channels % 2)  # so that there are eight channels, or sixteen
    x = squares_to_channels(jnp.pad(x, ((0, 0), *around, fill)), 2)
    more = (0, 2 * half - size)
    kernel = jnp.pad(kernel, (more, more, fill, (0, 0)))
    kernel = kernel.reshape(half, 2, half, 2, -1, kernel.shape[-1]).transpose(0, 2, 1, 3, 4, 5)
    return jax.lax.conv_general_dilated(
        x,
        kernel.reshape(half, half, -1, kernel.shape[-1]),
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _is_depthwise(x: Array, kernel: Array, groups: int) -> bool:
    return groups == x.shape[-1] == kernel.shape[-1]


def xla_conv2d(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k i D"], *, stride: int = 1, groups: int = 1
) -> Float[Array, "B h w D"]:
    """Return the convolution as one of XLA's operations."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=(padding(kernel.shape[0]),) * 2,
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d_in_groups(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k i D"], stride: int, groups: int
) -> Float[Array, "B h w D"]:
    """`xla_conv2d`, with the gradient of one product of matrices for each group."""
    return xla_conv2d(x, kernel, stride=stride, groups=groups)


def _grouped_forward(
    x: Array, kernel: Array, stride: int, groups: int
) -> tuple[Array, tuple[Array, Array]]:
    return conv2d_in_groups(x, kernel, stride, groups), (x, kernel)


def _grouped_backward(
    stride: int, groups: int, saved: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:
    return jax.vjp(partial(_by_products, stride=stride, groups=groups), *saved)[1](grad)


conv2d_in_groups.defvjp(_grouped_forward, _grouped_backward)


def _by_products(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k i D"], *, stride: int, groups: int
) -> Float[Array, "B h w D"]:
    size, _, width, out_channels = kernel.shape
    height, columns = output_shape(x.shape[1], x.shape[2], stride)
    x = pad(x, size)
    x = x.reshape(*x.shape[:3], groups, width).transpose(3, 0, 1, 2, 4)  # [groups, B, P, R, i]
    joined = x.reshape(-1, *x.shape[2:])
    taps = [(i, j) for i in range(size) for j in range(size)]
    windows = [window(joined, i, j, height, columns, (stride, stride)) for i, j in taps]
    windows = jnp.concatenate(windows, -1).reshape(groups, -1, size * size * width)
    kernels = kernel.reshape(-1, groups, out_channels // groups).transpose(1, 0, 2)
    y = (windows @ kernels).reshape(groups, x.shape[1], height, columns, -1)
    return y.transpose(1, 2, 3, 0, 4).reshape(x.shape[1], height, columns, out_channels)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d_by_hand(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k C D"], stride: int, by_rows: bool
) -> Float[Array, "B h w D"]:
    """`xla_conv2d`, with gradients in forms that XLA on CPUs computes faster than its own.

    With strides, XLA puts zeros between the gradient's pixels and multiplies by them; here each
    phase of the input has a convolution of its own. The gradient of a kernel is to XLA a
    convolution with a window as large as the map; `by_rows`, a loop over rows of the output sums
    it, which is faster where channels are few and maps large: four times for a 7 x 7 stem.
    """
    return xla_conv2d(x, kernel, stride=stride)


def _forward(
    x: Array, kernel: Array, stride: int, by_rows: bool
) -> tuple[Array, tuple[Array, Array]]:
    return conv2d_by_hand(x, kernel, stride, by_rows), (x, kernel)


@partial(jax.jit, static_argnums=(0, 1))
def _backward(
    stride: int, by_rows: bool, saved: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    if by_rows:
        kernel_grad = _kernel_gradient(x, kernel, grad, stride)
    else:
        of_kernel = partial(xla_conv2d, x, stride=stride)
        (kernel_grad,) = jax.linear_transpose(of_kernel, kernel)(grad)
    if 1 < stride <= kernel.shape[0]:
        return _input_gradient(x.shape, kernel, grad, stride), kernel_grad
    (x_grad,) = jax.linear_transpose(lambda x: xla_conv2d(x, kernel, stride=stride), x)(grad)
    return x_grad, kernel_grad


conv2d_by_hand.defvjp(_forward, _backward)


def _input_gradient(
    shape: tuple[int, ...], kernel: Array, grad: Float[Array, "B h w D"], stride: int
) -> Float[Array, "B H W C"]:
    turned = kernel[::-1, ::-1].swapaxes(2, 3)  # [k, k, D, C]: as taps descend, windows ascend

    def one_of(rows: Taps, columns: Taps) -> Array:
        top, left = (len(turned) - 1 - taps[-1][0] for taps in (rows, columns))
        return jax.lax.conv_general_dilated(
            grad,
            turned[top::stride, left::stride],
            window_strides=(1, 1),
            padding=[(-taps[-1][1], taps[0][1]) for taps in (rows, columns)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    return by_phases(shape, kernel.shape[0], stride, one_of)


def _kernel_gradient(
    x: Float[Array, "B H W C"], kernel: Array, grad: Float[Array, "B h w D"], stride: int
) -> Float[Array, "k k C D"]:
    size, _, in_channels, out_channels = kernel.shape
    height, width = grad.shape[1:3]
    padded = pad(x, size)
    taps = [(i, j) for i in range(size) for j in range(size)]
    dtype = jnp.promote_types(grad.dtype, jnp.float32)

    def add_row(row: Array, total: Array) -> Array:
        grads = jax.lax.dynamic_slice_in_dim(grad, row, 1, axis=1)  # [B, 1, w, D]
        rows = jax.lax.dynamic_slice_in_dim(padded, row * stride, size, axis=1)  # [B, k, R, C]
        windows = [window(rows, i, j, 1, width, (1, stride)) for i, j in taps]
        windows = jnp.concatenate(windows, axis=-1)  # [B, 1, w, k * k * C]
        left, right = (side.reshape(-1, side.shape[-1]) for side in (windows, grads))
        summed = (((0,), (0,)), ((), ()))
        return total + jax.lax.dot_general(left, right, summed, preferred_element_type=dtype)

    total = jnp.zeros((len(taps) * in_channels, out_channels), dtype)
    total = jax.lax.fori_loop(0, height, add_row, total)
    return total.reshape(kernel.shape).astype(kernel.dtype)
