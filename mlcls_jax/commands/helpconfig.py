"""`mlcls --helpconfig[=TEXT]`: the options; with --config, that file's values."""

from mlcls_jax import command_line, usage
from mlcls_jax import config as schema
from mlcls_jax.command_line import FlagError
from mlcls_jax.errors import UserError


def run(arguments: list[str]) -> str:
    """Return all options, or those that a text finds.

    Raises:
      FlagError: there are none, or the configuration file is wrong.
    """
    text, arguments = command_line.take(arguments, "helpconfig")
    try:
        if text and text.startswith("-"):  # the next flag
            text, arguments = None, [*arguments, text]
        keys = schema.matching(text) if text else None
        values = None
        if command_line.take(arguments, "config")[0] is not None:
            command_line.parse(["mlcls", *arguments], workdir=False)
            values = command_line.CONFIG.value
    except UserError as error:
        raise FlagError(error.message, error.hint) from error
    return f"{usage.line()}\n{schema.describe(keys, values)}"
