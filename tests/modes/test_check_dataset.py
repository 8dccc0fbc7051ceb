"""mode=check_dataset from conversion to report: what it writes, prints and exits with."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from mlcls_jax import config as schema
from mlcls_jax.data import protocols
from mlcls_jax.data.checks import check
from mlcls_jax.data.protocols import Protocol
from mlcls_jax.errors import CheckFailedError, ConvertFailedError, DataError
from mlcls_jax.modes.check_dataset import check_dataset
from tests.helpers.commands import forked
from tests.helpers.photos import write_image, write_lines, write_photos

ROOT = Path(__file__).parents[2]
COCO = Path(__file__).parents[1] / "data" / "coco_convert"


@pytest.fixture
def root(tmp_path):
    """A data set without fault: every image is another."""
    root = write_photos(tmp_path / "data", train=12, val=6)
    for number in range(6):
        write_image(root / f"images/val_{number}.png", 100 + number)
    return root


def config_of(root: Path, **options) -> schema.Config:
    check = schema.CheckDataset(**options)
    return schema.Config(mode="check_dataset", data=schema.Data(dir=str(root)), check_dataset=check)


def run(root: Path, workdir: Path, *options: str, code: int):
    command = ["mlcls", "--config=configs/lcnet.py:mlcls", f"--workdir={workdir}"]
    command += ["--config.mode=check_dataset", f"--config.data.dir={root}"]
    done = forked(*command, *options)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done, json.loads((workdir / "check_dataset_result.json").read_text())


def test_a_set_is_held_against_the_one_of_papers_and_its_lists_get_checksums(root, tmp_path):
    options = ("--config.check_dataset.protocol=voc2007",)
    done, result = run(root, tmp_path / "run", *options, code=0)
    told = ["3 labels, but voc2007 has 20", "train: 12 images, but voc2007 has 5,011",
            "val: 6 images, but voc2007 has 4,952"]  # fmt: skip
    hashes = {
        split: hashlib.sha256((root / f"{split}.txt").read_bytes()).hexdigest()
        for split in ("train", "val")
    }
    assert result["protocol"] == {"name": "voc2007", "differences": told, "sha256": hashes}
    assert all(line in done.stdout for line in (*told, *hashes.values()))


def test_a_set_with_the_papers_numbers_does_not_differ(root, monkeypatch):
    same = Protocol(3, {"train": 12, "val": 6}, "")
    monkeypatch.setitem(protocols.PROTOCOLS, "voc2007", same)
    report = check(root, schema.Data(dir=str(root)), pixels=False, threads=1)
    assert protocols.compare(report, schema.Data(), "voc2007")[0] == []


def test_a_good_data_set_passes_with_the_originals_files_and_json(root, tmp_path):
    workdir = tmp_path / "run"
    done, result = run(root, workdir, code=0)
    assert done.stdout.splitlines()[:3] == [
        "",
        "Check dataset passed !",
        "12 train, 6 val images, 3 labels; 0 warnings.",
    ]
    samples = {
        f"{split}_sample_paths": [
            f"check_dataset/demo_img/{split}_{number:02d}.jpg" for number in range(count)
        ]
        for split, count in (("train", 10), ("val", 6))
    }
    assert result == {
        "done_flag": True,
        "check_pass": True,
        "attributes": {
            "label_file": "label.txt",
            "num_classes": 3,
            "train_samples": 12,
            "val_samples": 6,
            **samples,
        },
        "analysis": {
            "histogram": "check_dataset/histogram.png",
            "cooccurrence": "check_dataset/cooccurrence.png",
        },
        "findings": {"error": {}, "warning": {}, "note": {}},
        "report": "check_dataset/report.html",
        "dataset_path": str(root),
        "show_type": "image",
        "dataset_type": "MLClsDataset",
    }
    for path in (*samples["train_sample_paths"], *result["analysis"].values()):
        with Image.open(workdir / path) as image:
            image.load()
    assert "passed" in (workdir / result["report"]).read_text().lower()
    assert not (workdir / "config.yaml").exists()  # the workdir stays free for a training


def test_a_bad_data_set_fails_with_all_its_errors(root, tmp_path):
    (root / "images/train_3.png").unlink()
    (root / "images/val_2.png").write_bytes(b"not an image")
    write_lines(root / "label.txt", ["0 cat", "1 dog", "1 bird"])
    workdir = tmp_path / "run"
    done, result = run(root, workdir, code=1)
    assert (result["done_flag"], result["check_pass"]) == (False, False)
    assert result["err_type"] == "CheckFailedError"
    assert sum(result["findings"]["error"].values()) == 3
    for place in ("label.txt:3: ", "train.txt:4: ", "val.txt:3: "):
        assert place in done.stderr
        assert place in (workdir / "check_dataset/findings.txt").read_text()
    assert done.stderr.rstrip().endswith(f"{workdir}/check_dataset/report.html")
    assert "Check dataset passed" not in done.stdout


def test_a_missing_data_set_is_told_in_the_originals_words(tmp_path):
    _, result = run(tmp_path / "nope", tmp_path / "run", code=1)
    assert result["err_type"] == "DatasetFileNotFoundError"
    assert result["err_msg"].startswith(f"{tmp_path}/nope: ")


def test_warnings_do_not_fail_the_check(root, tmp_path):
    lines = (root / "val.txt").read_text().splitlines()
    write_lines(root / "val.txt", ["\ufeff" + lines[0], *lines[1:]], end="\r\n")
    (tmp_path / "run").mkdir()
    result = check_dataset(config_of(root), tmp_path / "run").to_json()
    assert result["check_pass"]
    assert result["findings"]["error"] == {} and result["findings"]["warning"]


@pytest.mark.parametrize("pixels", [False, True])
def test_only_decoding_finds_what_is_damaged_inside(root, tmp_path, pixels):
    image = root / "images/train_1.png"
    content = image.read_bytes()
    middle = len(content) // 2
    image.write_bytes(content[:middle] + bytes(20) + content[middle + 20 :])
    (tmp_path / "run").mkdir()
    config = config_of(root, pixels=pixels)
    if not pixels:
        assert check_dataset(config, tmp_path / "run").to_json()["check_pass"]
        return
    with pytest.raises(CheckFailedError) as caught:
        check_dataset(config, tmp_path / "run")
    assert caught.value.facts["findings"]["error"] == {"damaged": 1}


def test_conversion_division_and_check_in_one_command(tmp_path):
    root, workdir = tmp_path / "coco", tmp_path / "run"
    (root / "images").mkdir(parents=True)
    for number in range(20):
        write_image(root / f"images/{number:04d}.png", number)
    annotations = [
        {"id": i, "image_id": i, "category_id": (90, 1, 3)[i % 3], "bbox": [0, 0, 5, 5], "area": 25}
        for i in range(20)
    ]
    content = {
        "images": [
            {"id": i, "file_name": f"{i:04d}.png", "width": 10, "height": 12} for i in range(20)
        ],
        "annotations": [a | {"iscrowd": 0} for a in annotations],
        "categories": [{"id": i, "name": name} for i, name in ((90, "z"), (1, "a"), (3, "c"))],
    }
    (root / "all.json").write_text(json.dumps(content))
    done, result = run(
        root,
        workdir,
        "--config.check_dataset.convert.enable=True",
        "--config.check_dataset.convert.train_annotations=all.json",
        "--config.check_dataset.convert.train_images=images",
        "--config.check_dataset.split.enable=True",
        "--config.check_dataset.split.train_percent=60",
        "--config.check_dataset.split.val_percent=30",
        "--config.check_dataset.split.test_percent=10",
        code=0,
    )
    found = result["attributes"]
    sizes = [found[f"{split}_samples"] for split in ("train", "val", "test")]
    assert sizes == [12, 6, 2] and found["num_classes"] == 3
    assert (root / "label.txt").read_text().splitlines() == ["0 a", "1 c", "2 z"]
    assert "Converted" in done.stderr and "Divided anew" in done.stderr


def test_what_is_converted_without_validation_images_is_divided_and_passes(tmp_path):
    for i in range(20):
        write_image(tmp_path / f"data/{'cat' if i % 2 else 'dog'}/{i}.png", i)
    convert = schema.Convert(enable=True, source_type="auto")
    config = config_of(tmp_path / "data", convert=convert)
    for _ in range(2):  # the second time it is found converted
        result = check_dataset(config, tmp_path).to_json()
        sizes = [result["attributes"][f"{split}_samples"] for split in ("train", "val")]
        assert result["check_pass"] and sizes == [16, 4]


def test_one_warning_is_told_in_the_singular(root, tmp_path):
    (root / "label.txt").write_bytes(b"\xef\xbb\xbf" + (root / "label.txt").read_bytes())
    done, _ = run(root, tmp_path / "run", code=0)
    assert "12 train, 6 val images, 3 labels; 1 warning." in done.stdout


def test_a_failed_conversion_ends_the_run_before_the_check(root, tmp_path):
    before = {path: path.read_bytes() for path in root.rglob("*.txt")}
    config = config_of(root, convert=schema.Convert(enable=True))
    with pytest.raises(ConvertFailedError):
        check_dataset(config, tmp_path)
    assert {path: path.read_bytes() for path in root.rglob("*.txt")} == before
    assert not (tmp_path / "check_dataset").exists()


def test_the_originals_sample_is_refused_for_its_leak(tmp_path):
    """Their conversion sample has the same images in both lists."""
    root = tmp_path / "coco"
    shutil.copytree(COCO, root)
    config = config_of(root, convert=schema.Convert(enable=True))
    with pytest.raises(DataError, match="5"):
        check_dataset(config, tmp_path)
