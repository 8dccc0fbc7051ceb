"""Packed data sets: what goes in comes out, however it was interrupted, here or behind a URL."""

import hashlib
import io
import json
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mlcls_jax import files
from mlcls_jax.commands.pack import open_sources, run
from mlcls_jax.config import Data
from mlcls_jax.data.frame import Frame
from mlcls_jax.data.images import decode_image
from mlcls_jax.data.pack import pack, verify
from mlcls_jax.data.pipeline import Reader, train_batches
from mlcls_jax.data.shards import decode_record, encode_record
from mlcls_jax.data.sources import load, open_data
from mlcls_jax.errors import DataError, WorkdirError
from mlcls_jax.groups import Groups
from mlcls_jax.lock import locked
from tests.helpers.photos import LABELS, Numbers, write_image, write_lines, write_photos


class Rows:
    """A source in memory: image, target, name."""

    labels = ("a", "b")

    def __init__(self, *rows: tuple[bytes | np.ndarray, list[int], str]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        image, target, _ = self.rows[index]
        return image, np.float32(target)

    def name(self, index: int) -> str:
        return self.rows[index][2]

    def place(self, index: int) -> str:
        return f"list.txt:{index + 1}"


def rows_of(*images: bytes) -> Rows:
    return Rows(*((image, [0, 1], str(i)) for i, image in enumerate(images)))


@pytest.fixture
def root(tmp_path):
    """7 and 3 images in folders with names of any script."""
    root = write_photos(tmp_path / "photos", train=6, val=3)
    write_image(root / "images/ünï/猫 (1).png", 77)
    with (root / "train.txt").open("a") as file:
        file.write("images/ünï/猫 (1).png\t1,0,1\n")
    return root


@pytest.fixture
def output(tmp_path):
    return tmp_path / "packed"


def pack_root(root: Path, output: Path, **options):
    sources, base = open_sources(Data(dir=str(root), on_error=options.get("on_error", "raise")))
    return pack(sources, output, root=base, **{"shard_size": 3, **options})


def open_packed(output: Path | str, **options):
    return open_data(Data(source="packed", dir=str(output), **options))


def fault_of(function, *args, **options) -> DataError:
    with pytest.raises(DataError) as caught:
        function(*args, **options)
    return caught.value


def checksums(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def png(*, height: int, width: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_goes_in_comes_out(root, output):
    original = open_data(Data(dir=str(root)))
    pack_root(root, output)
    packed = open_packed(output)
    for ours, theirs in zip(packed, original, strict=True):
        assert (ours.labels, len(ours)) == (LABELS, len(theirs))
        for index in range(len(theirs)):
            image, target = theirs[index]
            assert ours[index][0] == image
            assert ours[index][1].dtype == np.float32
            np.testing.assert_array_equal(ours[index][1], target)
            assert f"{root}/{ours.name(index)}" == theirs.name(index)
    assert packed.train.name(6) == "images/ünï/猫 (1).png"
    shard = output / "train-00002-of-00003.array_record"
    assert packed.train.place(6) == f"{shard}: record 0: images/ünï/猫 (1).png"


def test_groups_of_labels_are_kept(root, output):
    lines = [f"{k} {label}\tgroup=kind" for k, label in enumerate(LABELS)]
    (root / "label.txt").write_text("\n".join(lines), encoding="utf-8")
    pack_root(root, output)
    assert open_packed(output).train.groups == Groups((-1, -1, -1), (0, 0, 0))


def test_training_sees_the_same_batches(root, output):
    pack_root(root, output)
    streams = []
    for data in (open_data(Data(dir=str(root))), open_packed(output)):
        reader = Reader(data.train, Frame((8, 8)), "raise")
        config = Data(threads=4, augment=("flip",))
        steps = {"batch_size": 4, "seed": 3, "start_step": 1, "end_step": 9}
        streams.append(list(train_batches(reader, config, **steps)))
    assert len(streams[0]) == 8
    np.testing.assert_equal(streams[1], streams[0])


def test_the_manifest_counts_what_there_is(root, output):
    pack_root(root, output)
    manifest = json.loads((output / "dataset.json").read_text())
    assert manifest["labels"] == list(LABELS)
    assert manifest["options"] == {"short_side": None, "shard_size": 3}
    assert manifest["complete"] is True
    assert {s: entry["images"] for s, entry in manifest["splits"].items()} == {
        "train": 7,
        "validation": 3,
    }
    shards = [shard for entry in manifest["splits"].values() for shard in entry["shards"]]
    assert [shard["images"] for shard in shards] == [3, 3, 1, 3]
    sums = checksums(output)
    del sums["dataset.json"]
    assert {shard["file"]: shard["sha256"] for shard in shards} == sums
    assert sorted(sums) == [
        "train-00000-of-00003.array_record",
        "train-00001-of-00003.array_record",
        "train-00002-of-00003.array_record",
        "validation-00000-of-00001.array_record",
    ]


def test_targets_that_are_not_annotated_stay_so(output):
    image = png(height=4, width=4)
    rows = Rows((image, [1, -1], "x"), (image, [-1, 0], "y"))
    pack({"train": rows, "validation": rows}, output)
    source = open_packed(output).train
    assert [source[i][1].tolist() for i in range(2)] == [[1, -1], [-1, 0]]


@given(
    image=st.binary(max_size=50),
    target=st.lists(st.sampled_from([-1, 0, 1]), max_size=9),
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
)
def test_records_hold_anything(image, target, name):
    record = encode_record(image, np.float32(target), name)
    ours = decode_record(record)
    assert (ours[0], ours[1].tolist(), ours[2]) == (image, target, name)
    for end in range(len(record) - len(image)):
        with pytest.raises(ValueError, match="record"):
            decode_record(record[:end])
    with pytest.raises(ValueError, match="no record of version 1"):
        decode_record(b"\x02" + record[1:])


def test_pixels_become_files_that_show_them(output):
    numbers = Numbers(5)
    pack({"train": numbers, "validation": numbers}, output)
    source = open_packed(output).train
    for i in range(5):
        image, target = load(source, i)
        np.testing.assert_array_equal(image, numbers[i][0])
        np.testing.assert_array_equal(target, numbers[i][1])


def test_short_side_scales_large_images_and_leaves_others_untouched(output):
    sizes = [(40, 60), (60, 41), (20, 90), (19, 20)]
    contents = [png(height=h, width=w, seed=h) for h, w in sizes]
    pack({"train": (rows := rows_of(*contents)), "validation": rows}, output, short_side=20)
    source = open_packed(output).train
    for index, size in ((0, (30, 20)), (1, (20, 29))):
        smaller = Image.open(io.BytesIO(contents[index])).resize(size, Image.Resampling.LANCZOS)
        smaller.save(expected := io.BytesIO(), "JPEG", quality=95)
        assert source[index][0] == expected.getvalue()
    assert [source[2][0], source[3][0]] == contents[2:]


def test_short_side_turns_what_it_scales_upright(output):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30] = 255  # its top left; shown, its top right
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "JPEG", quality=95, exif=exif)
    pack({"train": (rows := rows_of(buffer.getvalue())), "validation": rows}, output, short_side=10)
    image, _ = load(open_packed(output).train, 0)
    assert image.shape == (15, 10, 3)
    assert image[:6, 6:].min() > 200
    assert image[:, :4].max() < 60


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(root, output, tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from mlcls_jax.config import Data
from mlcls_jax.data.pack import pack
from mlcls_jax.commands.pack import open_sources

class Stuck:
    def __init__(self, source):
        self.source, self.labels = source, source.labels
        self.name, self.place = source.name, source.place
    def __len__(self):
        return len(self.source)
    def __getitem__(self, index):
        if index == 4:  # the second shard's second
            print("stuck", flush=True)
            time.sleep(1000)
        return self.source[index]

sources, base = open_sources(Data(dir={str(root)!r}))
sources["train"] = Stuck(sources["train"])
pack(sources, Path({str(output)!r}), root=base, shard_size=3)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "stuck\n"
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    first = output / "train-00000-of-00003.array_record"
    left = {p.name for p in output.iterdir()}
    unfinished = {".lock", ".train-00001-of-00003.array_record.tmp"}
    assert left == {"dataset.json", first.name} | unfinished
    error = fault_of(open_packed, output)
    assert error.message == f"{output}/dataset.json: packing was not finished"
    written = first.stat().st_mtime_ns
    assert pack_root(root, output).kept == 1
    assert first.stat().st_mtime_ns == written
    pack_root(root, tmp_path / "whole")
    assert checksums(output) == checksums(tmp_path / "whole")


def test_a_shard_that_finds_no_room_is_told_and_leaves_nothing(root, output, monkeypatch):
    class Full:
        def __init__(self, path: str, options: str) -> None:
            Path(path).write_bytes(b"half")

        def write(self, content: bytes) -> None:
            raise RuntimeError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("array_record.python.array_record_module.ArrayRecordWriter", Full)
        with pytest.raises(DataError, match="cannot be written: No space") as caught:
            pack_root(root, output)
    assert caught.value.hint and "Free some space" in caught.value.hint
    assert [path.name for path in output.iterdir()] == ["dataset.json"]
    assert pack_root(root, output).manifest.complete


def test_two_processes_do_not_pack_into_one_folder(root, output):
    pack_root(root, output)
    with locked(output), pytest.raises(WorkdirError, match="in use by another process"):
        pack_root(root, output)
    assert not (output / ".lock").exists()


def test_packing_again_changes_nothing(root, output):
    assert pack_root(root, output).kept == 0
    sums = checksums(output)
    assert pack_root(root, output, threads=1).kept == 4
    assert checksums(output) == sums


def test_damaged_and_missing_shards_are_told_and_made_again(root, output):
    pack_root(root, output)
    sums = checksums(output)
    shards = [output / f"train-0000{i}-of-00003.array_record" for i in range(3)]
    content = bytearray(shards[0].read_bytes())
    content[content.index(b"IHDR")] ^= 1
    shards[0].write_bytes(content)
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    size = shards[1].stat().st_size
    shards[2].unlink()
    told = [
        f"{shards[1]}: damaged: {size:,} bytes, but dataset.json says {size + 1:,}",
        f"{shards[2]}: there is no such file",
    ]
    assert fault_of(open_packed, output).message.splitlines() == told
    by_checksum = f"{shards[0]}: damaged: its checksum is not that of dataset.json"
    assert fault_of(verify, output).message.splitlines() == [by_checksum, *told]
    assert pack_root(root, output).kept == 1
    assert checksums(output) == sums
    verify(output)


def test_damage_inside_a_shard_is_told_where_it_is_read(root, output):
    pack_root(root, output)
    shard = output / "train-00000-of-00003.array_record"
    content = bytearray(shard.read_bytes())
    at = content.index(b"images/train_1.png")
    content[at] ^= 1
    shard.write_bytes(content)
    source = open_packed(output).train
    error = fault_of(source.__getitem__, 1)
    assert error.message.startswith(f"{shard}: record 1: cannot be read: ")
    assert source.name(1) == f"{shard}: record 1"
    assert source.name(0) == "images/train_0.png"
    reader = Reader(source, Frame((4, 4)), "skip")
    assert not reader(1)["mask"] and reader(2)["mask"]


def test_what_has_changed_since_is_packed_again(root, output, tmp_path):
    pack_root(root, output)
    write_image(root / "images/train_1.png", 99)
    lines = (root / "val.txt").read_text().splitlines()
    write_lines(root / "val.txt", [lines[0].replace("1,0,0", "1,1,0"), *lines[1:]])
    assert pack_root(root, output).kept == 2
    pack_root(root, tmp_path / "new")
    assert checksums(output) == checksums(tmp_path / "new")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"short_side": 8},
            "options {'short_side': None, 'shard_size': 3}, not {'short_side': 8, 'shard_size': 3}",
        ),
        (
            {"shard_size": 2},
            "options {'short_side': None, 'shard_size': 3},"
            " not {'short_side': None, 'shard_size': 2}",
        ),
    ],
)
def test_other_options_than_those_it_was_begun_with_are_refused(root, output, options, told):
    pack_root(root, output)
    sums = checksums(output)
    error = fault_of(pack_root, root, output, **options)
    assert error.message == f"{output}/dataset.json: was begun with {told}"
    assert checksums(output) == sums


