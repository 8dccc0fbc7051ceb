"""Find the images that a list or an annotation file names."""

import os
import posixpath
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from mlcls_jax.data.convert.reading import ImageFolder, LeftOut, image_folder, listed_path
from mlcls_jax.data.image_files import IMAGE_SUFFIXES, is_image_name

_SUFFIXES = (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES))


class Places:
    r"""Folders to look for named images in, and those of them where some were found.

    Names may be divided by \, as on Windows, lack the suffix of their file, or be whole paths.
    """

    def __init__(self, root: Path, *, given: str | None, usual: Sequence[Path]) -> None:
        """`given` is the only place if it is there; else it is the first of `usual` that fits.

        Raises:
          ConvertFailedError: there is no folder `given`.
        """
        self.folders: dict[str, ImageFolder] = {}  # by their names in lists
        self._root = Path(os.path.abspath(root))
        self._images = self._root / "images"
        # Images beside images/, which are linked one by one: the folder that holds it cannot be.
        self._beside = ImageFolder(self._root, "images")
        self._given = root / given if given else None
        bases = [self._given] if self._given else [path for path in usual if path.is_dir()]
        bases = dict.fromkeys(Path(os.path.abspath(base)) for base in bases)
        self._bases = {base: base in self._images.parents for base in bases}  # → holds images/
        self._known: dict[Path, ImageFolder] = {}
        if self._given and self._given.absolute() not in self._images.parents:
            image_folder(root, self._given)

    def listed(self, name: str, left_out: LeftOut) -> str | None:
        """Return the path of an image as listed; None, and a remark, if it is not there."""
        places = list(self._places(name))
        if not places:
            if self._given:
                image_folder(self._root, self._given)  # says why images cannot lie there
            left_out.setdefault("missing images", []).append(str(self._images / name))
            return None
        folder, below = places[0]
        if len(places) > 1 or not is_image_name(name):
            found = [place for place in places if _is_file(*place)][:1] or _with_suffix(places)
            if len(found) > 1:
                left_out.setdefault("names that several images have", []).append(name)
                return None
            folder, below = found[0] if found else (folder, below)
        path = listed_path(folder, below, left_out)
        if path and folder is self._beside:
            self.folders[path] = ImageFolder(folder.path / path.removeprefix("images/"), path)
        elif path:
            self.folders[folder.listed] = folder
        return path

    def has(self, name: str) -> bool:
        """Return whether there is such an image."""
        places = list(self._places(name))
        return any(_is_file(*place) for place in places) or bool(_with_suffix(places))

    def _places(self, name: str) -> Iterator[tuple[ImageFolder, str]]:
        """Yield the folders that an image may lie in, and its path below each."""
        if os.path.isabs(name):
            yield from self._whole(Path(os.path.abspath(name)))
            return
        spellings = [name, name.replace("\\", "/")]
        spellings += [s.removeprefix(f"{self._root.name}/") for s in spellings]  # seen from above
        spellings += [unquote(spelling) for spelling in spellings]  # %20, as in addresses
        for spelling in dict.fromkeys(spellings):
            for base, holds_images in self._bases.items():
                folder, below = base, posixpath.normpath(spelling)
                if holds_images:  # cannot be linked from there, but what it holds can
                    if base == self._root and "/" not in below:
                        if not os.path.lexists(self._images / below):
                            yield self._beside, below
                        continue
                    top, _, below = below.partition("/")
                    folder = base / top
                    if top in ("", "..") or not os.path.isdir(folder):
                        continue
                    if folder in self._images.parents:
                        continue
                if folder not in self._known:
                    self._known[folder] = image_folder(self._root, folder)
                yield self._known[folder], below

    def _whole(self, path: Path) -> Iterator[tuple[ImageFolder, str]]:
        """Yield the place of an image that is named by its whole path, if that can be linked."""
        folder = path.parent
        if folder in self._images.parents or not folder.is_dir() or not is_image_name(path.name):
            return
        if folder not in self._known:
            usual = image_folder(self._root, folder)
            is_elsewhere = self._root not in (folder, *folder.parents)
            # Folders elsewhere may be called alike.
            unique = f"{usual.listed}-{zlib.crc32(os.fsencode(folder)):08x}"
            self._known[folder] = usual._replace(listed=unique) if is_elsewhere else usual
        yield self._known[folder], path.name


def _is_file(folder: ImageFolder, below: str) -> bool:
    return os.path.isfile(folder.path / below)


def _with_suffix(places: Sequence[tuple[ImageFolder, str]]) -> list[tuple[ImageFolder, str]]:
    """Find images that only lack their suffix in the list, in the first place that has any."""
    for folder, below in places:
        found = [(folder, below + suffix) for suffix in _SUFFIXES]
        found = [place for place in found if _is_file(*place)]
        if found and not is_image_name(below):
            return found
    return []
