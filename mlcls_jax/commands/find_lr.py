"""`mlcls find_lr DATA`: a learning rate for the run that `mlcls train DATA` would make."""

from dataclasses import dataclass, replace

from mlcls_jax.command_line import take
from mlcls_jax.commands import mode
from mlcls_jax.commands.train import asked, look, with_run
from mlcls_jax.config import REQUIRED, option
from mlcls_jax.wishes import Wishes


@dataclass(frozen=True, kw_only=True)
class Arguments(Wishes):
    """Find a learning rate: a hundred steps of a run, with a rate that rises.

    The run is that of `mlcls train` with the same arguments.
    """

    data: str = option(
        REQUIRED, "folder or file of images with labels; or a run", positional=True, metavar="DATA"
    )


def run(argv: list[str]) -> str:
    """Take the steps, and return the rate and the command that trains with it."""
    arguments, settings = asked(
        Arguments, argv, "find_lr photos", "[--model NAME] [--batch_size N]"
    )
    if flags := with_run(arguments.data, argv):
        return mode.run([*flags, "--config.mode=find_lr"])
    new = look(arguments.data, arguments, settings, suffix="-lr")
    _, others = take(argv, "output")
    return mode.run_new(replace(new.config, mode="find_lr"), new.folder, others)