def test_another_data_set_is_refused(root, output):
    pack_root(root, output)
    lines = (root / "train.txt").read_text().splitlines()
    write_lines(root / "train.txt", lines[1:])
    write_lines(root / "label.txt", ["0 cat", "1 dog", "2 fish"])
    assert fault_of(pack_root, root, output).message.splitlines() == [
        f"{output}/dataset.json: was begun with labels ('cat', 'dog', 'bird'),"
        " not ('cat', 'dog', 'fish')",
        f"{output}/dataset.json: was begun with source_images {{'train': 7, 'validation': 3}},"
        " not {'train': 6, 'validation': 3}",
    ]


def test_a_folder_of_other_things_is_left_alone(root, output):
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    error = fault_of(pack_root, root, output)
    assert error.message == f"{output}: is no packed data set, and not empty"
    assert fault_of(pack_root, root, output / "mine.txt").message.startswith(f"{output}/mine.txt: ")
    assert checksums(output) == {"mine.txt": hashlib.sha256(b"mine").hexdigest()}


def test_unreadable_images_are_all_listed_and_what_is_packed_is_kept(root, output):
    bad = [root / "images" / name for name in ("train_1.png", "train_5.png", "val_0.png")]
    for path in bad:
        path.write_bytes(b"not an image")
    told = fault_of(pack_root, root, output).message.splitlines()
    lines = ("train.txt:2", "train.txt:6", "val.txt:1")
    for fault, line, path in zip(told, lines, bad, strict=True):
        assert fault.startswith(f"{root}/{line}: {path}: ")
    assert sorted(checksums(output)) == ["dataset.json", "train-00002-of-00003.array_record"]
    for seed, path in enumerate(bad):
        write_image(path, seed)
    assert pack_root(root, output).kept == 1
    assert len(open_packed(output).train) == 7
    bad[0].write_bytes(b"not an image")  # now that it was complete
    fault_of(pack_root, root, output)
    assert fault_of(open_packed, output).message.endswith(": packing was not finished")


