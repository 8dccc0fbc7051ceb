"""Formats of other tools: what they write is read, what is written is read back the same."""

import gzip
import io
import json
import shutil
import tarfile
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls_jax.commands.convert import Arguments
from mlcls_jax.commands.convert import run as run_convert
from mlcls_jax.config import Convert, Data, SourceType
from mlcls_jax.data.convert import FORMATS, convert
from mlcls_jax.data.convert import webdataset as webdataset_format
from mlcls_jax.data.convert.parquet_tables import rows_at_once, write_frame
from mlcls_jax.data.detect import detect
from mlcls_jax.data.save import WRITTEN, Predictions, save
from mlcls_jax.errors import ConvertFailedError, DataError, InputError
from tests.helpers.photos import write_image
from tests.helpers.tiers import need


def read(place: Path, into: Path, form: str | None = None, **options):
    """Detect, convert, and return labels and targets by split and image, as lists have them."""
    found = detect(place, form)
    into.mkdir()
    made = found.convert
    assert made
    given = Convert(**{**made.__dict__, **options})
    done = convert(Data(dir=str(found.root)), given, into)
    return found, done, targets(into)


def targets(root: Path):
    found = {}
    for split in ("train", "val", "test"):
        if (root / f"{split}.txt").is_file():
            lines = (root / f"{split}.txt").read_text(encoding="utf-8").splitlines()
            for name, values in (line.split("\t") for line in lines):
                assert (root / name).is_file()
                found[split, (root / name).resolve().name] = [*map(int, values.split(","))]
    return found


def test_formats_are_those_of_the_options():
    assert {*get_args(SourceType)} == {*FORMATS}
    to = next(field for field in fields(Arguments) if field.name == "to")
    assert {*get_args(to.type)} == {*WRITTEN}


def test_images_of_a_table_are_decoded_one_by_one():
    """Two megabytes of a column held 40 images of 50 MB, and more than 4 GB in memory."""
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    for kind in (pa.binary(), pa.dictionary(pa.int32(), pa.large_binary()), image):
        schema = pa.schema({"image": kind, "labels": pa.list_(pa.string())})
        assert rows_at_once(schema, ["image", "labels"]) == rows_at_once(schema, None) == 1
        assert rows_at_once(schema, ["labels"]) > 1
    assert rows_at_once(pa.schema({"path": pa.string()}), ["path"]) > 1


# Round trips

LABELS = ["a,b", 'say "no"', "it's", "semi;colon|pipe", "<b>&amp;", "猫 🐈", "0", "[x]", "{y}"]
NAMES = ["a b.png", 'comma,quote".png', "<i>&é?#%20+.png", "train/d.png", "w.x.png", "7.png"]


def dataset(root: Path, labels, rows):
    """An MLClsDataset of rows {(split, name): values}; -1 is usual."""
    (root / "images").mkdir(parents=True)
    for number, (_, name) in enumerate(rows):
        write_image(root / "images" / name, number)
    lines = "".join(f"{i} {name}\n" for i, name in enumerate(labels))
    (root / "label.txt").write_text(lines, encoding="utf-8")
    for split in {split for split, _ in rows}:
        own = [(n, v) for (s, n), v in rows.items() if s == split]
        text = "".join(f"images/{n}\t{','.join(map(str, v))}\n" for n, v in own)
        (root / f"{split}.txt").write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("to", [to for to in WRITTEN if to != "mlcls"])
@settings(max_examples=6)
@given(
    names=st.lists(st.sampled_from(LABELS), min_size=2, max_size=6, unique=True),
    values=st.lists(st.lists(st.sampled_from([0, 1, -1]), min_size=6, max_size=6), min_size=6),
    copy=st.booleans(),
)
def test_out_and_in_again_gives_the_same_targets(tmp_path_factory, to, names, values, copy):
    tmp_path = tmp_path_factory.mktemp("trip")
    if to == "roboflow":  # divides at every comma
        names = [name.translate({ord(","): ";", ord('"'): "'"}) for name in names]
    splits = ["train", "train", "train", "val", "val", "test"]
    rows = {
        (split, name): row[: len(names)]
        for split, name, row in zip(splits, NAMES, values, strict=False)
    }
    root = dataset(tmp_path / "photos", names, rows)
    saved = save(detect(root), tmp_path / "out", to, copy=copy)
    if not FORMATS[to].holds_unknown:
        lost = sum(row.count(-1) for row in rows.values())
        assert bool(lost) == any(f"{lost} values of -1" in told for told in saved.told)
        rows = {key: [max(0, value) for value in row] for key, row in rows.items()}
    found, done, again = read(tmp_path / "out", tmp_path / "in")
    assert found.form == to and list(done.labels) == names
    if FORMATS[to].embeds:  # and the images have new names
        assert sorted((s, *row) for (s, _), row in again.items()) == sorted(
            (s, *row) for (s, _), row in rows.items()
        )
    else:
        assert again == {(s, Path(n).name): row for (s, n), row in rows.items()}
    assert not any(done.left_out.values())
    for path in (tmp_path / "photos/images").rglob("*.png"):
        assert path.stat().st_size  # the images are where they were


