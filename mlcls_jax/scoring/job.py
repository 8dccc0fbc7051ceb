"""A job in its output folder: what was asked, which ranges are done, and whose they are.

A range is `rows_per_file` images in the order of the input. It is done when its part file is there.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlcls_jax import __version__, files
from mlcls_jax.config import REQUIRED, Backend, Precision, json_value, option
from mlcls_jax.config.tta import HELP as TTA_HELP
from mlcls_jax.errors import UserError, WorkdirError
from mlcls_jax.readable import readable, shorten
from mlcls_jax.scoring.inputs.kind import Columns, Survey

FORMAT = 1  # of _job.json
_FILE = "_job.json"


@dataclass(frozen=True)
class Request:
    """Request of a user."""

    model_dir: str = option(REQUIRED, "bundle, run, or hf://owner/name", path="model")
    input: str = option(
        REQUIRED,
        "a folder of images; a text file with a path or URL per line, or a .csv with a column of"
        " them; a Parquet file or a folder of them; or a packed data set",
        path="any",
    )
    output: str = option(REQUIRED, "a new folder, or that of a job that is to go on", path="local")
    batch_size: int = option(32, "images computed together", min=1)
    threshold: Any = option(
        None, "a number, or a JSON list or dict; None: the model's", parse=json_value
    )
    all_scores: bool = option(False, "write the scores of all labels")
    embeddings: bool = option(
        False, "write what the network makes of each image, to search and group images by"
    )
    tta: tuple[str, ...] = option((), TTA_HELP, metavar="VIEW")
    shard: int = 0  # this process scores shard i of n
    shards: int = 1
    rows_per_file: int = option(10_000, "images in a file", min=1)
    device: str | None = option(None, "cpu, gpu:0, tpu …; None: the first that JAX finds")
    backend: Backend = option("jax", "what computes")
    precision: Precision = option(
        "auto", "of the weights and, with bfloat16, the arithmetic; auto: bfloat16 on GPUs and TPUs"
    )
    threads: int = option(8, "that read images", min=1)
    image_column: str | None = option(
        None, "paths, URLs or, of Parquet, encoded images; None: detected"
    )
    path_column: str | None = option(None, "of Parquet: names for the output; None: detected")
    split: str | None = option(None, "of a packed data set; None: all")

    @property
    def columns(self) -> Columns:
        """The part of the input that is meant."""
        return Columns(self.image_column, self.path_column, self.split)


# Must not change while a job is under way. Of the others, device and backend decide about the last
# bits at most, and the machines of a job may differ in them.
_FIXED = (
    *("batch_size", "all_scores", "embeddings", "tta", "shards", "rows_per_file", "backend"),
    *("precision", "image_column", "path_column", "split"),
)


@dataclass(frozen=True)
class Job:
    """A job and the shard of it that this process does."""

    request: Request
    input: Survey  # when the job began
    model: dict[str, Any]  # name, labels, threshold, temperature, image_size, fit, weights_sha256

    @property
    def output(self) -> Path:
        """The folder of the job."""
        return Path(self.request.output)

    @property
    def ranges(self) -> range:
        """Ranges of the shard: neighbours, so that files are read one after another."""
        shard, shards = self.request.shard, self.request.shards
        count = -(-self.input.images // self.request.rows_per_file)
        return range(shard * count // shards, (shard + 1) * count // shards)

    def images(self, number: int) -> range:
        """Return the positions in the input of a range's images."""
        start = number * self.request.rows_per_file
        return range(start, min(start + self.request.rows_per_file, self.input.images))

    def part(self, number: int) -> Path:
        """Return the file of a range's results."""
        return self._file("part", number, "parquet")

    def errors(self, number: int) -> Path:
        """Return the file of a range's broken images; readers of a folder skip such names."""
        return self._file("_errors", number, "parquet")

    def checksums(self, number: int) -> Path:
        """Return the file of a range's checksums, as `sha256sum --check` reads them."""
        return self._file("_sha256", number, "txt")

    def _file(self, kind: str, number: int, ending: str) -> Path:
        return self.output / f"{kind}-{self.request.shard:05d}-{number:06d}.{ending}"

    @property
    def success(self) -> Path:
        """The file that is there once the shard is done."""
        return self.output / _success_name(self.request.shard, self.request.shards)

    def reopen(self) -> None:
        """Take back that the shard is done: a user deleted parts, to have them scored again."""
        for path in (self.success, self.output / _success_name(0, 1)):
            path.unlink(missing_ok=True)

    def finish(self, counts: dict[str, Any]) -> None:
        """Note that the shard is done and, if it is the last one, the job."""
        shards = self.request.shards
        own = {"shard": self.request.shard, "shards": shards}
        files.write_json(self.success, own | counts)
        paths = [self.output / _success_name(shard, shards) for shard in range(shards)]
        if shards > 1 and all(path.exists() for path in paths):
            done = [_counts(path) for path in paths]
            total = {key: sum(one[key] for one in done) for key in _COUNTS}
            files.write_json(self.output / _success_name(0, 1), {"shards": shards, **total})