def test_unreadable_images_may_be_left_out(root, output):
    (root / "images/train_0.png").write_bytes(b"not an image")
    (root / "images/train_4.png").unlink()
    (root / "images/ünï/猫 (1).png").write_bytes(b"")  # alone in its shard
    manifest = pack_root(root, output, on_error="skip").manifest
    left_out = [told for shard in manifest.shards["train"].values() for told in shard.left_out]
    assert [told.split(": ")[0] for told in left_out] == [
        f"{root}/train.txt:{line}" for line in (1, 5, 7)
    ]
    assert json.loads((output / "dataset.json").read_text())["splits"]["train"]["images"] == 4
    source = open_packed(output).train
    names = [source.name(i) for i in range(len(source))]
    assert names == [f"images/train_{i}.png" for i in (1, 2, 3, 5)]
    assert pack_root(root, output, on_error="skip").kept == 4
    write_image(root / "images/train_0.png", 0)  # mended
    assert pack_root(root, output, on_error="skip").kept == 3
    assert len(open_packed(output).train) == 5


def test_a_pickled_source_reads_the_same(root, output):
    pack_root(root, output)
    source = open_packed(output).train
    source[0]  # its file is open
    again = pickle.loads(pickle.dumps(source))
    assert [again[i][0] for i in range(7)] == [source[i][0] for i in range(7)]


