"""`mlcls check DATA`: what is wrong with a data set, which is left as it is."""

import logging
from dataclasses import dataclass

from mlcls_jax.commands import mode
from mlcls_jax.commands.train import asked, with_run
from mlcls_jax.config import REQUIRED, option
from mlcls_jax.data.detect import Form

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Report all that is wrong with a data set, with pictures; nothing of it is changed.

    What is no MLClsDataset gets its lists in the new folder, as it would for a training.
    """

    data: str = option(
        REQUIRED, "folder or file of images with labels; or a run", positional=True, metavar="DATA"
    )
    pixels: bool = option(False, "decode every image, and also look for near duplicates")
    format: Form | None = option(None, "of the data, where it may be read in several ways")
    output: str | None = option(
        None, "new folder for the report; None: runs/DATA-check-1, -2, …", path="local"
    )


def run(argv: list[str]) -> str:
    """Check, and return what was found and where the report is."""
    arguments, settings = asked(Arguments, argv, "check photos", "[--pixels] [--output DIR]")
    if flags := with_run(arguments.data, argv):
        return mode.run([*flags, "--config.mode=check_dataset"])
    log.info("Looking at %s …", arguments.data)
    from mlcls_jax.new_run import plan_check  # imports JAX, which a help does without

    config, folder, told = plan_check(
        arguments.data, arguments.format, arguments.output,
        {"check_dataset.pixels": arguments.pixels} | settings,
    )  # fmt: skip
    log.info("%s", "\n".join(told))
    return mode.run_new(config, folder, argv)
