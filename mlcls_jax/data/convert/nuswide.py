r"""NUS-WIDE's lists in ImageList/ and Groundtruth/TrainTestLabels/.

TrainImagelist.txt has a path a line, with `\` as divider; Labels_NAME_Train.txt has 0 or 1 a line,
one file for each of the 81 concepts. Images lie in Flickr/ or images/.
"""

from pathlib import Path

from mlcls_jax.config import Convert
from mlcls_jax.data.convert.dataset_format import Format, files_named
from mlcls_jax.data.convert.listings import Entry, Listing
from mlcls_jax.data.convert.reading import annotation_text
from mlcls_jax.errors import ConvertFailedError, raise_faults

_SPLITS = {"train": "Train", "test": "Test"}


def read(root: Path, label_file: Path, options: Convert) -> Listing:
    """Read training and test images; concepts are in the order of Concepts81.txt, or sorted."""
    labels = _labels(root)
    splits: dict[str, list[Entry]] = {}
    for split, name in _SPLITS.items():
        path = root / "ImageList" / f"{name}Imagelist.txt"
        if split == "test" and not path.is_file():
            continue
        images = annotation_text(path, kind="list").split("\n")
        images = [line.strip().replace("\\", "/") for line in images if line.strip()]
        columns, faults = [], []
        for label in labels:
            file = root / "Groundtruth" / "TrainTestLabels" / f"Labels_{label}_{name}.txt"
            values = annotation_text(file, kind="file of labels").split()
            columns.append(values)
            if len(values) != len(images):
                faults.append(f"{file}: {len(values)} values, but {path.name} has {len(images)}")
            wrong = next((i for i, value in enumerate(values) if value not in ("0", "1")), None)
            if wrong is not None:
                faults.append(f"{file}:{wrong + 1}: {values[wrong]!r} is neither 0 nor 1")
        raise_faults(ConvertFailedError, faults)
        rows = enumerate(zip(images, zip(*columns, strict=True), strict=True), start=1)
        splits[split] = [
            Entry(
                image,
                {n: 1 for n, v in zip(labels, row, strict=True) if v == "1"},
                f"{path}:{line}",
            )
            for line, (image, row) in rows
        ]
    usual = [root / "Flickr", root / "images", root / "Images"]
    return Listing(splits, labels, folders=dict.fromkeys(splits, usual))


def _labels(root: Path) -> list[str]:
    for place in ("Concepts81.txt", "ConceptsList/Concepts81.txt"):
        if (root / place).is_file():
            return annotation_text(root / place, kind="list").split()
    files = (root / "Groundtruth" / "TrainTestLabels").glob("Labels_*_Train.txt")
    labels = sorted(f.name.removeprefix("Labels_").removesuffix("_Train.txt") for f in files)
    if not labels:
        raise ConvertFailedError(f"{root}: holds no Groundtruth/TrainTestLabels/Labels_*_Train.txt")
    return labels


FORMAT = Format(
    read,
    "NUS-WIDE (ImageList/, Groundtruth/)",
    files_named("NUS-WIDE's", "ImageList/TrainImagelist.txt"),
)