def roboflow_labels(root: Path):
    """Labels of images as `roboflow.util.folderparser` reads the lists of a folder."""
    found = {}
    for path in root.rglob("_classes.csv"):
        header, *lines = [line.split(",") for line in path.read_text("utf-8").splitlines()]
        for name, *values in lines:
            assert (path.parent / name).is_file() and name not in found
            labels = [
                label for label, value in zip(header[1:], values, strict=True) if value == "1"
            ]
            found[name] = path.parent.name, labels
    return found


def test_roboflow_finds_each_images_labels_by_its_name(tmp_path):
    rows = {
        ("train", "a/1,2.png"): [1, 0],
        ("train", "b/1.png"): [1, 1],
        ("train", "b-1.png"): [0, 0],
        ("train", "Valid/latest.png"): [0, 1],  # its path would put it into another split
        ("val", "a/1.png"): [0, -1],
    }
    root = dataset(tmp_path / "photos", ["cat", "dog"], rows)
    saved = save(detect(root), tmp_path / "out", "roboflow")
    assert any("1 values of -1" in told for told in saved.told)
    assert roboflow_labels(tmp_path / "out") == {
        "a-1_2.png": ("train", ["cat"]),
        "b-1.png": ("train", ["cat", "dog"]),
        "b-1-2.png": ("train", []),
        "V_alid-lat_est.png": ("train", ["dog"]),
        "a-1.png": ("valid", []),
    }
    assert not (tmp_path / "out/images").exists()
    named = dataset(tmp_path / "named", ["cat, dog", "b"], {("train", "a.png"): [1, 0]})
    with pytest.raises(DataError, match="cannot hold the label 'cat, dog'"):
        save(detect(named), tmp_path / "bad", "roboflow")
    assert not (tmp_path / "bad").exists()