# Does the given ranges of the job; yields the number of each one's images as it is done.
Engine = Callable[[Job, list[int]], Iterator[int]]

_COUNTS = ("images", "rows", "broken")


def _counts(path: Path) -> dict[str, int]:
    """Read what a shard's file of success says."""
    try:
        told = files.read_json(path)
        return {key: int(told[key]) for key in _COUNTS}
    except (OSError, UserError, ValueError, KeyError, TypeError) as error:
        hint = "Delete the file, and run that shard's command again."
        raise WorkdirError(f"{path}: cannot be read: {error}", hint) from error


def _success_name(shard: int, shards: int) -> str:
    return "_SUCCESS.json" if shards == 1 else f"_SUCCESS-{shard}-of-{shards}.json"


def read_survey(output: Path) -> Survey | None:
    """Return the input that the job in `output` began with, if there is one."""
    begun = _read(output)
    return Survey(**begun["input"]) if begun else None


def read_precision(output: Path) -> str | None:
    """Return the precision of the job in `output`, if there is one."""
    begun = _read(output)
    return begun["options"].get("precision") if begun else None


def open_job(request: Request, found: Survey, model: dict[str, Any]) -> Job:
    """Begin the job, or go on with the one in the output folder.

    Raises:
      WorkdirError: that one has another model or other options, or the folder holds other things.
    """
    output = Path(request.output)
    asked = {
        "format": FORMAT,
        "version": __version__,
        "input": asdict(found),
        "model": model,
        # Named where there are any: jobs of earlier versions have none.
        "options": {
            n: getattr(request, n)
            for n in _FIXED
            if n not in ("tta", "embeddings") or getattr(request, n)
        },
    }
    asked = json.loads(json.dumps(asked))
    begun = _read(output)
    if begun is None:
        _write_first(output / _FILE, asked)
        begun = _read(output)  # of several processes that begin at once, the first one's
        assert begun is not None
    differences = [
        "{}: {} when the job began, now {}".format(
            key, *(shorten(json.dumps(v, ensure_ascii=False), 80) for v in (then, now))
        )
        for section in ("format", "model", "options")
        for key, then, now in _differences(section, begun[section], asked[section])
    ]
    if differences:
        lines = [f"{output / _FILE}: this is another job:", *differences]
        raise WorkdirError("\n".join(lines), "Give the same options, or name another folder.")
    return Job(request, Survey(**begun["input"]), model)


def check_output(name: str) -> Path:
    """Make the output folder, or see that it is one of a job.

    Raises:
      WorkdirError: it holds other things, is not on a disk, or its name is not UTF-8.
    """
    if readable(name) != name:
        told = f"{readable(name)}: is not valid UTF-8, which readers of Parquet need"
        raise WorkdirError(told, "Name another output folder.")
    if "://" in name:
        hint = "Mount the store as a folder, or copy the files when the job is done."
        raise WorkdirError(f"{name}: the output must be a folder, not a URL", hint)
    output = Path(name)
    if output.exists() and not output.is_dir():
        raise WorkdirError(f"{output}: is no folder", "Name a new folder.")
    output.mkdir(parents=True, exist_ok=True)
    ours = ("_index-", ".index.", f".{_FILE}")  # of a job that is beginning, or was killed then
    is_strange = any(not path.name.startswith(ours) for path in output.iterdir())
    if is_strange and not (output / _FILE).exists():
        raise WorkdirError(f"{output}: is not empty, and no job's", "Name a new folder.")
    return output


@contextlib.contextmanager
def output_folder(name: str) -> Iterator[Path]:
    """Give the output folder as `check_output` makes it; an error leaves no empty one behind."""
    is_new = not Path(name).exists()
    output = check_output(name)
    try:
        yield output
    except UserError:
        if is_new and not any(output.iterdir()):
            output.rmdir()
        raise


def _read(output: Path) -> dict[str, Any] | None:
    path = output / _FILE
    try:
        value = files.read_json(path)
        _ = value["format"], value["model"], value["options"], Survey(**value["input"])
        return value
    except FileNotFoundError:
        return None
    except (OSError, UserError, ValueError, KeyError, TypeError) as error:
        raise WorkdirError(f"{path}: cannot be read: {error}", "Name another folder.") from error


def _write_first(path: Path, value: dict[str, Any]) -> None:
    """Write the file whole, unless another process was faster."""
    with files.beside(path) as temporary:
        temporary.write_text(files.to_json(value), encoding="utf-8")
        files.sync(temporary)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
            files.sync(path.parent)
        except OSError:  # a file system without links
            if not path.exists():
                files.place(temporary, path)


def _differences(key: str, then: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted({*then, *now}):
            yield from _differences(name, then.get(name), now.get(name))
    elif then != now:
        yield key, then, now
