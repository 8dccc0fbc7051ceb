"""Depthwise convolution on this CPU: shifted products against XLA's grouped convolution.

python -m benchmarks.depthwise [--json FILE]
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import print_table, rows_of, take_turns
from mlcls_jax.models.kernels.convolution import xla_conv2d
from mlcls_jax.models.kernels.depthwise import depthwise_shifted

# batch, side, channels, kernel, stride: layers of PP-LCNet x1.0 at 224 and of the demo
CASES = [(8, 112, 32, 3, 1), (8, 56, 64, 3, 2), (8, 14, 256, 5, 1), (64, 16, 32, 3, 1)]


Form = Callable[[jax.Array, jax.Array, int], jax.Array]


def grouped(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """XLA's own form."""
    return xla_conv2d(x, kernel[:, :, None], stride=stride, groups=x.shape[-1])


def main() -> None:
    """Time forward and gradient of every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    rows = []
    rng = np.random.default_rng(0)
    for batch, side, channels, size, stride in CASES:
        x = jnp.asarray(rng.normal(size=(batch, side, side, channels)), jnp.float32)
        kernel = jnp.asarray(rng.normal(size=(size, size, channels)), jnp.float32)
        name = f"{batch}x{side}x{side}x{channels} {size}x{size}/{stride}"
        forms = {"mlcls_jax": depthwise_shifted, "xla grouped": grouped}
        for work in ("forward", "gradient"):
            calls = {form: _call(f, x, kernel, stride, work) for form, f in forms.items()}
            rows += rows_of(f"{name} {work}", take_turns(calls, rounds=5), peer="xla grouped")
    print_table("Depthwise convolution", rows, arguments.json)


def _call(
    form: Form, x: jax.Array, kernel: jax.Array, stride: int, work: str
) -> Callable[[], object]:
    def forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return form(x, kernel, stride)

    def total(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.square(form(x, kernel, stride)).sum()

    function = jax.jit(forward if work == "forward" else jax.grad(total, argnums=(0, 1)))
    return lambda: jax.block_until_ready(function(x, kernel))


if __name__ == "__main__":
    main()