def test_other_splits_are_read_by_name(root, output):
    write_lines(root / "test.txt", (root / "val.txt").read_text().splitlines()[:2])
    pack_root(root, output)
    data = open_packed(output, train_split="validation", val_split="test")
    assert (len(data.train), len(data.validation)) == (3, 2)
    assert data.validation[1][0] == (root / "images/val_1.png").read_bytes()
    error = fault_of(open_packed, output, val_split="val")
    told = "has no images of val, but of train, validation, test"
    assert error.message == f"{output}/dataset.json: {told}"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"version": 1', '"version": 2', "version 2"),
        ('"format": "mlcls_jax', '"format": "x', "'x packed data set'"),
        ('"labels"', '"names"', "KeyError('labels')"),
        ('"train-00000', '"../train-00000', "'../train-00000-of-00003.array_record' is not the"),
        ("{", "", "JSONDecodeError"),
        ("{", "[" * 100_000, "RecursionError"),
        ('"version": 1', '"version": ' + "9" * 5000, "ValueError"),
    ],
)
def test_a_foreign_manifest_is_told(root, output, old, new, told):
    pack_root(root, output)
    path = output / "dataset.json"
    path.write_text(path.read_text().replace(old, new, 1))
    message = fault_of(open_packed, output).message
    assert message.startswith(f"{path}: does not describe a packed data set of version 1: ")
    assert told in message


def test_folders_without_a_manifest_are_told(tmp_path):
    error = fault_of(open_packed, tmp_path)
    assert error.message == f"{tmp_path}/dataset.json: cannot be read: No such file or directory"


def test_records_of_other_labels_are_told(root, output):
    pack_root(root, output)
    path = output / "dataset.json"
    path.write_text(path.read_text().replace('"bird"', '"bird", "fish"'))
    source = open_packed(output).train
    shard = output / "train-00000-of-00003.array_record"
    told = f"{shard}: record 2: 3 values, but dataset.json has 4 labels"
    assert fault_of(source.__getitem__, 2).message == told


