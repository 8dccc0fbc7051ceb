"""`python -m mlcls_jax.main --config=configs/lcnet.py --workdir=runs/demo`

Turns flags into a checked `Config` and runs the mode that it names. The console command `mlcls` is
the same: its first word may name the mode (`mlcls train --config=…`) or a command that needs no
configuration file (`mlcls models`), and the flags of PaddleX (`mlcls --pipeline NAME`) are
understood. Exit codes: 0 done; 1 the configuration, the data or a file is wrong (one message, no
traceback); 2 a flag does not parse; 70 a fault of this program; 75 asked to end, or out of time:
the same command goes on; 130 interrupted from the keyboard, where training saves as well.
"""

import logging
import os
import re
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from absl import app

from mlcls_jax import __version__, command_line, lazy, paths, usage
from mlcls_jax import config as schema
from mlcls_jax.errors import PreemptedError, UserError, WorkdirError, nearest
from mlcls_jax.huge_pages import restart_with_huge_pages
from mlcls_jax.modes.result import Result
from mlcls_jax.start import (
    collect_rarely,
    start_console,
    start_jax,
    start_logging,
    start_streams,
)

# mode → function (config, workdir) → result; imported when it is run
MODES = {
    "train": "mlcls_jax.modes.train.train",
    "evaluate": "mlcls_jax.modes.evaluate.evaluate",
    "thresholds": "mlcls_jax.modes.thresholds.thresholds",
    "predict": "mlcls_jax.modes.predict.predict",
    "export": "mlcls_jax.modes.export.export",
    "check_dataset": "mlcls_jax.modes.check_dataset.check_dataset",
}
# first word → mode; `predict` and `export` have commands that need no configuration file
WORDS = {
    "train": "train",
    "evaluate": "evaluate",
    "thresholds": "thresholds",
    "check": "check_dataset",
}
# first word → function (arguments) → text to print
COMMANDS = {
    "models": "mlcls_jax.commands.models.run",
    "pack": "mlcls_jax.commands.pack.run",
    "plan": "mlcls_jax.commands.plan.run",
    "predict": "mlcls_jax.commands.predict.run",
    "export": "mlcls_jax.modes.export.run",
    "backends": "mlcls_jax.commands.backends.run",
    "score": "mlcls_jax.commands.score.run",
}
# flags of PaddleX that stand without a first word, and mean `predict`
PIPELINE_FLAGS = {"--pipeline", "--input", "--serve", "--get_pipeline_config"}
# Beginnings of arguments of what computes for long, for which beginning anew is worth a moment.
LONG = ("--config", "--workdir", "score", "--serve", "serve")

log = logging.getLogger("mlcls_jax")


