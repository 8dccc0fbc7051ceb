"""The flags of a run, and the messages about wrong ones."""

import ast
import difflib
import os
import re
import sys
import traceback
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from mlcls_jax import config as schema
from mlcls_jax import paths, recipes, yaml_config
from mlcls_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configuration: FILE.py, FILE.py:RECIPE, lcnet:RECIPE or FILE.yaml"
)
WORKDIR = flags.DEFINE_string("workdir", None, "folder for everything that the run writes")
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of process 0, if several processes train together; auto: JAX finds it",
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "how many they are", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "which one this is, from 0", lower_bound=0)
DEVICE = flags.DEFINE_string(
    "device", None, "cpu, gpu, gpu:0,1 or tpu; default: all that JAX finds"
)

RECORD = "config.yaml"  # what a run writes into its workdir
# What other programs call an option.
ALIASES = {
    "lr": "optimizer.learning_rate",
    "batch": "train.batch_size",
    "bs": "train.batch_size",
    "model": "model.name",
    "arch": "model.name",
    "pretrained": "model.weights",
    "imgsz": "model.image_size",
    "img_size": "model.image_size",
    "data": "data.dir",
    "dataset": "data.dir",
    "dataset_dir": "data.dir",
    "optimizer": "optimizer.name",
    "loss": "loss.name",
    "scheduler": "optimizer.schedule",
    "wd": "optimizer.weight_decay",
    "dropout": "model.head_dropout",
    "num_workers": "data.workers",
}


class FlagError(UserError):
    """The command line does not parse; without a hint, the usage is shown."""

    exit_code = 2


def hosts() -> tuple[str | None, int | None, int | None]:
    """Return what the flags say of processes that run together; see `parallel.start_hosts`."""
    return COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value


def take(argv: list[str], name: str) -> tuple[str | None, list[str]]:
    """Return the last value of a flag, None without one, and the arguments without the flag."""
    value, rest, arguments = None, [], iter(argv)
    for argument in arguments:
        if match := re.fullmatch(rf"--?{re.escape(name)}(?:=(.*))?", argument, re.DOTALL):
            value = next(arguments, None) if match[1] is None else match[1]
        else:
            rest.append(argument)
    return value, rest


def parse(argv: list[str], *, workdir: bool = True) -> list[str]:
    """Parse the flags of a run for absl's `app.run`; this sets `CONFIG` and the other flags.

    Args:
      argv: the program's name and its arguments. Without --config, that of the workdir is taken.
      workdir: whether there must be one.

    Raises:
      FlagError: a flag, a key or a value is wrong, or the configuration file is.
    """
    try:
        argv = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)  # of --flagfile
    except flags.Error as error:
        raise FlagError(_text(error)) from error
    known = schema.options()
    matches = (re.match(r"--?(?:no)?config\.([\w.]+)(=None$)?", a) for a in argv[1:])
    given = [match.group(0, 1, 2) for match in matches if match]
    if unknown := [schema.unknown_key(key) for _, key, _ in given if key not in known]:
        raise FlagError("\n".join(unknown), "")
    nones = {argument: key for argument, key, is_none in given if is_none}  # absl has no None
    file, rest = take([argument for argument in argv if argument not in nones], "config")
    place, _ = take(rest, "workdir")
    if file is None and place and (Path(paths.expand(place)) / RECORD).is_file():
        file = str(Path(paths.expand(place)) / RECORD)
    if file is None:  # absl knows no key without it, and would blame them
        rest = [a for a in rest if not re.match(r"--?(?:no)?config\.", a)]
    else:
        rest.insert(1, f"--config={_find(file)}")  # before its keys
    typed, sys.argv = sys.argv, rest  # ml_collections looks there for the keys
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)  # of a command line before, in this process
    try:
        rest = flags.FLAGS(rest)
        if CONFIG.present:
            CONFIG.value.update_from_flattened_dict(dict.fromkeys(nones.values()))
    except UserError as error:  # of config.yaml
        raise FlagError(error.message, error.hint) from error
    except Exception as error:
        raise FlagError(_explain(error, argv)) from error
    finally:
        sys.argv = typed
    if file is None and (place or "").startswith(paths.HUB):
        hint = f"Measure it on a run's: evaluate RUN --config.evaluate.model_dir={place}"
        raise FlagError(f"{place}: is a model and no run, whose images would be known", hint)
    if file is None and place and len(rest) > 1:
        told = f"--workdir={place}: is the folder of a run with --config"
        raise FlagError(told, f"Beside {rest[1]} it is called --output.")
    if file is None:
        where = f", and {place} has no {RECORD} of an earlier run" if place else ""
        raise FlagError(f"--config is missing{where}")
    if workdir and not WORKDIR.value:
        raise FlagError("--workdir is empty" if WORKDIR.present else "--workdir is missing")
    if len(rest) > 1:
        raise FlagError(f"{rest[1]!r} is not a flag")
    return rest


