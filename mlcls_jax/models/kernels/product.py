"""Product with a matrix, with a gradient written by hand for CPUs."""

import jax
from jaxtyping import Array, Float


@jax.custom_vjp
def matmul_on_cpus(x: Float[Array, "... I"], kernel: Float[Array, "I O"]) -> Float[Array, "... O"]:
    """Return x @ kernel, with the kernel's gradient in a form that needs no transposed factor.

    XLA on CPUs takes a sum over one axis as it is, but writes a factor out transposed where the sum
    is over several, which can take longer than the product.
    """
    return x @ kernel


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return matmul_on_cpus(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    x_grad = (grad @ kernel.T).astype(x.dtype)
    rows, grad_rows = (a.reshape(-1, a.shape[-1]) for a in (x, grad))  # [N, I], [N, O]
    kernel_grad = jax.lax.dot_general(rows, grad_rows, (((0,), (0,)), ((), ())))
    return x_grad, kernel_grad.astype(kernel.dtype)


matmul_on_cpus.defvjp(_forward, _backward)
