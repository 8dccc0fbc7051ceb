"""`mlcls completion bash|zsh|fish`: what lets a shell complete commands, flags, keys and values.

The script is short and asks `mlcls completion propose LINE` at each Tab: it never grows old.
"""

import contextlib
import io
import re
from dataclasses import dataclass
from typing import Literal, get_args

from mlcls_jax import commands, recipes, usage
from mlcls_jax import config as schema
from mlcls_jax.config import REQUIRED, option
from mlcls_jax.errors import UserError

# A proposal replaces the whole word that is being typed; bash wants the part after its last = or :
_SCRIPTS = {
    "bash": """\
# In ~/.bashrc:  eval "$(mlcls completion bash)"
_mlcls() {
  local typed="${COMP_LINE:0:COMP_POINT}" IFS=$'\\n'
  COMPREPLY=($(mlcls completion propose "$typed" 2>/dev/null))
  typed="${typed##* }"
  COMPREPLY=("${COMPREPLY[@]#"${typed%"$2"}"}")
  [[ $COMPREPLY == *= ]] && compopt -o nospace
}
complete -o default -F _mlcls mlcls""",
    "zsh": """\
# In ~/.zshrc, after compinit:  eval "$(mlcls completion zsh)"
_mlcls() {
  local -a found
  local end=' '
  found=("${(@f)$(mlcls completion propose "${words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}")
  [[ $found == *= ]] && end=''
  if [[ -n $found ]]; then compadd -Q -S "$end" -a found; else _files; fi
}
compdef _mlcls mlcls""",
    "fish": """\
# mlcls completion fish > ~/.config/fish/completions/mlcls.fish
complete -c mlcls -a '(mlcls completion propose (commandline -cp) 2>/dev/null)'""",
}


@dataclass(frozen=True)
class Arguments:
    """Let a shell complete mlcls: commands, flags, options of the configuration, their values."""

    shell: Literal["bash", "zsh", "fish", "propose"] = option(
        REQUIRED,
        "prints a script for it, which says where it belongs; propose: prints what may stand at the"
        " end of a LINE, a word each",
        positional=True,
    )
    line: str = option("", "what has been typed, for propose", positional=True)


def run(argv: list[str]) -> str:
    """Return the script of a shell, or what a line may go on with."""
    asked = usage.arguments(Arguments, argv, "completion bash")
    if asked.shell != "propose":
        return _SCRIPTS[asked.shell]
    return "\n".join(proposals(asked.line.split(" ")[1:]))


def proposals(words: list[str]) -> list[str]:
    """Return what the last of the words after `mlcls` may become; nothing where it is a path."""
    *before, typed = [word for word in words[:-1] if word] + words[-1:] or [""]
    return [found for found in _possible(before, typed) if found.startswith(typed)]


def _possible(before: list[str], typed: str) -> list[str]:
    known = [c.name for c in commands.COMMANDS.values() if c.group != "hidden"]
    if not before and not typed.startswith("-"):
        return known
    word = before[0] if before else ""
    if word == "help":
        return known
    if typed.startswith("--config."):
        key, equals, _ = typed.removeprefix("--config.").partition("=")
        if equals:
            return [f"--config.{key}={value}" for value in _values(key)]
        return [f"--config.{key}=" for key in schema.options()]
    if typed.startswith("--config="):
        return [f"--config={name}" for name in recipes.names()]
    if word == "config" and before[1:] in (["explain"], ["show"]):
        sections = {key.rpartition(".")[0] for key in schema.options()} - {""}
        return [*schema.options(), *sorted(sections) * (before[1] == "show")]
    flags = _flags(word) if word in known else {}
    if typed.startswith("-"):
        return [*filter(None, flags), "--config=", "--config."]
    return flags.get(before[-1] if len(before) > 1 else "", [])


def _values(key: str) -> list[str]:
    f = schema.options().get(key)
    if f is None:
        return []
    none = ["None"] * (type(None) in get_args(f.type))
    return [*(schema.choices_of(f) or ["True", "False"] * (f.type is bool)), *none]


def _flags(word: str) -> dict[str, list[str]]:
    """Return the flags in the help of a command with the values to choose from, if it lists any.

    Under "" are the words that may follow the command.
    """
    lines = [[word, "--help"], *[[word, "DATA", "--help"]] * (word == "train")]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        for line in lines:
            with contextlib.suppress(SystemExit, UserError):  # of a library that is not there
                command, arguments = commands.find(line)
                print(command.load()(arguments))
    told = re.sub(r"\n +", " ", out.getvalue())
    found = re.findall(r"(--[a-z]\w*)\b(?!\.)(?: +\{([^}]*)\})?", told)
    follows = re.search(r"^positional arguments: \{([^}]*)\}", told, re.MULTILINE)
    flags = {"": follows[1].split(",")} if follows else {}
    return flags | {flag: values.split(",") if values else [] for flag, values in sorted(found)}