# Files as other tools write them. Each function lays out a sample after the documented schema.


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes | str):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def photos(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        write_image(root / name, number)


def cvat(root):
    """CVAT for images 1.1, of a project with subsets, as CVAT 2 exports it."""
    photos(root, "images/a.png", "images/b.png", "images/sub/c.png")
    write(root / "annotations.xml", CVAT)
    return {
        ("train", "a.png"): [1, 1, 0],
        ("val", "b.png"): [0, 0, 0],
        ("train", "c.png"): [0, 1, 0],
    }


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
 <meta><project><id>1</id><labels>
  <label><name>dog</name><color>#fff</color><type>any</type><attributes/></label>
  <label><name>cat</name><color>#000</color><type>tag</type><attributes/></label>
  <label><name>never</name><type>any</type><attributes/></label>
  <label><name>tail</name><type>points</type><parent>dog</parent></label>
 </labels></project></meta>
 <image id="0" name="a.png" subset="Train" width="10" height="12">
  <tag label="cat" source="manual"/>
  <box label="dog" occluded="0" xtl="1" ytl="1" xbr="5" ybr="5" z_order="0"/>
  <box label="dog" occluded="0" xtl="2" ytl="2" xbr="5" ybr="5" z_order="0"/></image>
 <image id="1" name="b.png" subset="Validation" width="10" height="12"></image>
 <image id="2" name="sub/c.png" width="10" height="12"><tag label="cat" source="auto"/></image>
</annotations>"""


def cvat_coco(root):
    """CVAT's COCO 1.0."""
    photos(root, "images/default/a.png")
    images = [{"id": 1, "file_name": "a.png", "width": 10, "height": 12, "license": 0}]
    box = {"id": 1, "image_id": 1, "category_id": 2, "bbox": [0, 0, 2, 2], "area": 4, "iscrowd": 0}
    categories = [{"id": i, "name": n, "supercategory": ""} for i, n in ((1, "cat"), (2, "dog"))]
    content = {"licenses": [], "info": {}, "images": images, "annotations": [box]}
    write(root / "annotations/instances_default.json", content | {"categories": categories})
    return {("train", "a.png"): [0, 1]}


def fiftyone_coco(root):
    """FiftyOne's COCODetectionDataset."""
    photos(root, "data/a.png")
    cvat_coco(root)
    (root / "annotations/instances_default.json").rename(root / "labels.json")
    shutil.rmtree(root / "annotations")
    shutil.rmtree(root / "images")
    return {("train", "a.png"): [0, 1]}


def chosen(*names, **more):
    shared = {"id": "x", "from_name": "choice", "to_name": "image", "origin": "manual"}
    result = [{**shared, "type": "choices", "value": {"choices": [*names]}}] if names else []
    return {"id": 7, "completed_by": 1, "result": result, "was_cancelled": False, **more}


def datumaro(root):
    """datumaro's own format of 1.13: a label, a box, none; a lone subset is called default."""
    photos(root / "images/default", "a b.png", "sub_c.png")
    photos(root / "images/test", "d.png")
    box = {"id": 0, "type": "bbox", "group": 0, "label_id": 1, "z_order": 0, "bbox": [1, 1, 3, 3]}
    labels = [{"name": name, "parent": "", "attributes": []} for name in ("cat", "red car")]
    for split, items in {
        "default": {"a b.png": [{"id": 0, "type": "label", "label_id": 0}, box], "sub_c.png": []},
        "test": {"d.png": [box, {"id": 0, "type": "caption", "caption": "a car"}]},
    }.items():
        content = {
            "dm_format_version": "1.0",
            "media_type": 2,
            "infos": {},
            "categories": {"label": {"labels": labels, "label_groups": [], "attributes": []}},
            "items": [
                {"id": name, "annotations": found, "image": {"path": name, "size": [8, 9]}}
                for name, found in items.items()
            ],
        }
        write(root / f"annotations/{split}.json", content)
    return {
        ("train", "a b.png"): [1, 1],
        ("train", "sub_c.png"): [0, 0],
        ("test", "d.png"): [0, 1],
    }


def imagenet_txt(root):
    """Its imagenet_txt: of names with blanks only the ending is outside the quotes."""
    photos(root / "images", "a b.png", "sub/c.png", "d.png")
    write(root / "synsets.txt", "cat\nred car\ndog\n")
    write(root / "train.txt", '"a b".png 0 2\nsub/c.png \n')
    write(root / "val.txt", "d.png 1\n")
    return {
        ("train", "a b.png"): [1, 0, 1],
        ("train", "c.png"): [0, 0, 0],
        ("val", "d.png"): [0, 1, 0],
    }


def imagenet_txt_meta(root):
    """The same with the names of labels that `save_dataset_meta` writes."""
    expected = imagenet_txt(root)
    (root / "synsets.txt").unlink()
    write(root / "dataset_meta.json", {"labels": ["cat", "red car", "dog"]})
    return expected


def label_studio(root):
    """Label Studio 1.x JSON: uploads, local files, several annotators, skipped, not yet done."""
    photos(root, "a.png", "sub/b b.png", "c.png", "d.png", "e.png")
    tasks = [
        {"data": {"image": "/data/upload/3/1a2b3c4d-a.png"}, "annotations": [chosen("dog", "cat")]},
        {
            "data": {"image": "/data/local-files/?d=photos/sub/b%20b.png"},
            "annotations": [
                chosen("dog"),
                chosen("dog", "cat"),
                chosen("bird", was_cancelled=True),
            ],
        },
        {"data": {"image": "s3://bucket/far/c.png", "text": "a"}, "annotations": [chosen()]},
        {"data": {"image": "d.png"}, "annotations": [], "predictions": []},
        {"data": {"image": "e.png"}, "annotations": [chosen("cat", was_cancelled=True)]},
    ]
    write(root / "project-1-at-2026-01-02.json", [{"id": i, **t} for i, t in enumerate(tasks)])
    return {("train", "a.png"): [1, 1], ("train", "b b.png"): [-1, 1], ("train", "c.png"): [0, 0]}


def label_studio_min(root):
    """Its JSON-MIN, as its converter calls it."""
    photos(root, "a.png", "b.png")
    facts = {"annotator": 1, "annotation_id": 2, "created_at": "", "lead_time": 1.5}
    first = {"image": "https://host/a.png", "id": 1, "choice": {"choices": ["dog", "cat"]}}
    write(
        root / "result.json", [first | facts, {"image": "b.png", "id": 2, "choice": "cat"} | facts]
    )
    return {("train", "a.png"): [1, 1], ("train", "b.png"): [1, 0]}


def label_studio_csv(root):
    """Its CSV."""
    photos(root, "a.png", "b.png", "c.png")
    header = "annotation_id,annotator,choice,created_at,id,image,lead_time,updated_at\n"
    lines = '1,1,"{""choices"":[""dog"",""a, b""]}",,1,a.png,1,\n2,1,dog,,2,b.png,1,\n'
    write(root / "project-1.csv", f"{header}{lines}3,1,,,3,c.png,1,\n")
    return {("train", "a.png"): [1, 1], ("train", "b.png"): [0, 1], ("train", "c.png"): [0, 0]}


def labelme(root):
    """LabelMe 5."""
    photos(root, "a.png", "val/b.png")
    rest = {"shapes": [], "imageData": None, "imageHeight": 12, "imageWidth": 10}
    for name, flags in (("a", {"cat": True, "dog": False}), ("val/b", {"dog": True})):
        content = {"version": "5.4.1", "flags": flags, "imagePath": f"{Path(name).name}.png"}
        write(root / f"{name}.json", content | rest)
    return {("train", "a.png"): [1, 0], ("val", "b.png"): [-1, 1]}


def labelme_shapes(root):
    """LabelMe 6 without flags, as supervision's `as_labelme` writes it, too."""
    photos(root, "a.png", "b.png")
    rest = {"imageData": None, "imageHeight": 12, "imageWidth": 10, "flags": {}}
    for name, labels in (("a", ("dog", "dog")), ("b", ("cat",))):
        shapes = [{"label": label, "points": [[1, 1], [3, 3]]} for label in labels]
        content = {"version": "6.3.1", "shapes": shapes, "imagePath": f"{name}.png"}
        write(root / f"{name}.json", content | rest)
    return {("train", "a.png"): [0, 1], ("train", "b.png"): [1, 0]}


def openimages(root):
    """Open Images V7, a part of whose images are there."""
    photos(root, "train/0a1.png", "train/ffe.jpg", "validation/0b2.jpg")
    (root / "train/0a1.png").rename(root / "train/0a1.jpg")
    header = "ImageID,Source,LabelName,Confidence\n"
    lines = (
        "0a1,verification,/m/01,1\n0a1,verification,/m/02,0\nffe,crowdsource-verification,/m/02,1\n"
    )
    write(
        root / "oidv7-train-annotations-human-imagelabels.csv",
        f"{header}{lines}00c,verification,/m/01,1\n",
    )
    write(
        root / "validation-annotations-human-imagelabels.csv",
        f"{header}0b2,verification,/m/01,1\n0b2,machine,/m/02,0.7\n",
    )
    write(root / "class-descriptions.csv", '/m/01,Cat\n/m/02,"Dog, big"\n/m/03,Never\n')
    return {
        ("train", "0a1.jpg"): [1, 0],
        ("train", "ffe.jpg"): [-1, 1],
        ("val", "0b2.jpg"): [1, -1],
    }


def fiftyone_classification(root):
    """FiftyOneImageClassificationDataset of Classifications with confidences."""
    photos(root, "data/a.png", "data/b.png", "data/c.png")
    several = [{"label": "dog", "confidence": 0.9}, {"label": "cat"}]
    labels = {"a": several, "b": [], "c": None}
    write(root / "labels.json", {"classes": ["dog", "cat", "never"], "labels": labels})
    return {("train", "a.png"): [1, 1, 0], ("train", "b.png"): [0, 0, 0]}


def fiftyone_splits(root):
    """What FiftyOne 1.22's exporter wrote: numbers of `classes`, and null where nothing is."""
    told = {"train": {"a": [1, 0], "b": None}, "val": {"c": [0]}}
    for split, labels in told.items():
        photos(root, *(f"{split}/data/{name}.png" for name in labels))
        write(root / split / "labels.json", {"classes": ["dog", "cat"], "labels": labels})
    return {("train", "a.png"): [1, 1], ("val", "c.png"): [1, 0]}


def fiftyone_dataset(root):
    """FiftyOneDataset, as `export` of FiftyOne 1.x writes it."""
    photos(root, "data/a.png", "data/b.png")

    def sample(name, names, tag):
        found = [{"_cls": "Classification", "tags": [], "label": name} for name in names]
        field = {"_cls": "Classifications", "classifications": found}
        return {
            "filepath": f"data/{name}.png",
            "tags": [tag],
            "ground_truth": field,
            "metadata": None,
        }

    write(
        root / "samples.json",
        {"samples": [sample("a", ["x", "y"], "train"), sample("b", ["y"], "validation")]},
    )
    write(root / "metadata.json", {"name": "mine", "version": "1.0.0"})
    return {("train", "a.png"): [1, 1], ("val", "b.png"): [0, 1]}


def yolo(root):
    """Ultralytics' data.yaml, with Roboflow's paths."""
    photos(root, "train/images/a.png", "train/images/b.png", "valid/images/c.png")
    write(
        root / "data.yaml",
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n",
    )
    write(
        root / "train/labels/a.txt",
        "1 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.1\n0 0.1 0.1 0.2 0.2 0.3 0.3\n",
    )
    write(root / "valid/labels/c.txt", "0 0.5 0.5 1 1\n")
    return {("train", "a.png"): [1, 1], ("train", "b.png"): [0, 0], ("val", "c.png"): [1, 0]}


def yolo_bare(root):
    """supervision's `as_yolo`: a data.yaml that names no folders."""
    photos(root, "images/train/a.png", "images/val/b.png")
    write(root / "data.yaml", "nc: 2\nnames: [cat, dog]\n")
    write(root / "labels/train/a.txt", "1 0.5 0.5 0.2 0.2\n")
    return {("train", "a.png"): [0, 1], ("val", "b.png"): [0, 0]}


def nuswide(root):
    """NUS-WIDE of 2009: paths with backslashes and CRLF."""
    photos(root, "Flickr/actor/1.jpg", "Flickr/zoo/2.jpg", "Flickr/zoo/3.jpg")
    write(root / "ImageList/TrainImagelist.txt", "actor\\1.jpg\r\nzoo\\2.jpg\r\n")
    write(root / "ImageList/TestImagelist.txt", "zoo\\3.jpg\r\n")
    for name, train, test in (("sky", "1\n0\n", "1\n"), ("animal", "0\n1\n", "1\n")):
        write(root / f"Groundtruth/TrainTestLabels/Labels_{name}_Train.txt", train)
        write(root / f"Groundtruth/TrainTestLabels/Labels_{name}_Test.txt", test)
    return {("train", "1.jpg"): [0, 1], ("train", "2.jpg"): [1, 0], ("test", "3.jpg"): [1, 1]}


def shard(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def webdataset(root):
    """WebDataset's tar files; keys are never names of files that are written."""
    photos(root / "x", "a.png")
    image = (root / "x/a.png").read_bytes()
    shutil.rmtree(root / "x")
    files = {
        "../../a.png": image, "../../a.json": b'{"labels": ["cat", "dog"], "width": 3}',
        "b.png": image, "b.cls": b"1", "c.png": image, "c.txt": b"bird\ncat\nzebra\n",
        "d.png": image, "d.json": b'{"labels": {"cat": 1, "dog": 0, "bird": -1}}',
    }  # fmt: skip
    shard(root / "photos-000000.tar", files)
    write(root / "classes.txt", "cat\ndog\nbird\n")
    rows = [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 1], [1, 0, -1, 0]]  # zebra is not in classes.txt
    return {("train", f"train_{i:07}.png"): row for i, row in enumerate(rows)}


def arrow(root):
    """`save_to_disk` of Hugging Face datasets: a stream, and the description of the columns."""
    photos(root / "x", "a.png")
    image = {"bytes": (root / "x/a.png").read_bytes(), "path": "a.png"}
    shutil.rmtree(root / "x")
    labels = {"feature": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "_type": "Sequence"}
    told = {"info": {"features": {"image": {"_type": "Image"}, "labels": labels}}}
    table = pa.table({"image": [image, image], "labels": [[1], [0, 1]]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(told)})
    for split in ("train", "test"):
        path = write(root / split / "data-00000-of-00001.arrow", b"")
        with pa.ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table)
    rows = [[0, 1], [1, 1]]
    return {(s, f"{s}_{i:07}.png"): row for s in ("train", "test") for i, row in enumerate(rows)}


