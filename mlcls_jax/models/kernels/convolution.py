"""Full convolution as XLA has it, and for CPUs with another gradient of the kernel."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlcls_jax.models.kernels.windows import pad, padding, window


def xla_conv2d(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k i D"], *, stride: int = 1, groups: int = 1
) -> Float[Array, "B h w D"]:
    """Convolution that pads k - 1 in all, in XLA's own form, on every platform."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=(padding(kernel.shape[0]),) * 2,
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d_by_rows(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k C D"], stride: int
) -> Float[Array, "B h w D"]:
    """`xla_conv2d`, the gradient of whose kernel is summed over the rows of the output.

    XLA on CPUs takes that gradient for a convolution with a window as large as the map, for which
    it needs twice as long as for this loop where channels are few and maps large.
    """
    return xla_conv2d(x, kernel, stride=stride)


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return conv2d_by_rows(x, kernel, stride), (x, kernel)


@partial(jax.jit, static_argnums=0)
def _backward(stride: int, saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    transposed = jax.linear_transpose(lambda x: xla_conv2d(x, kernel, stride=stride), x)
    return *transposed(grad), _kernel_gradient(x, kernel, grad, stride)


conv2d_by_rows.defvjp(_forward, _backward)


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
        sides = (side.reshape(-1, side.shape[-1]) for side in (windows, grads))
        summed = (((0,), (0,)), ((), ()))
        return total + jax.lax.dot_general(*sides, summed, preferred_element_type=dtype)

    total = jnp.zeros((len(taps) * in_channels, out_channels), dtype)
    total = jax.lax.fori_loop(0, height, add_row, total)
    return total.reshape(kernel.shape).astype(kernel.dtype)
