"""Input of a job: images in a fixed order, read by range and never held as a whole.

A kind of input is one file and one line in `KINDS`.
"""

import os
from pathlib import Path

from mlcls_jax.data.image_files import IMAGE_SUFFIXES, read_file
from mlcls_jax.errors import InputError, UserError, WorkdirError
from mlcls_jax.inference.image_inputs import local_paths
from mlcls_jax.inference.safe_fetch import Policy, fetch
from mlcls_jax.readable import readable
from mlcls_jax.scoring.inputs import image_folder, packed_data, parquet, stores, text_list
from mlcls_jax.scoring.inputs.kind import Columns, Item, Kind, Survey
from mlcls_jax.scoring.inputs.name_index import count_differences, index_path

# The first that recognises a source reads it.
KINDS: dict[str, Kind] = {
    "packed": packed_data.KIND,
    "parquet": parquet.KIND,
    "folder": image_folder.KIND,
    "list": text_list.KIND,
}


def find(source: str) -> str:
    """Return the path or URL that a job's input names: `~`, file:// and a pattern are resolved.

    Raises:
      InputError: a pattern matches nothing, or several files.
    """
    paths = local_paths(source)
    if paths is None:
        return source
    if len(paths) > 1:
        hint = "Name their folder, or write their names into a text file, one per line."
        raise InputError(f"{source}: matches {len(paths):,} files; a job has one input", hint)
    return paths[0]


def survey(source: str, output: Path, columns: Columns) -> Survey:
    """Look through the input; of a folder or list, write the index into `output`.

    Raises:
      InputError: it is of no known kind, holds no images, or a column or split is not there.
      DataError: a file of it cannot be read.
    """
    if "://" not in source and not os.path.isdir(source):
        if not os.path.exists(source):
            raise InputError(f"{source}: there is no such file or folder", "Check the path.")
        if Path(source).suffix.lower() in IMAGE_SUFFIXES:
            hint = "`mlcls predict` labels single images."
            raise InputError(f"{source}: this is one image", hint)
    name, kind = next((n, kind) for n, kind in KINDS.items() if kind.recognises(source))
    count, digest = kind.survey(source, output, columns)
    if count == 0:
        raise InputError(f"{source}: no image in it", kind.hint)
    return Survey(name, readable(source), count, digest)


def same_input(begun: Survey, now: Survey, output: Path) -> str | None:
    """Compare the input with what the job began with; return a warning where the job may go on.

    A folder may have changed: the job goes on with the files that were there when it began. The
    index of what is there now is deleted.

    Raises:
      WorkdirError: the input is another one.
    """
    if (begun.kind, begun.images, begun.sha256) == (now.kind, now.images, now.sha256):
        return None
    told = f"{now.path}: is not the input that the job in {output} began with, {begun.path}"
    hint = "Give the input of that job, or name another output folder."
    if begun.kind == now.kind and KINDS[now.kind].has_index:
        new = index_path(output, now.sha256)
        missing, added = count_differences(index_path(output, begun.sha256), new)
        new.unlink(missing_ok=True)
        is_same = os.path.realpath(begun.path) == os.path.realpath(now.path)
        if KINDS[now.kind].may_change and is_same:
            return (
                f"{now.path} has changed since the job began: {added:,} images are new and not part"
                f" of the job, {missing:,} are gone. Score new ones as a job of their own."
            )
        told += f": {missing:,} of its {begun.images:,} names are missing, {added:,} are new"
    raise WorkdirError(told, hint)


def load(item: Item) -> bytes:
    """Return the content of the image file.

    Raises:
      UserError: it cannot be read.
    """
    source = item.source
    if isinstance(source, UserError):
        raise source
    if callable(source):
        return source()
    if isinstance(source, bytes):
        return source
    if source.startswith(("http://", "https://")):
        return fetch(source, Policy())
    if source.startswith("file://"):
        source = find(source)
    return stores.read_url(source) if "://" in source else read_file(source)
