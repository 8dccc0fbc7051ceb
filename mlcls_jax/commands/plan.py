"""`mlcls plan RUN --chips N --kind v5e`: expected time and memory of a training step."""

import sys

from mlcls_jax import command_line, usage
from mlcls_jax import config as schema
from mlcls_jax.config import add_arguments, from_arguments
from mlcls_jax.planning.plan_options import PlanOptions


def run(argv: list[str]) -> str:
    """Return the prediction for the arguments, as a table or as JSON."""
    parser = usage.parser(
        "plan",
        "Predict time and memory of a training step on chips that are not here."
        " RUN or --config=FILE, and --config.KEY=VALUE, plan the run of a configuration.",
        "plan --model PP-LCNet_x1_0_ML --chips 8 --kind v5e",
    )
    add_arguments(parser, PlanOptions)
    add_arguments(parser, schema.Parallel)
    flags, rest = _split(argv)
    config = _configuration(flags) if flags else None
    if config:
        parser.set_defaults(**vars(config.parallel))
    parsed = parser.parse_args(rest)
    args = from_arguments(PlanOptions, parsed)
    if args.model is None and config is None:
        parser.error("a run's folder, --model or --config is needed")
    from mlcls_jax.planning.answer import answer  # imports JAX, which a help does without

    return answer(args, from_arguments(schema.Parallel, parsed), config)


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Return the flags of a run among the arguments, and the others."""
    file, rest = command_line.take(argv, "config")
    place, rest = command_line.take(rest, "workdir")
    flags = [argument for argument in rest if argument.startswith(("--config.", "--noconfig."))]
    others = [argument for argument in rest if argument not in flags]
    if file or place:  # whose configuration is taken if none is named
        flags.insert(0, f"--config={file}" if file else f"--workdir={place}")
    return flags, others


def _configuration(flags: list[str]) -> schema.Config:
    command_line.parse([sys.argv[0], *flags], workdir=False)
    values = command_line.CONFIG.value
    return schema.changed(values, {"mode": "export"})  # which needs no data either
