"""The image files of a folder and its subfolders, or of the URL of one."""

from collections.abc import Iterator
from pathlib import Path

from mlcls_jax.data.image_files import IMAGE_SUFFIXES, OTHER_SUFFIX, SUFFIX_HINT, walk_images
from mlcls_jax.data.left_out import LeftOut
from mlcls_jax.errors import DataError
from mlcls_jax.scoring.inputs import stores
from mlcls_jax.scoring.inputs.kind import Columns, Item, Kind, Read, Survey
from mlcls_jax.scoring.inputs.name_index import open_index, write_index


def _survey(source: str, output: Path, columns: Columns) -> tuple[int, str]:
    return write_index(_names(source), output)


def _names(source: str) -> Iterator[str]:
    """Yield the images, relative to the folder, in the order of `list_images`."""
    if "://" in source:
        left_out = LeftOut()
        names = stores.file_names(source)
        yield from stores.with_suffix(names, IMAGE_SUFFIXES, OTHER_SUFFIX, left_out)
        left_out.warn(source)
        return
    for found in walk_images(Path(source)):
        if isinstance(found, DataError):
            raise found  # or the job would have a gap
        yield found.relative_to(source).as_posix()


def _open(source: str, begun: Survey, output: Path, columns: Columns) -> Read:
    # Shown as `mlcls predict` does.
    folder, shown = source.rstrip("/"), begun.path.rstrip("/")
    names = open_index(begun, output)

    def read(rows: range) -> Iterator[Item]:
        for name in names(rows):
            yield Item(f"{shown}/{name}", f"{folder}/{name}")

    return read


KIND = Kind(stores.is_folder, _survey, _open, has_index=True, may_change=True, hint=SUFFIX_HINT)
