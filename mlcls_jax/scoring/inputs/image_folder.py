"""The image files of a folder and its subfolders, or of the URL of one."""

from collections.abc import Iterator
from pathlib import Path

from mlcls_jax.data.image_files import IMAGE_SUFFIXES, OTHER_SUFFIX, SUFFIX_HINT, walk_images
from mlcls_jax.data.left_out import LeftOut
from mlcls_jax.errors import DataError
from mlcls_jax.scoring.inputs import stores
from mlcls_jax.scoring.inputs.kind import Columns, Item, Survey
from mlcls_jax.scoring.inputs.name_index import indexed


def _names(source: str, columns: Columns) -> Iterator[str]:
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


def _item(source: str, begun: Survey, name: str) -> Item:
    folder, shown = source.rstrip("/"), begun.path.rstrip("/")  # as `mlcls predict` shows it
    return Item(f"{shown}/{name}", f"{folder}/{name}")


KIND = indexed(stores.is_folder, _names, _item, may_change=True, hint=SUFFIX_HINT)