def _find(given: str) -> str:
    """Return what ml_collections loads for a configuration file, which must be there."""
    if paths.is_url(paths.expand(given)):
        raise FlagError(f"--config={given}: {paths.why_not_local(given)}")
    file, colon, recipe = paths.expand(given).partition(":")
    if not os.path.isfile(file):  # `lcnet`, or `configs/lcnet.py` beside an installed wheel
        file = recipes.FILES.get(re.sub(r"^configs/(\w+)\.py$", r"\1", file), file)
    if not os.path.isfile(file):
        raise FlagError(_no_such_config(Path(file)))
    if not file.endswith((".yaml", ".yml")):
        return f"{file}{colon}{recipe}"
    if recipe:
        raise FlagError(f"--config={given}: {file} has no recipes, such as {recipe}")
    return f"{yaml_config.__file__}:{file}"


def _no_such_config(file: Path) -> str:
    """Return the message, with files that may be meant in the same folder or in configs/."""
    folders = (file, file.parent, Path("configs"))
    found = {
        path.stem: str(path)
        for folder in reversed(folders)
        for pattern in ("*.py", "*.yaml", "*.yml")
        for path in sorted(folder.glob(pattern))
        if not path.name.startswith("_")
    }
    close = difflib.get_close_matches(file.stem, found, n=3)
    what = "is a folder" if file.is_dir() else "there is no such configuration file"
    if file.is_dir() and RECORD.partition(".")[0] in found:
        close = [RECORD.partition(".")[0]]
    if close:
        return f"{file}: {what}; did you mean {' or '.join(found[stem] for stem in close)}?"
    there = [path for path in found.values() if path.startswith("configs")] or recipes.FILES
    return f"{file}: {what}; there are {', '.join(there)}"


def _explain(error: Exception, argv: list[str]) -> str:
    """Return what went wrong and, if it was in the configuration file, where."""
    cause: BaseException | None = error
    while cause is not None:
        for frame, line in reversed(list(traceback.walk_tb(cause.__traceback__))):
            name = frame.f_globals.get("__name__", "")
            # ml_collections' name for it, or the file that it hands on
            if name == "config_config" or name.startswith(f"{recipes.__name__}."):
                return f"{frame.f_code.co_filename}:{line}: {_text(cause)}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError):
        return f"--config: {str(error).splitlines()[-1].strip()}"
    if isinstance(error, flags.UnrecognizedFlagError):
        return _unknown_flag(error, argv)
    value = re.match(r"flag --config\.([\w.]+)=(.*?): ", str(error), re.DOTALL)
    if value and isinstance(error, flags.IllegalFlagValueError):
        return f"{value[1]}={value[2]}: must be {schema.kind_of(value[1])}"
    if isinstance(error, SyntaxError):
        return "\n".join(_unreadable(argv)) or _text(error)
    return _text(error)


def _unreadable(argv: list[str]) -> list[str]:
    """Return faults of values that look like Python and are not: absl does not say which."""
    faults = []
    for key in schema.options():
        value, _ = take(argv, f"config.{key}")
        try:
            ast.literal_eval(value or "0")
        except SyntaxError:
            faults.append(f"{key}={value}: must be {schema.kind_of(key)}")
        except ValueError:
            continue
    return faults


def _unknown_flag(error: flags.UnrecognizedFlagError, argv: list[str]) -> str:
    """Return the message, with the key that may be meant: `train.epochs` for `--epochs=3`."""
    name = error.flagname.removeprefix("no")
    mode = take(argv, "config.mode")[0] or "train"
    is_last_part = any(f".{key}".endswith(f".{name}") for key in schema.options())
    if not is_last_part and name not in ALIASES and "Did you mean" in str(error):
        return _text(error)  # of `--workdri`
    # Of several `batch_size` that of the mode's own section.
    key = ALIASES.get(name) or schema.nearest(f"{mode}.{name}" if is_last_part else name)
    proposal = f"; did you mean --config.{key}?" if key else ""
    return f"--{error.flagname}: there is no such flag{proposal}"


def _text(error: BaseException) -> str:
    while error.args and isinstance(error.args[0], BaseException):  # ConfigDict wraps a KeyError
        error = error.args[0]
    text = error.args[0] if isinstance(error, KeyError) else str(error)
    return re.sub(r' Other fields present: ".*"(\n|$)', " ", text, flags=re.DOTALL)
