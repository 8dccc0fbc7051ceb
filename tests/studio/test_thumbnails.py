"""Small pictures: by content, no more than the bound, and none of what is no picture."""

import io
import os
import shutil

import pytest
from PIL import Image

from mlcls_jax.errors import DataError
from mlcls_jax.studio.thumbnails import SIDE, Thumbnails, for_browser
from tests.helpers.bundles import write_images


def test_they_are_kept_by_content_and_made_anew_when_it_changes(tmp_path):
    one, other = write_images(tmp_path, 2, size=(300, 600))
    kept = tmp_path / "kept"
    kept.mkdir()
    made = Thumbnails(kept).get(one)
    with Image.open(io.BytesIO(made)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (SIDE, SIDE // 2))
    (tmp_path / "copy.png").write_bytes(one.read_bytes())
    thumbnails = Thumbnails(kept)
    assert thumbnails.get(tmp_path / "copy.png") == made
    assert thumbnails.tag(tmp_path / "copy.png") == thumbnails.tag(one)
    assert len(list(kept.glob("*/*.jpg"))) == 1
    shutil.copy(other, one)
    assert thumbnails.get(one) != made and thumbnails.tag(one) == thumbnails.tag(other)


def test_they_take_no_more_than_the_bound_and_the_last_seen_stay(tmp_path):
    paths = write_images(tmp_path, 12)
    kept = tmp_path / "kept"
    kept.mkdir()
    size = len(Thumbnails(kept).get(paths[0]))
    thumbnails = Thumbnails(kept, max_bytes=5 * size)
    for number, path in enumerate(paths):
        thumbnails.get(path)
        for file in kept.glob("*/*.jpg"):  # seen long ago
            status = file.stat()
            os.utime(file, (status.st_atime - 10, status.st_mtime - 10))
        assert sum(f.stat().st_size for f in kept.glob("*/*.jpg")) <= 5.5 * size, number
    assert len(list(kept.glob("*/*.jpg"))) >= 3


def test_what_is_no_picture_is_told_and_what_browsers_do_not_know_is_converted(tmp_path):
    (path,) = write_images(tmp_path, 1)
    assert for_browser(path) == (path.read_bytes(), "image/png")
    with Image.open(path) as picture:
        picture.save(tmp_path / "scan.tif")
        wanted = picture.convert("RGB").tobytes()
    content, kind = for_browser(tmp_path / "scan.tif")
    assert kind == "image/png" and Image.open(io.BytesIO(content)).tobytes() == wanted
    (tmp_path / "page.png").write_text("<svg onload='alert(1)'></svg>")
    for read in (Thumbnails(tmp_path).get, for_browser):
        with pytest.raises(DataError, match="not an image"):
            read(tmp_path / "page.png")
        with pytest.raises(DataError, match="no such file"):
            read(tmp_path / "gone.png")