def flags(root):
    """A table with paths, and a column a label."""
    photos(root, "pictures/a.png", "pictures/b.png")
    table = {"path": ["pictures/a.png", "pictures/b.png"], "cat": [1, 0], "dog": [None, True]}
    pq.write_table(pa.table(table), write(root / "train.parquet", b""))
    return {("train", "a.png"): [1, -1], ("train", "b.png"): [0, 1]}


SAMPLES = {
    cvat: "cvat", cvat_coco: "coco", datumaro: "datumaro", imagenet_txt: "imagenet_txt",
    imagenet_txt_meta: "imagenet_txt",
    label_studio: "label_studio", label_studio_min: "label_studio",
    label_studio_csv: "label_studio", labelme: "labelme",
    labelme_shapes: "labelme", yolo_bare: "yolo", openimages: "openimages",
    fiftyone_classification: "fiftyone", fiftyone_splits: "fiftyone", yolo: "yolo",
    fiftyone_dataset: "fiftyone",
    fiftyone_coco: "coco", nuswide: "nuswide", webdataset: "webdataset", arrow: "parquet",
    flags: "parquet",
}  # fmt: skip


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.__name__)
def test_what_other_tools_write_is_told_and_read(tmp_path, sample):
    expected = sample(tmp_path / "data")
    found, _, rows = read(tmp_path / "data", tmp_path / "lists")
    assert found.form == SAMPLES[sample]
    assert rows == expected
    before = sorted(path.name for path in (tmp_path / "data").rglob("*"))
    again = convert(Data(dir=str(tmp_path / "data")), found.convert)  # in place, too
    assert again.images == {s: sum(1 for t, _ in rows if t == s) for s, _ in rows}
    assert {*before} <= {path.name for path in (tmp_path / "data").rglob("*")}


