"""Run `python -m mlcls_jax.main --config=configs/lcnet.py --workdir=runs/demo`.

The console command `mlcls` is the same. The table of what can be typed after it is in `commands`.
Exit codes: 0 done; 1 the configuration, the data or a file is wrong (one message, no traceback);
2 a flag does not parse; 70 a fault of this program; 75 asked to end, or out of time: the same
command goes on; 130 interrupted from the keyboard, where training saves as well.
"""

import contextlib
import errno
import faulthandler
import logging
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

from mlcls_jax import commands, usage
from mlcls_jax.errors import InterruptedRunError, PreemptedError, UserError
from mlcls_jax.huge_pages import restart_with_huge_pages
from mlcls_jax.signals import end_at_once, end_when_asked, outcome
from mlcls_jax.start import collect_rarely, start_console, start_streams

log = logging.getLogger("mlcls_jax")


def run(argv: list[str] | None = None) -> None:
    """Run the console command; `argv` is this process's own unless given."""
    start_streams()
    given, level = usage.verbosity((argv or sys.argv)[1:])
    try:
        with _exit_codes("mlcls"):
            command, arguments = commands.find(given)
        if argv is None:
            if command.is_long and not {"--help", "-h"} & {*arguments}:
                restart_with_huge_pages()
            if sys.stderr:
                faulthandler.enable()  # a crash in a library shows where
            end_when_asked()
            collect_rarely()  # before more is imported
        start_console(level)
        place = commands.opened(given[0] if given else "", arguments)
        if place and ("://" in place or os.path.exists(place)):
            log.info("Opening %s …", place)  # before imports, which take seconds
        with _exit_codes(command.name):
            function = command.load()
            if text := function(arguments):
                print(text, flush=True)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _exit_codes(name: str) -> Iterator[None]:
    """Print what goes wrong in the block, and exit with its code; `name` is the command's."""
    try:
        yield
    except PreemptedError as error:
        print(f"{error.message}\n{error.hint}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    except UserError as error:
        _fail(error.message, error.hint, code=error.exit_code)
    except BrokenPipeError:
        raise
    except OSError as error:
        is_lost = error.errno == errno.ENOENT and not error.filename
        hint = "The current folder no longer exists: cd to another." if is_lost else None
        _fail(f"{error.filename or name}: {error.strerror or error}", hint, code=1)
    except KeyboardInterrupt as error:
        told, code = outcome(error)
        _fail(told, "The same command resumes where possible.", code=code)
    except Exception:
        log.exception("This is a fault of mlcls_jax, not yours:")
        _leave(70)


def _fail(message: str, hint: str | None, *, code: int) -> NoReturn:
    print("\n".join(filter(None, (f"error: {message}", hint))), file=sys.stderr, flush=True)
    _leave(code)


def _leave(code: int) -> NoReturn:
    """Exit; at once if a signal asked for it, or if there are other processes.

    JAX would wait for those.
    """
    is_asked = code in (PreemptedError.exit_code, InterruptedRunError.exit_code)
    if is_asked or ("jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()):
        end_at_once(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