def run(argv: list[str] | None = None) -> None:
    """The console command; `argv` is this process' own unless given."""
    start_streams()
    if argv is None:
        argv = sys.argv
        if any(argument.startswith(LONG) for argument in argv[1:]):
            restart_with_huge_pages()
        collect_rarely()  # before more is imported
    try:
        _dispatch(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(argv: list[str]) -> None:
    """Do what the first word or the flags ask for."""
    word, rest = (argv[1], argv[2:]) if len(argv) > 1 else ("help", [])
    if word == "help" and rest:
        word, rest = rest[0], ["--help"]
    if word == "serve":
        word, rest = "predict", ["--serve", *rest]
    with_config = command_line.take(rest, "config")[0] is not None
    if word in ("help", "--help", "-h"):
        print(usage.overview())
    elif word in ("version", "--version"):
        print(f"mlcls_jax {__version__}")
    elif any(re.match("--?helpconfig(=|$)", argument) for argument in argv[1:]):
        _help_config([argv[0], *(rest if word in (*WORDS, *MODES) else argv[1:])])
    elif word in WORDS or (word in MODES and with_config):
        _run_word(argv[0], word, rest)
    elif word in COMMANDS:
        _run_command(word, rest)
    elif PIPELINE_FLAGS & {argument.partition("=")[0] for argument in argv[1:]}:
        _run_command("predict", argv[1:])
    elif re.fullmatch(r"\w+", word):
        close = nearest(word, [*WORDS, *COMMANDS])
        hint = f"Did you mean {close}?" if close else f"`{usage.program()} --help` names all."
        _fail(f"{word}: there is no such command", hint, code=2)
    else:
        _run_flags(argv, "")


def _run_word(name: str, word: str, arguments: list[str]) -> None:
    """Run the mode that a command word means; refuse `--config.mode` that means another."""
    mode = WORDS.get(word, word)
    asked, arguments = command_line.take(arguments, "config.mode")
    if asked not in (None, mode):
        _fail(
            f"--config.mode={asked}: the command {word} means mode={mode}",
            "Leave out one of the two.",
            code=2,
        )
    # The configuration's flags are looked for here, and the summary repeats them.
    sys.argv = [name, *arguments, f"--config.mode={mode}"]
    _run_flags(sys.argv, word)


def _run_flags(argv: list[str], word: str) -> None:
    if {"--help", "-h"} & {*argv}:
        mode = command_line.take(argv, "config.mode")[0] or "train"
        print(usage.help_of(mode if mode in MODES else "train", word))
        return

    def parse(argv: list[str]) -> list[str]:
        try:
            return command_line.parse(argv)
        except command_line.FlagError as error:
            _fail(error.message, usage.line(word) if error.hint is None else error.hint, code=2)

    app.run(main, argv=argv, flags_parser=parse)


def _help_config(argv: list[str]) -> None:
    """Print the options: all, or those that a text finds; with --config, that file's values."""
    text, argv = command_line.take(argv, "helpconfig")
    try:
        keys = schema.matching(text) if text and not text.startswith("-") else None
        values = None
        if text and text.startswith("-"):  # the next flag
            argv = [*argv, text]
        if command_line.take(argv, "config")[0] is not None:
            command_line.parse(argv, workdir=False)
            values = command_line.CONFIG.value
    except UserError as error:
        _fail(error.message, error.hint, code=2)
    print(f"{usage.line()}\n{schema.describe(keys, values)}")


def main(_: list[str]) -> None:
    """Run the mode; print what went wrong, or what to do next."""
    workdir, mode = Path(command_line.WORKDIR.value), None
    try:
        workdir = paths.local_path("--workdir", command_line.WORKDIR.value)
        config = schema.parse(command_line.CONFIG.value)
        mode = config.mode
        result = _run_mode(config, workdir)
    except PreemptedError as error:
        print(f"{error.message}\n{error.hint}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    except UserError as error:
        log.debug("%s", error.message)  # to the log file; the terminal gets it below
        _fail(error.message, error.hint, code=1)
    except OSError as error:  # disk full, permission lost
        _fail(f"{error.filename or workdir}: {error.strerror or error}", None, code=1)
    except KeyboardInterrupt:
        _fail("Interrupted.", f"The same command {_goes_on(mode, workdir)}.", code=130)
    except Exception:
        log.exception("This is a fault of mlcls_jax, not yours:")
        _leave(70)
    if result:
        print(_summary(config, workdir, result), flush=True)


def _goes_on(mode: str | None, workdir: Path) -> str:
    """What a mode does that is started again after an interruption."""
    from mlcls_jax.workdir import saved_step

    step = saved_step(workdir) if mode == "train" else None
    return "begins again" if step is None else f"goes on from the checkpoint of step {step}"


def _run_command(name: str, arguments: list[str]) -> None:
    """Run a command that needs no configuration file; print what it says."""
    start_console()
    try:
        print(lazy.load(COMMANDS[name])(arguments), flush=True)
    except UserError as error:
        _fail(error.message, error.hint, code=1)
    except BrokenPipeError:
        raise
    except OSError as error:
        _fail(f"{error.filename or name}: {error.strerror or error}", None, code=1)
    except KeyboardInterrupt:
        _fail("Interrupted.", "The same command goes on where it can.", code=130)
    except Exception:
        log.exception("This is a fault of mlcls_jax, not yours:")
        _leave(70)


def _run_mode(config: schema.Config, workdir: Path) -> Result | None:
    """Run the mode, the only one that writes into its workdir.

    Of several processes the first one writes; the others give None.
    """
    from mlcls_jax import parallel
    from mlcls_jax.lock import locked, locked_folder
    from mlcls_jax.workdir import open_workdir

    start_console()
    start_jax(cache=config.train.compile_cache)
    parallel.start_hosts(
        command_line.COORDINATOR.value,
        command_line.NUM_PROCESSES.value,
        command_line.PROCESS_ID.value,
    )
    if not parallel.is_lead():
        start_console(logging.WARNING)
        lazy.load(MODES[config.mode])(config, workdir)
        return None
    open_workdir(workdir)
    with locked(locked_folder(config, workdir)):
        return _run_lead(config, workdir)


def _run_lead(config: schema.Config, workdir: Path) -> Result:
    """Run the mode with its log and result file in the workdir."""
    from mlcls_jax import files

    start_logging(workdir / f"{config.mode}.log")
    result_file = workdir / f"{config.mode}_result.json"
    try:
        result = lazy.load(MODES[config.mode])(config, workdir)
    except WorkdirError:
        raise  # somebody else's: leave it alone
    except Exception as error:
        facts = error.facts if isinstance(error, UserError) else {}
        fault = facts | {"err_type": type(error).__name__, "err_msg": str(error)}
        if result_file.exists():  # may be of an earlier run that went well
            os.replace(result_file, result_file.with_suffix(".json.bak"))
        files.write_json(result_file, {"done_flag": False, **fault})
        raise
    files.write_json(result_file, {"done_flag": True, **result.to_json()})
    return result


def _summary(config: schema.Config, workdir: Path, result: Result) -> str:
    """What was written where, and what to do next."""
    same = [a for a in sys.argv[1:] if not re.match(r"--?config\.(mode\b|predict\.)", a)]
    command = f"{usage.program()} {shlex.join(same)}"
    return "\n".join(["", *result.summary(config, workdir, command)])


def _fail(message: str, hint: str | None, *, code: int) -> NoReturn:
    print("\n".join(filter(None, (f"error: {message}", hint))), file=sys.stderr, flush=True)
    _leave(code)


def _leave(code: int) -> NoReturn:
    """Exit; at once if there are other processes, for which JAX would wait."""
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        logging.shutdown()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