@pytest.fixture
def remote(root, output, tmp_path, monkeypatch):
    """A packed data set in a store of fsspec; its URL."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pack_root(root, output)
    store = fsspec.filesystem("memory")
    store.put(f"{output}/", "/bucket/photos/", recursive=True)
    yield "memory://bucket/photos"
    store.rm("/bucket", recursive=True)


def cached() -> list[Path]:
    return sorted(path for path in files.cache_folder("packed").rglob("*") if path.is_file())


def test_a_url_is_fetched_once_and_read_like_a_folder(remote, output):
    here, there = open_packed(output), open_packed(remote)
    for ours, theirs in zip(there, here, strict=True):
        assert [ours[i][0] for i in range(len(ours))] == [theirs[i][0] for i in range(len(theirs))]
        assert [ours.name(i) for i in range(len(ours))] == [
            theirs.name(i) for i in range(len(theirs))
        ]
    assert len(cached()) == 4
    times = [path.stat().st_mtime_ns for path in cached()]
    open_packed(f"{remote}/")
    assert [path.stat().st_mtime_ns for path in cached()] == times
    cached()[0].unlink()
    assert len(open_packed(remote).train) == 7


def test_only_the_splits_asked_for_are_fetched(remote):
    open_packed(remote, train_split="validation")
    assert [path.name for path in cached()] == ["validation-00000-of-00001.array_record"]


def test_a_data_set_packed_anew_is_fetched_anew(remote, root, output):
    old = open_packed(remote).train[0][0]
    write_image(root / "images/train_0.png", 99)
    pack_root(root, output)
    fsspec.filesystem("memory").put(f"{output}/", "/bucket/photos/", recursive=True)
    assert open_packed(remote).train[0][0] == (root / "images/train_0.png").read_bytes() != old


def test_damage_and_gaps_behind_a_url_are_told_and_never_read(remote):
    store = fsspec.filesystem("memory")
    names = [f"train-0000{i}-of-00003.array_record" for i in range(2)]
    content = store.cat_file(f"/bucket/photos/{names[0]}")
    store.pipe_file(f"/bucket/photos/{names[0]}", content[:-1] + b"?")
    store.rm_file(f"/bucket/photos/{names[1]}")
    told = fault_of(open_packed, remote).message.splitlines()
    damaged = f"{remote}/{names[0]}: damaged: its checksum is not that of dataset.json"
    assert told[0] == damaged
    assert told[1].startswith(f"{remote}/{names[1]}: cannot be fetched: FileNotFoundError(")
    assert not {path.name for path in cached()} & {*names}
    assert not [path for path in cached() if path.name.endswith(".tmp")]


@pytest.mark.parametrize("url", ["memory://nowhere", "nokind://a/b"])
def test_urls_that_cannot_be_read_are_told(url):
    assert fault_of(open_packed, url).message.startswith(url)


def test_the_command_says_what_it_did_and_how_to_use_it(root, output):
    printed = run([str(root), str(output), "--shard_size=3", "--short_side=8"])
    assert printed.splitlines()[0] == "7 train, 3 validation images with 3 labels"
    assert printed.splitlines()[1].startswith("4 shards, 0.5 MB, in ")
    last = f"Use it: --config.data.source=packed --config.data.dir={output}"
    assert printed.splitlines()[-1] == last
    assert decode_image(open_packed(output).train[0][0], name="").shape == (10, 8, 3)
    printed = run(["--verify", str(output)])
    assert printed == "7 train, 3 validation images with 3 labels: every checksum holds."
    (root / "images/val_0.png").unlink()
    assert "val.txt:1: " in fault_of(run, [str(root), str(output), "--shard_size=3"]).message
    printed = run(
        [str(root), str(output), "--shard_size=3", "--short_side=8", "--on_error=skip"]
    ).splitlines()
    assert printed[1].endswith("; 3 of them were there before")
    assert printed[2] == f"1 unreadable images were left out: see {output}/dataset.json"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a"], "two folders are needed: DATASET and OUTPUT"),
        (["a", "b", "--verify"], "--verify takes one folder"),
        (["a", "b", "--short_side=0"], "--short_side: '0' is not a positive number"),
        (["a", "b", "--threads=x"], "--threads: 'x' is not a positive number"),
        (["a", "b", "--short=9"], "unrecognized arguments: --short=9"),
    ],
)
def test_wrong_arguments_are_told(arguments, told, capsys):
    with pytest.raises(SystemExit) as caught:
        run(arguments)
    assert caught.value.code == 2
    assert told in capsys.readouterr().err
