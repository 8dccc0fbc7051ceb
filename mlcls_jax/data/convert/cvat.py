"""CVAT's own format for images, "CVAT for images 1.1": annotations.xml with tags and shapes.

Its COCO export is read by `coco`.
"""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from mlcls_jax import files
from mlcls_jax.config import Convert
from mlcls_jax.data.convert.dataset_format import Format, file_that, head
from mlcls_jax.data.convert.labelled import Labelled, size_of
from mlcls_jax.data.convert.listings import Entry, Listing
from mlcls_jax.data.convert.reading import split_of
from mlcls_jax.errors import ConvertFailedError, raise_faults
from mlcls_jax.parsing import parse_xml

FILE = "annotations.xml"


def read(root: Path, label_file: Path, options: Convert) -> Listing:
    """Read each image with the labels of its tags and shapes.

    Images of the subsets that are called as splits are for these, all others for training. Labels
    are those of the task or project, in their order.
    """
    names = {"train": options.train_annotations or FILE, "val": options.val_annotations}
    splits: dict[str, list[Entry]] = {}
    labels: dict[str, None] = {}
    declared = None
    faults: list[str] = []
    for usual, name in names.items():
        if not name:
            continue
        path = root / name
        try:
            tree = parse_xml(path, ConvertFailedError)
        except FileNotFoundError as error:
            raise ConvertFailedError(f"{path}: there is no such file") from error
        if tree.tag != "annotations" or tree.find("track") is not None:
            raise ConvertFailedError(
                f"{path}: is not of CVAT for images",
                "Export the task as `CVAT for images 1.1`; videos are not read.",
            )
        found = [(label.findtext("name") or "").strip() for label in _labels(tree)]
        labels |= dict.fromkeys(found)
        declared = str(path) if found else declared
        for number, image in enumerate(tree.iter("image")):
            place = f"{path}: image {image.get('id', number)}"
            if not image.get("name"):
                faults.append(f"{place}: has no name")
                continue
            values = {thing.get("label", ""): 1 for thing in image}
            split = split_of(image.get("subset", "")) or usual
            splits.setdefault(split, []).append(Entry(image.get("name", ""), values, place))
    raise_faults(ConvertFailedError, faults)
    usual = [root / "images", root, *(root / "images" / name for name in ("default", "Train"))]
    folders = dict.fromkeys(splits, usual)
    return Listing(splits, [*labels], declared, folders=folders)


def _labels(tree: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """Yield the labels of the task, project or job; those of skeletons' points are no labels."""
    for label in tree.iterfind("meta/*/labels/label"):
        if label.find("parent") is None:
            yield label


def _write(data: Labelled, folder: Path, _: str | None) -> list[str]:
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    # Of a project: datumaro takes the subsets of a task to be called as its file is.
    project = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "project")
    subsets = ElementTree.SubElement(project, "subsets")
    for split in data.splits:
        ElementTree.SubElement(subsets, "subset").text = split
    labels = ElementTree.SubElement(project, "labels")
    for name in data.labels:
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "type").text = "tag"
        ElementTree.SubElement(label, "attributes")
    pictures = ((split, picture) for split, rows in data.splits.items() for picture in rows)
    for number, (split, picture) in enumerate(pictures):
        width, height = map(str, size_of(picture.file))
        name = picture.name.removeprefix("images/")
        facts = {"id": str(number), "name": name, "subset": split}
        image = ElementTree.SubElement(root, "image", facts, width=width, height=height)
        for label in data.present(picture):
            ElementTree.SubElement(image, "tag", label=label, source="manual")
    files.write_bytes(folder / FILE, ElementTree.tostring(root, "utf-8", xml_declaration=True))
    return [
        "CVAT: make a task of the images, with these labels of type tag, and upload"
        f" {folder / FILE} as `CVAT 1.1` annotations."
    ]


def _is_ours(file: Path) -> bool:
    start = head(file) if file.suffix.lower() == ".xml" else ""
    return "<annotations>" in start and ("<image " in start or "<meta>" in start)


_signs = file_that("CVAT's", _is_ours)

FORMAT = Format(
    read,
    "CVAT for images (annotations.xml)",
    lambda folder: _signs(folder / FILE),
    of_file=_signs,
    write=_write,
)