BOMB = '<!DOCTYPE a [<!ENTITY a "x"><!ENTITY b "&a;&a;">]><annotations>'
TASKS = "project-1-at-2026-01-02.json"
VERIFIED = "oidv7-train-annotations-human-imagelabels.csv"
SKY = "Groundtruth/TrainTestLabels/Labels_sky_Train.txt"


def swap(old, new):
    return lambda text: text.replace(old, new)


FAULTS = [  # a sample, a file of it, what is done to that, what is told
    (cvat, "annotations.xml", swap("<annotations>", BOMB), "annotations.xml: has a DOCTYPE"),
    (cvat, "annotations.xml", lambda t: t[:-60], r"annotations.xml:\d+: is not XML"),
    (cvat, "annotations.xml", swap('tag label="cat"', 'tag label="cow"'), "image 0: 'cow' is not"),
    (cvat, "annotations.xml", swap("</meta>", "</meta><track/>"), "not of CVAT for images"),
    (datumaro, "annotations/test.json", swap("red car", "car"), "has other labels than .*default"),
    (datumaro, "annotations/test.json", swap('_id": 1', '_id": 2'), r"s\[0\]: label_id 2, but"),
    (datumaro, "annotations/test.json", swap('_id": 1', '_id": "1"'), r's\[0\]: label_id is "1"'),
    (imagenet_txt, "train.txt", swap("0 2", "0 3"), "train.txt:1: label 3, but there are 3"),
    (imagenet_txt, "train.txt", swap('"', ""), "train.txt:1: 'a b.png 0 2' is not `path 0 2`"),
    (imagenet_txt, "val.txt", swap(" 1", " -1"), "val.txt:1: 'd.png -1' is not `path 0 2`"),
    (label_studio_csv, "project-1.csv", swap(".png", ".no"), "left out 3 missing images"),
    (label_studio, TASKS, swap(".png", ".jpg"), "left out 3 missing images"),
    (label_studio, TASKS, lambda t: t[:-9], "is not JSON"),
    (label_studio, TASKS, swap('"result": []', '"result": 3'), r"\[2\]: annotations\[0\]: result"),
    (label_studio, TASKS, swap('{"image": "d.png"', '{"x": "d"'), r"\[3\]: data names no image"),
    (label_studio, TASKS, swap('"dog"', '"do\\ng"'), "'do.ng' cannot stand in label.txt"),
    (labelme, "a.json", swap("true", "7"), "a.json: the flag 'cat' is neither"),
    (openimages, VERIFIED, swap("/m/01,1", "/m/01,x"), "csv:2: .*0a1.*\n.*csv:5: "),
    (fiftyone_classification, "labels.json", swap('{"label": "cat"}', "9"), "a: .* names no label"),
    (
        fiftyone_classification,
        "labels.json",
        swap('"labels": {', '"labels": 3, "x": {'),
        "is 3, not",
    ),
    (yolo, "train/labels/a.txt", lambda t: t + "2 0 0 1 1\n", "a.txt:4: class 2, but there are 2"),
    (yolo, "train/labels/a.txt", lambda t: "cat 1\n" + t, "a.txt:1: 'cat 1' is not `class x y"),
    (nuswide, SKY, lambda t: "1\n", "sky_Train.txt: 1 values, but TrainImagelist.txt has 2"),
    (webdataset, "photos-000000.tar", lambda t: t[:700], "is no tar file, or cut off"),
    (webdataset, "classes.txt", lambda t: "cat\n", "b.cls: label 1, but there are 1 names"),
    (flags, "train.parquet", lambda t: t[:60], "train.parquet: is no such table"),
]


