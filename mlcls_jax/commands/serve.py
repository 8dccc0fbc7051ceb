"""`mlcls serve`: a model over HTTP."""

from mlcls_jax.commands import predict


def run(arguments: list[str]) -> str:
    """Serve as the arguments say, which are those of `mlcls predict --serve`; see `predict.run`."""
    given = [argument for argument in arguments if argument != "--serve"]
    return predict.run(["--serve", *given])
