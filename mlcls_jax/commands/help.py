"""`mlcls --help` and `mlcls --version`."""

from mlcls_jax import __version__, usage
from mlcls_jax.commands import COMMANDS

OVERVIEW = """\
Multi-label image classification.

`{0} train photos` trains on a folder of images with labels and chooses the rest. Its run, such as
runs/photos-1, stands first after evaluate, thresholds, predict, serve, score, export.

With a configuration file, `{0} WORD --config=configs/lcnet.py --workdir=runs/demo [--config.…]`:
{config}
  (`{0} config` lists all keys; without --config, the run in the workdir is meant)

With a model, `{0} WORD …`:
{model}

Others:
{other}

`{0} WORD --help` tells more; `{0} --version` prints the version."""


def run(_: list[str]) -> str:
    """Return an overview of all commands."""
    groups: dict[str, list[str]] = {"config": [], "model": [], "other": [], "hidden": []}
    for command in COMMANDS.values():
        text = command.help.format(usage.program()).replace("\n", "\n" + 17 * " ")
        groups[command.group].append(f"  {command.name:15}{text}")
    texts = {group: "\n".join(lines) for group, lines in groups.items()}
    return OVERVIEW.format(usage.program(), **texts)


def version(_: list[str]) -> str:
    """Return the version."""
    return f"mlcls_jax {__version__}"
