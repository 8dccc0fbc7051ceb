"""An HTTP service around a predictor; see `docs/serving.md`."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlcls_jax import lazy
from mlcls_jax.serving.options import Options, options_of

if TYPE_CHECKING:  # imports JAX
    from mlcls_jax.inference.predictor import Predictor

log = logging.getLogger(__name__)

__all__ = ["Options", "options_of", "serve"]


def serve(
    predictor: "Predictor",
    options: Options,
    *,
    announce: Callable[[str], None] = log.info,
) -> None:
    """Answer requests until SIGTERM or SIGINT; then answer those that are due, and return.

    Args:
      predictor: what answers; its batch size is best that of `options`. It is warmed up here.
      options: limits and times.
      announce: is told the server's address.

    Raises:
      UserError: the extra is not installed, or the port is taken.
    """
    with lazy.optional("the server needs further packages", extra="serve"):
        from mlcls_jax.serving.server_process import run
    run(predictor, options, announce)