@pytest.mark.parametrize(("sample", "name", "damage", "message"), FAULTS)
def test_what_is_broken_is_told_with_its_place_and_nothing_is_left(
    tmp_path, sample, name, damage, message
):
    sample(tmp_path / "data")
    found = detect(tmp_path / "data")
    path = tmp_path / "data" / name
    content = path.read_bytes().decode("latin-1")
    path.write_bytes(damage(content).encode("latin-1"))
    assert found.convert
    into = tmp_path / "lists"
    into.mkdir()
    with pytest.raises(ConvertFailedError, match=message):
        convert(Data(dir=str(found.root)), found.convert, into)
    assert not [*into.iterdir()]


def big_header(size: int) -> bytes:
    """A compressed shard whose first header is so long."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, size
    return gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(size), 1)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": b"1", "a.json": b'{"labels": {"cat": [1], "dog": {}}}'}, "no labels"),
        ({"a.png": bytes(300), "a.2.png": bytes(300), "a.cls": b"0"}, "a.2.png: is too large"),
        ({"a.png": b"1", "a.txt": bytes(200)}, "a.txt: is too large"),
        (big_header(2 << 20), "a header of 2,097,152 bytes"),
    ],
)
def test_shards_that_cost_or_make_no_sense_are_told(tmp_path, monkeypatch, files, message):
    monkeypatch.setattr(webdataset_format, "_MAX_IMAGE", 500)
    monkeypatch.setattr(webdataset_format, "_MAX_LABELS", 100)
    path = tmp_path / "data/train.tar"
    shard(path, files) if isinstance(files, dict) else write(path, files)
    with pytest.raises(ConvertFailedError, match=message):
        read(tmp_path / "data", tmp_path / "lists")


@pytest.mark.parametrize(
    "names", ["[no, 007, 1e3, ~, 'a: b']", "{0: no, 1: 007, 2: 1e3, 3: ~, 4: a}"]
)
def test_names_of_yolos_classes_are_what_stands_there(tmp_path, names):
    yolo(tmp_path / "data")
    places = "train: ../train/images\nval: ../valid/images\ntest: null\n"
    write(tmp_path / "data/data.yaml", f"{places}names: {names}\n")
    _, done, _ = read(tmp_path / "data", tmp_path / "lists")
    assert [*done.labels][:4] == ["no", "007", "1e3", "~"]


def test_a_class_of_a_shard_without_names_is_what_stands_there(tmp_path):
    files = webdataset(tmp_path / "data") and {"a.png": b"RIFF", "a.cls": b"007"}
    shard(tmp_path / "data/photos-000000.tar", files)
    (tmp_path / "data/classes.txt").unlink()
    assert read(tmp_path / "data", tmp_path / "lists")[1].labels == ("007",)


@pytest.mark.parametrize("to", ["roboflow", "csv"])
def test_one_label_goes_out_and_in_again(tmp_path, to):
    rows = {("train", "a.png"): [1], ("train", "b.png"): [0]}
    root = dataset(tmp_path / "photos", ["defect"], rows)
    told = save(detect(root), tmp_path / "out", to).told
    assert (to == "csv") == any("--dialect columns" in line for line in told)
    dialect = {"dialect": "columns"} if to == "csv" else {}  # that of people's files is asked for
    assert [*read(tmp_path / "out", tmp_path / "in", **dialect)[2].values()] == [[1], [0]]


def test_a_damaged_page_of_a_table_is_told(tmp_path):
    names = [f"{i}.png" for i in range(500)]
    path = write(tmp_path / "data/train.parquet", b"")
    pq.write_table(pa.table({"path": names, "label": [1] * 500}), path)
    content = path.read_bytes()
    path.write_bytes(content[:30] + bytes(b ^ 0x55 for b in content[30:200]) + content[200:])
    with pytest.raises(ConvertFailedError, match=r"train.parquet: is no such table: \w"):
        read(tmp_path / "data", tmp_path / "lists")


@pytest.mark.parametrize("wrong", [None, 1, {}])
def test_names_of_labels_are_texts(tmp_path, wrong):
    content = json.dumps({"info": {"features": {"label": {"names": ["cat", wrong]}}}}).encode()
    described(tmp_path / "data", [0, 1], content)
    with pytest.raises(ConvertFailedError, match="as the name of a label"):
        read(tmp_path / "data", tmp_path / "lists")


def described(root, labels, content):
    """A table with paths, numbers of labels, and what the hub writes about the columns."""
    names = [f"{i}.png" for i in range(len(labels))]
    photos(root, *names)
    table = pa.table({"path": names, "label": labels}, metadata={"huggingface": content})
    pq.write_table(table, root / "train.parquet")


@pytest.mark.parametrize("content", [b"{", b"[" * 99_999, b"[]", b'{"info": {"features": 1}}'])
def test_a_description_that_makes_no_sense_is_told_or_passed_over(tmp_path, content):
    described(tmp_path / "data", [0, 1], content)
    try:
        assert read(tmp_path / "data", tmp_path / "lists")[1].labels == ("0", "1")
    except ConvertFailedError as error:
        assert "its description" in error.message


def test_rows_without_labels_are_left_out_and_numbers_without_a_name_told(tmp_path):
    names = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    content = json.dumps({"info": {"features": names}}).encode()
    described(tmp_path / "data", [1, -1, None, 0], content)  # -1: as the hub's test splits have it
    _, done, rows = read(tmp_path / "data", tmp_path / "lists")
    assert done.labels == ("cat", "dog") and [*rows.values()] == [[0, 1], [1, 0]]
    assert len(done.left_out["rows without labels"]) == 2
    described(tmp_path / "data", [1, 2], content)
    with pytest.raises(ConvertFailedError, match="row 2: label 2, but there are 2 names"):
        read(tmp_path / "data", tmp_path / "more")


# Data frames


def test_a_data_frame_is_a_table_of_paths_or_contents(tmp_path, monkeypatch):
    pandas = need("pandas")
    photos(tmp_path, "far/a.png", "far/b.png")
    monkeypatch.chdir(tmp_path)
    contents = [(tmp_path / f"far/{name}.png").read_bytes() for name in "ab"]
    by_path = {"path": ["far/a.png", "far/b.png"], "labels": [["dog", "cat"], []]}
    by_content = {"image": contents, "cat": [1, 0], "dog": [True, float("nan")]}
    expected = {"paths": [[1, 1], [0, 0]], "contents": [[1, 1], [0, -1]]}
    for kind, columns in (("paths", by_path), ("contents", by_content)):
        (tmp_path / kind).mkdir()
        write_frame(pandas.DataFrame(columns), tmp_path / kind / "frame.parquet")
        _, _, rows = read(tmp_path / kind / "frame.parquet", tmp_path / f"{kind} lists")
        assert [*rows.values()] == expected[kind]
    with pytest.raises(DataError, match="int: is no data frame"):
        write_frame(3, tmp_path / "x")


# The command


def test_a_csv_list_is_converted_once_its_dialect_is_told(tmp_path):
    write_image(tmp_path / "photos/0.png")
    (tmp_path / "photos/train.csv").write_text('0.png,cat dog|nan\n0.png,"cat dog,a"\n')
    argv = [str(tmp_path / "photos"), str(tmp_path / "out")]
    with pytest.raises(ConvertFailedError) as error:
        run_convert(argv)
    assert "(mlcls convert: --dialect pipes) or another" in str(error.value.hint)
    told = run_convert([*argv, "--dialect", "pipes"])
    assert "the label 'nan' is kept: empty its cells" in told


def test_nothing_half_written_has_the_name_that_was_asked_for(tmp_path):
    output = tmp_path / "out"

    def find(files):
        assert not output.exists() and all(file.is_file() for file in files)
        yield {"dog": 0.75}

    root = dataset(tmp_path / "photos", ["cat", "dog"], {("train", "a.png"): [1, 0]})
    seen = Predictions(("dog",), "model", find)
    done = save(detect(root), output, "label_studio", predictions=seen)
    assert f"import {output}/tasks.json" in str(done.told) and ".new" not in str(done.told)
    assert "?d=out/images/a.png" in (output / "tasks.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


def test_what_another_process_put_into_the_new_folder_meanwhile_stays(tmp_path):
    root = dataset(tmp_path / "photos", ["cat", "dog"], {("train", "a.png"): [1, 0]})
    output = tmp_path / "out"

    def find(files):
        write(output / "theirs.json", {})
        return iter([{}] * len(files))

    with pytest.raises(DataError, match="out: is in use"):
        save(detect(root), output, "coco", predictions=Predictions(("dog",), "model", find))
    assert [path.name for path in output.iterdir()] == ["theirs.json"]


def test_predictions_of_a_file_become_pre_annotations(tmp_path):
    root = dataset(tmp_path / "photos", ["cat", "dog"], {("train", "a.png"): [1, 0]})
    line = {"input_path": str(root / "images/a.png"), "label_names": ["dog"], "scores": [0.75]}
    path = write(tmp_path / "found.jsonl", line)
    given = [str(root), str(tmp_path / "out"), "--to=label_studio", f"--predictions={path}"]
    told = run_convert(given)
    assert "1 train images with 2 labels" in told and "LOCAL_FILES_DOCUMENT_ROOT=" in told
    (task,) = json.loads((tmp_path / "out/tasks.json").read_text())
    assert task["data"]["image"] == "/data/local-files/?d=out/images/a.png"
    (said,) = task["predictions"]
    assert said["result"][0]["value"] == {"choices": ["dog"]} and said["score"] == 0.75
    assert task["annotations"][0]["result"][0]["value"] == {"choices": ["cat"]}
    with pytest.raises(DataError, match="is in use"):
        run_convert(given)
    alone = [str(root / "images"), str(tmp_path / "alone"), "--to=cvat", "--unlabelled"]
    assert "1 train images with 1 labels" in run_convert([*alone, f"--predictions={path}"])
    _, done, rows = read(tmp_path / "alone", tmp_path / "back")
    assert (done.labels, [*rows.values()]) == (("dog",), [[1]])
    # datumaro looks for the subsets of a project here, and finds no image without.
    assert "<project><subsets><subset>train<" in (tmp_path / "alone/annotations.xml").read_text()
    write(path, line | {"input_path": "/other.png"})
    given[1] = str(tmp_path / "second")
    with pytest.raises(DataError, match="no predictions of 1 images"):
        run_convert(given)
    assert not (tmp_path / "second").exists()
    write(path, {"input_path": 3})
    with pytest.raises(InputError, match="found.jsonl:1: has no input_path"):
        run_convert(given)


def test_numbers_in_shards_are_those_of_label_txt_in_any_order(tmp_path):
    expected = webdataset(tmp_path / "in")
    (tmp_path / "in/classes.txt").unlink()
    write(tmp_path / "in/label.txt", "1 dog\n2 bird\n0 cat\n")
    assert read(tmp_path / "in", tmp_path / "out")[2] == expected
