"""The size of files and functions, and names that a reader could take for one another."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import mlcls_jax

ROOT = Path(mlcls_jax.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
LONGEST_FILE = 400
LONGEST_FUNCTION = 60  # lines without its docstring, but with the functions inside it

# What may be longer, and names of several modules, each with the reason.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
SAME_NAMES = {
    "audit": "the verb's arguments, and the work",
    "clip_vit": "a backbone, and its recipes",
    "export": "the verb's arguments, the mode, and weights under the names of others",
    "features": "feature maps of a frozen backbone in a run, and embeddings of a data set",
    "mobilenetv3": "a backbone, and its recipes",
    "openvino": "the runtime, and the export to it",
    "pack": "the verb's arguments, and the work",
    "predict": "the verb's arguments, and the mode",
    "train": "the verb's arguments, and the mode",
    "find_lr": "the verb's arguments, and the mode",
    "resnet": "a backbone, and its recipes",
    "thresholds": "the mode, and the arithmetic",
}


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Names and lengths of a file's functions and methods; those inside others count with them."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                waiting.append(node)
                continue
            first = node.body[0]
            docstring = first if ast.get_docstring(node, clean=False) is not None else None
            lines = node.end_lineno - node.lineno + 1
            yield (
                node.name,
                lines - (docstring.end_lineno - docstring.lineno + 1 if docstring else 0),
            )


def test_no_file_is_long():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in MODULES
    }
    long = {name: n for name, n in lengths.items() if n > LONGEST_FILE and name not in LONG_FILES}
    assert not long, "Part these files by purpose."


def test_no_function_is_long():
    lengths = {
        f"{path.relative_to(ROOT)}:{name}": n for path in MODULES for name, n in functions(path)
    }
    long = {
        name: n
        for name, n in lengths.items()
        if n > LONGEST_FUNCTION and name not in LONG_FUNCTIONS
    }
    assert not long, "Part these functions by what they do."


def test_no_two_modules_have_one_name():
    places = defaultdict(list)
    for path in MODULES:
        if path.name != "__init__.py":
            places[path.stem].append(str(path.relative_to(ROOT)))
    same = {n: found for n, found in places.items() if len(found) > 1 and n not in SAME_NAMES}
    assert not same, "Give these modules names of their own."
