"""The result of a prediction: a dict of the labels found, which prints, draws and saves itself."""

import base64
import html
import io
import json
import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image

from mlcls_jax import files
from mlcls_jax.data.frame import Frame
from mlcls_jax.data.image_files import IMAGE_SUFFIXES
from mlcls_jax.errors import UserError
from mlcls_jax.inference.drawing import draw_evidence, draw_grid, draw_labels, stack, to_jpeg
from mlcls_jax.inference.file_names import own_name
from mlcls_jax.paths import local_text
from mlcls_jax.readable import first_of, readable

_DIGITS = 5
_SHOWN_SIDE = 320  # pixels in a notebook
_NO_PICTURE = np.full((120, 320, 3), 225, np.uint8)  # drawn where an image could not be read


class Result(dict[str, Any]):
    """The labels of one image: {input_path, page_index, class_ids, scores, label_names}.

    The three lists hold the classes above their threshold, or the best few, by falling score.
    An explained result has `evidence` too: for each of these classes rows of numbers, [h, w], that
    say where the model looked. The result of an image that cannot be read has `error`, a message,
    and no classes.
    Outside the dict, and so not in the JSON: `image`, the picture as uint8 [H, W, 3], and
    `all_scores`, float32 [K]; None of an image that cannot be read. And `embedding`, float32 [C],
    where it was asked for. The fields follow PaddleX 3.x.
    """

    image: np.ndarray | None
    all_scores: np.ndarray | None
    embedding: np.ndarray | None = None
    frame: Frame | None = None  # which part of the image the network saw; None: all of it

    @classmethod
    def from_scores(
        cls,
        scores: np.ndarray,
        *,
        labels: Sequence[str],
        threshold: float | np.ndarray | None,
        input_path: str | Path | None,
        image: np.ndarray | None,
        page_index: int | None = None,
        top_k: int | None = None,
        maps: np.ndarray | None = None,
        frame: Frame | None = None,
    ) -> Self:
        """Report the classes whose score is above, not at, the threshold.

        `scores` is [K] and compared as float32; `labels` are the K names; `threshold` is one number
        or one for each class, [K], None for none. Classes with equal scores stay in the order of
        their ids. With `top_k` only so many of the best classes are looked at. `maps` [Q, h, w] are
        where the queries looked; query q answers for classes q * g … q * g + g - 1.

        Raises ValueError when the lengths do not agree.
        """
        scores = np.asarray(scores, np.float32)
        # In float32 too: a score that prints as the threshold must not pass by its last bit.
        thresholds = np.asarray(-np.inf if threshold is None else threshold, np.float32)
        if scores.shape != (len(labels),) or thresholds.shape not in ((), scores.shape):
            raise ValueError(
                f"scores {scores.shape} and threshold {thresholds.shape} do not fit"
                f" {len(labels)} labels: scores take [K], a threshold one number or [K]"
            )
        falling = np.argsort(-scores, kind="stable")[:top_k]
        reported = falling[(scores > thresholds)[falling]]
        result = cls(
            input_path=None if input_path is None else str(input_path),
            page_index=page_index,
            class_ids=[int(i) for i in reported],
            scores=[round(float(scores[i]), _DIGITS) for i in reported],
            label_names=[str(labels[i]) for i in reported],
        )
        if maps is not None:
            group = -(-len(labels) // len(maps))
            seen = [maps[i // group].astype(float) for i in reported]
            result["evidence"] = [np.round(seen_by, _DIGITS).tolist() for seen_by in seen]
        result.image = image
        result.all_scores = scores
        result.frame = frame
        return result

    @classmethod
    def of_error(
        cls, error: Exception, input_path: str | None, page_index: int | None = None
    ) -> Self:
        """Return the result of an image that could not be read."""
        result = cls(
            input_path=input_path,
            page_index=page_index,
            class_ids=[],
            scores=[],
            label_names=[],
            error=str(error),
        )
        result.image = result.all_scores = None
        return result

    @property
    def json(self) -> dict[str, dict[str, Any]]:
        r"""Return plain JSON types, {"res": {...}}; bytes that are not UTF-8 in names are \xNN."""
        return {"res": {k: readable(v) if isinstance(v, str) else v for k, v in self.items()}}

    @property
    def img(self) -> dict[str, Image.Image]:
        """The picture with a strip below that lists `name(score)`, {"res": picture}.

        An explained result shows the picture again for each label, with its evidence over it.
        """
        if self.image is None:
            return {"res": draw_labels(_NO_PICTURE, [readable(self["error"])])}
        pairs = zip(self["label_names"], self["scores"], strict=True)
        entries = [f"{name}({score:.3f})" for name, score in pairs]
        picture = draw_labels(self.image, first_of(entries) or ["(no label above the threshold)"])
        if not self.get("evidence"):
            return {"res": picture}
        maps = [np.array(rows) for rows in self["evidence"]]
        seen = [np.asarray(draw_evidence(self.image, map, self.frame)) for map in maps]
        columns = 2 if len(seen) > 1 else 1
        sheet = draw_grid(seen, entries, columns=columns, cell=max(picture.width // columns, 128))
        return {"res": stack([picture, sheet])}

    def _repr_html_(self) -> str:
        """Return the picture, made small, beside a table of its labels: for notebooks."""
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{score:.3f}</td></tr>"
            for name, score in zip(self["label_names"], self["scores"], strict=True)
        )
        told = html.escape(readable(self.get("error") or self["input_path"] or "an array"))
        picture = "" if self.image is None else f'<img src="{_thumbnail(self.image)}">'
        return f"<b>{told}</b><div style='display:flex'>{picture}<table>{rows}</table></div>"

    def print(
        self, format_json: bool = True, *, indent: int | None = 4, ensure_ascii: bool = False
    ) -> None:
        """Print the result, as indented JSON or else on one line."""
        text = json.dumps(self.json, indent=indent, ensure_ascii=ensure_ascii)
        text = text if format_json else str(self.json)
        try:
            text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        except UnicodeEncodeError:  # in a C locale; JSON has escapes of its own
            text = json.dumps(self.json, indent=indent, ensure_ascii=True)
            text = text if format_json else ascii(self.json)
        print(text)

    def save_to_json(
        self, path: str | Path, *, indent: int | None = 4, ensure_ascii: bool = False
    ) -> Path:
        """Write the result as JSON and return the file's path.

        A path that ends in .json is the file, unless it is a folder or ends with a slash; one of no
        suffix that is written here is a folder, and missing ones are made. There the file is called
        `<stem of the input>_res`; of inputs of one stem, which this process saves into one folder,
        those after the first have their whole name, or a digest, in its place, and so have names
        too long for a file. `~` is the home folder.

        Raises UserError when the file cannot be written; then no part of it stays behind.
        """
        target = self._target(path, ".json")
        if target.suffix.lower() != ".json":
            hint = "Use the suffix .json, or end the path with / to name a folder."
            raise UserError(f"{target}: JSON is not written under the suffix of a picture", hint)
        text = json.dumps(self.json, indent=indent, ensure_ascii=ensure_ascii)
        return _write(target, text.encode("utf-8"))

    def save_to_img(self, path: str | Path) -> Path:
        """Write the picture of `img` and return the file's path; see `save_to_json`.

        The suffix of a file is that of a format of pictures, such as .png. In a folder the picture
        has the suffix of the input, or .png where that is no picture's.
        """
        target = self._target(path, self._picture_suffix())
        return _write(target, _encode(self.img["res"], target))

    def _target(self, path: str | Path, suffix: str) -> Path:
        """Return the file that is written for `path`; `suffix` is its suffix in a folder."""
        path = local_text("the path", os.fspath(path))
        if not is_folder(path):
            return Path(path)
        folder = Path(path)
        # Without the number, the pages of one document would overwrite each other.
        page = "" if self["page_index"] is None else f"_{self['page_index']}"
        source, name = self["input_path"], self._input_name()
        if name.stem:
            wanted, owner = (
                (name.stem + page, name.name + page),
                source.encode(errors="surrogatepass"),
            )
        else:
            # Arrays have no name. The checksum tells them apart; it is the same each time.
            pixels = b"" if self.image is None else self.image.tobytes()
            wanted = (f"image_{zlib.crc32(pixels):08x}{page}",)
            owner = pixels + f"{source}{self.get('error')}".encode(errors="surrogatepass")
        return folder / f"{own_name(folder, wanted, owner + page.encode())}_res{suffix}"

    def _input_name(self) -> PurePosixPath | Path:
        source = self["input_path"]
        if source is not None and "://" in source:
            return PurePosixPath(unquote(urlsplit(source).path))
        return Path(source or "")

    def _picture_suffix(self) -> str:
        suffix = self._input_name().suffix
        # GIF has too few colours to draw in, PFM holds floats, MPO is for several pictures.
        is_fit = _picture_format(suffix) not in (None, "GIF", "MPO") and suffix.lower() != ".pfm"
        return suffix if is_fit and suffix.lower() in IMAGE_SUFFIXES else ".png"


def _thumbnail(image: np.ndarray) -> str:
    """Return a small JPEG of an image, [H, W, 3], as a data: URI."""
    picture = Image.fromarray(image)
    picture.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
    return f"data:image/jpeg;base64,{base64.b64encode(to_jpeg(picture)).decode()}"


def is_folder(path: str | Path) -> bool:
    """Return whether results are saved into a folder of this name, rather than into such a file.

    It is one, or the path ends with a slash, or in no suffix of a file that is written here.
    """
    path = os.fspath(path)
    suffix = Path(path).suffix.lower()
    is_ours = suffix in (".json", *IMAGE_SUFFIXES) or _picture_format(suffix) is not None
    return path.endswith(("/", os.sep)) or os.path.isdir(path) or not is_ours


def _picture_format(suffix: str) -> str | None:
    """Return Pillow's name of the format that it writes for a suffix; None when it cannot."""
    name = Image.registered_extensions().get(suffix.lower())
    return name if name in Image.SAVE else None


def _encode(picture: Image.Image, target: Path) -> bytes:
    picture_format = _picture_format(target.suffix)
    if picture_format is None:
        hint = "Use a suffix such as .png or .jpg, or end the path with / to name a folder."
        raise UserError(
            f"{target}: {target.suffix} is no format that pictures are written in", hint
        )
    # Chroma subsampling would blur the text.
    options = {"quality": 95, "subsampling": 0} if picture_format == "JPEG" else {}
    buffer = io.BytesIO()
    try:
        picture.save(buffer, format=picture_format, **options)
    except (OSError, ValueError) as error:  # JPEG and WebP have a greatest width and height
        hint = "Save it as .png."
        raise UserError(
            f"{target}: {picture_format} cannot hold the picture: {error}", hint
        ) from error
    return buffer.getvalue()


def _write(target: Path, data: bytes) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(target, data)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        hint = "Choose another folder, or make this one writable."
        raise UserError(f"{target}: cannot be written: {error}", hint) from error
    return target
