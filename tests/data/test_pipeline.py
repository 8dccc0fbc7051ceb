"""Batches: what is in them, and an order that depends on seed and step only."""

import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlcls_jax.config import Data
from mlcls_jax.data.frame import Frame
from mlcls_jax.data.pipeline import GREY, Reader, eval_batches, train_batches, train_indices
from mlcls_jax.data.sources import open_data
from mlcls_jax.errors import ConfigError, DataError
from tests.helpers.photos import Numbers, write_lines, write_photos

SIZE = (8, 6)
AUGMENTED = {"augment": ("cutout", "randaugment_v4")}


def reader(source, on_error: str = "raise") -> Reader:
    return Reader(source, Frame(SIZE), on_error)


def evaluation(source, *, batch_size: int, threads: int = 4, on_error: str = "raise") -> list[dict]:
    config = Data(threads=threads)
    return list(eval_batches(reader(source, on_error), config, batch_size=batch_size))


def test_reading_begins_before_the_first_batch_is_asked_for():
    asked = threading.Event()

    class Waiting(Numbers):
        def __getitem__(self, index):
            asked.set()
            return super().__getitem__(index)

    batches = eval_batches(reader(Waiting(6)), Data(threads=2), batch_size=4)
    assert asked.wait(20)
    assert [int(batch["index"][0]) for batch in batches] == [0, 4]


def training(
    source,
    *,
    start: int = 0,
    end: int,
    batch_size: int = 4,
    seed: int = 1,
    threads=4,
    on_error: str = "raise",
    rows=None,
    **options,
):
    config = Data(threads=threads, prefetch=2, **options)
    return list(
        train_batches(
            reader(source, on_error),
            config,
            batch_size=batch_size,
            seed=seed,
            start_step=start,
            end_step=end,
            rows=rows,
        )
    )


def joined(batches: list[dict], key: str) -> np.ndarray:
    return np.concatenate([batch[key] for batch in batches])


def assert_equal(ours: list[dict], theirs: list[dict]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 8])
def test_evaluation_shows_every_image_once_in_order_and_pads_the_last_batch(count, threads):
    batches = evaluation(Numbers(count), batch_size=4, threads=threads)
    padded = -(-count // 4) * 4
    mask = joined(batches, "mask")
    np.testing.assert_array_equal(mask, np.arange(padded) < count)
    np.testing.assert_array_equal(joined(batches, "index"), np.arange(padded))
    images, targets = joined(batches, "image"), joined(batches, "target")
    np.testing.assert_array_equal(images[mask][:, 0, 0, 0], np.arange(count))
    np.testing.assert_array_equal(targets[mask][:, 1], np.arange(count) % 2)
    assert (images[~mask] == GREY).all() and (targets[~mask] == 0).all()


def test_batches_have_one_shape_and_type():
    batches = [*evaluation(Numbers(5), batch_size=4), *training(Numbers(5), end=2)]
    for batch in batches:
        assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
            "image": ((4, *SIZE, 3), np.uint8),
            "target": ((4, 2), np.float32),
            "mask": ((4,), np.bool_),
            "index": ((4,), np.int32),
        }


@pytest.mark.parametrize("start", [0, 1, 5, 19, 20])
def test_a_stream_started_at_a_step_is_the_rest_of_the_whole_stream(start):
    whole = training(Numbers(10), end=20)
    assert len(whole) == 20
    assert_equal(training(Numbers(10), start=start, end=20), whole[start:])


def test_a_longer_run_begins_like_a_shorter_one():
    assert_equal(training(Numbers(10), end=50)[:7], training(Numbers(10), end=7))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Real files of several formats and sizes, read by four recipes' augmentations."""
    root = write_photos(tmp_path_factory.mktemp("photos") / "data")
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (50 + index, 60, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"images/photo_{index}.jpg")
    lines = (root / "train.txt").read_text().splitlines()
    write_lines(root / "train.txt", [*lines, *(f"images/photo_{i}.jpg\t0,1,0" for i in range(3))])
    return open_data(Data(dir=str(root))).train


@pytest.mark.parametrize("threads", [0, 2, 4])
def test_threads_and_buffers_change_nothing(photos, threads):
    one, many = (training(photos, end=20, threads=n, **AUGMENTED) for n in (1, threads))
    assert_equal(one, many)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [0, 2])
def test_processes_change_nothing_from_whatever_step(photos, threads):
    alone = training(photos, start=3, end=20, **AUGMENTED)
    assert_equal(training(photos, start=3, end=20, threads=threads, workers=2, **AUGMENTED), alone)


@pytest.mark.parametrize(
    "hosts", [[range(4)], [(0, 1), (2, 3)], [(0, 2), (1, 3)], [(0,), (1, 2, 3)]]
)
def test_hosts_read_the_rows_of_one_batch_and_every_image_once_a_pass(photos, hosts):
    whole = training(photos, end=14, **AUGMENTED)  # eight passes over seven images
    parts = [training(photos, end=14, rows=rows, **AUGMENTED) for rows in hosts]
    for step, batch in enumerate(whole):
        for key, values in batch.items():
            for rows, part in zip(hosts, parts, strict=True):
                np.testing.assert_array_equal(part[step][key], values[list(rows)])
        expected = train_indices(len(photos), batch_size=4, seed=1, step=step)
        assert batch["index"].tolist() == expected
    passes = joined(whole, "index").reshape(8, 7)
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(np.arange(7), (8, 1)))


@pytest.mark.parametrize("rows", [(0, 1), (2, 3), (3,)])
def test_hosts_evaluate_their_rows_of_one_batch(rows):
    whole = evaluation(Numbers(6), batch_size=4)
    config = Data(threads=2)
    part = list(eval_batches(reader(Numbers(6)), config, batch_size=4, rows=rows))
    assert_equal(part, [{key: b[key][list(rows)] for key in b} for b in whole])


@pytest.mark.slow
def test_what_processes_cannot_read_is_named_here():
    source = Numbers(6, broken=(1, 4))
    reading = reader(source, "skip")
    options = {"batch_size": 4, "seed": 1, "start_step": 0, "end_step": 3}
    batches = list(train_batches(reading, Data(workers=2), **options))
    assert_equal(batches, list(train_batches(reader(source, "skip"), Data(), **options)))
    assert reading.broken == {
        1: "list.txt:2: image 1 is broken",
        4: "list.txt:5: image 4 is broken",
    }
    with pytest.raises(DataError, match=r"^list.txt:\d: image \d is broken$"):
        training(source, end=3, workers=2)


def test_another_seed_gives_another_order():
    one, other, same = (joined(training(Numbers(30), end=7, seed=s), "index") for s in (1, 2, 1))
    assert one.tolist() == same.tolist() != other.tolist()


@pytest.mark.parametrize("batch_size", [1, 3, 10, 14])
def test_every_pass_is_a_new_permutation_whatever_the_batch_size(batch_size):
    count = 10
    order = joined(training(Numbers(count), end=count, batch_size=batch_size), "index")
    passes = order.reshape(batch_size, count)
    np.testing.assert_array_equal(
        np.sort(passes, axis=1), np.tile(np.arange(count), (batch_size, 1))
    )
    assert all((one != other).any() for one, other in pairwise(passes))
    assert (passes[0] != np.arange(count)).any()


def test_training_images_and_targets_belong_to_their_index():
    batches = training(Numbers(10), end=5)
    index = joined(batches, "index")
    np.testing.assert_array_equal(joined(batches, "image")[:, 3, 2, 1], index)
    np.testing.assert_array_equal(joined(batches, "target")[:, 1], index % 2)
    assert joined(batches, "mask").all()


def test_a_source_smaller_than_the_batch_is_repeated_inside_it():
    (batch,) = training(Numbers(1), end=1)
    assert batch["index"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("threads", [1, 4])
def test_a_broken_image_stops_the_stream_with_file_and_line(tmp_path, threads):
    root = write_photos(tmp_path / "data")
    (root / "images" / "train_2.png").write_bytes(b"not an image")
    (root / "images" / "val_1.png").write_bytes(b"")
    data = open_data(Data(dir=str(root)))
    with pytest.raises(DataError) as caught:
        training(data.train, end=3, threads=threads)
    place = f"{root}/train.txt:3: {root}/images/train_2.png: "
    assert caught.value.message.startswith(place)
    with pytest.raises(DataError, match=r"val.txt:2: .*val_1.png: "):
        evaluation(data.validation, batch_size=2, threads=threads)


def test_skipped_images_are_masked_and_named_once(caplog):
    source = Numbers(6, broken=(1, 4))
    reading = reader(source, "skip")
    config = Data(threads=4)
    for _ in range(2):  # as in two evaluations
        batches = list(eval_batches(reading, config, batch_size=4))
        np.testing.assert_array_equal(joined(batches, "mask")[:6], [1, 0, 1, 1, 0, 1])
        assert (joined(batches, "image")[[1, 4]] == GREY).all()
        assert (joined(batches, "target")[[1, 4]] == 0).all()
    assert reading.broken == {
        1: "list.txt:2: image 1 is broken",
        4: "list.txt:5: image 4 is broken",
    }
    assert sum("is broken" in record.message for record in caplog.records) == 2


def test_skipped_images_keep_their_places_in_the_order():
    good, bad = Numbers(10), Numbers(10, broken=(3, 7))
    options = {"batch_size": 4, "seed": 1, "start_step": 0, "end_step": 5}
    whole = list(train_batches(reader(good), Data(), **options))
    gaps = list(train_batches(reader(bad, "skip"), Data(), **options))
    index = joined(gaps, "index")
    np.testing.assert_array_equal(index, joined(whole, "index"))
    np.testing.assert_array_equal(joined(gaps, "mask"), ~np.isin(index, [3, 7]))


@pytest.mark.parametrize("start", [0, 1, 5, 19, 20])
def test_an_augmented_stream_started_at_a_step_is_the_rest_of_the_whole(start):
    whole = training(Numbers(10), end=20, **AUGMENTED)
    assert_equal(training(Numbers(10), start=start, end=20, **AUGMENTED), whole[start:])
    assert_equal(training(Numbers(10), end=30, **AUGMENTED)[:20], whole)


def test_augmentation_changes_images_and_nothing_else():
    plain, augmented = training(Numbers(10), end=20), training(Numbers(10), end=20, **AUGMENTED)
    for key in ("target", "mask", "index"):
        np.testing.assert_array_equal(joined(augmented, key), joined(plain, key))
    changed = (joined(augmented, "image") != joined(plain, "image")).any(axis=(1, 2, 3))
    assert changed.mean() > 0.9


def test_every_pass_and_every_seed_augments_differently():
    source = Numbers(1)
    images = joined(training(source, end=5, **AUGMENTED), "image")
    assert len({image.tobytes() for image in images}) > 10
    assert (images != joined(training(source, end=5, seed=2, **AUGMENTED), "image")).any()


def test_evaluation_is_never_augmented():
    plain, augmented = (
        list(eval_batches(reader(Numbers(6)), Data(**options), batch_size=4))
        for options in ({}, AUGMENTED)
    )
    assert_equal(plain, augmented)


def test_what_cannot_be_read_is_not_augmented():
    batches = train_batches(
        reader(Numbers(6, broken=(1, 4)), "skip"),
        Data(**AUGMENTED),
        batch_size=4,
        seed=1,
        start_step=0,
        end_step=6,
    )
    batches = list(batches)
    masked = joined(batches, "image")[~joined(batches, "mask")]
    assert len(masked) == 8 and (masked == GREY).all()


def test_an_unknown_augmentation_fails_before_the_first_batch():
    config = Data(augment=("cutout", "cut-out"))
    with pytest.raises(ConfigError, match="'cut-out'.*did you mean cutout"):
        train_batches(reader(Numbers(3)), config, batch_size=1, seed=0, start_step=0, end_step=1)


CROPPED = {"augment": ("random_resized_crop", "flip")}


def test_cropped_images_are_parts_of_the_picture_and_follow_the_seed(tmp_path):
    columns = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 4, 48, axis=0)
    root = write_photos(tmp_path / "data")
    Image.fromarray(np.repeat(columns, 3, axis=2)).save(root / "images/train_0.png")
    write_lines(root / "train.txt", ["images/train_0.png\t1,0,0"])
    source = open_data(Data(dir=str(root))).train
    images = joined(training(source, end=10, **CROPPED), "image").astype(int)
    assert images.shape == (40, *SIZE, 3)
    ranges = images.max(axis=(1, 2, 3)) - images.min(axis=(1, 2, 3))
    assert len(set(ranges.tolist())) > 10  # of several widths
    assert ranges.min() > 0.5 * 0.6 * 252 and ranges.max() <= 252
    np.testing.assert_array_equal(images, joined(training(source, end=10, **CROPPED), "image"))


@pytest.mark.parametrize("augment", [(), CROPPED["augment"]])
def test_a_large_jpeg_decoded_small_trains_like_the_whole_one(tmp_path, augment):
    y, x = np.mgrid[:480, :640]
    smooth = np.stack([x * 255 // 640, y * 255 // 480, (x + y) * 255 // 1120], -1)
    root = write_photos(tmp_path / "data")
    Image.fromarray(smooth.astype(np.uint8)).save(root / "images/train_0.jpg", quality=95)
    write_lines(root / "train.txt", ["images/train_0.jpg\t1,0,0"])
    source = open_data(Data(dir=str(root))).train
    fast, exact = (
        joined(training(source, end=3, augment=augment, train_resize=how), "image").astype(int)
        for how in ("fast", "exact")
    )
    assert (fast != exact).any() and np.abs(fast - exact).max() < 8


@pytest.mark.slow
def test_full_shared_memory_is_named_and_not_the_disk(tmp_path):
    if not hasattr(os, "geteuid") or os.geteuid():
        pytest.skip("mounting wants root")
    program = tmp_path / "read.py"
    program.write_text(FULL_SHARED_MEMORY)
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    command = ["unshare", "-m", "sh", "-c", f"{mount} && exec {sys.executable} {program}"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert done.stdout.startswith("/dev/shm: is full"), done.stderr
    assert "data.workers=0" in done.stdout


FULL_SHARED_MEMORY = """
from mlcls_jax.config import Data
from mlcls_jax.data.frame import Frame
from mlcls_jax.data.pipeline import Reader, train_batches
from mlcls_jax.data.sources import open_split
from mlcls_jax.errors import DataError

if __name__ == "__main__":
    data = Data(source="digits", workers=1)
    reader = Reader(open_split(data, "train"), Frame((64, 64)), "raise")
    try:
        list(train_batches(reader, data, batch_size=8, seed=0, start_step=0, end_step=4))
    except DataError as error:
        print(error.message, error.hint)
"""


def test_the_size_of_a_steps_images_depends_on_seed_and_step_only():
    frames, source, config = [Frame((4, 4)), Frame(SIZE), Frame((12, 8))], Numbers(10), Data()

    def batches(start, end, seed=1, rows=None):
        options = {"batch_size": 4, "seed": seed, "start_step": start, "end_step": end}
        return [*train_batches(reader(source), config, rows=rows, frames=frames, **options)]

    whole = batches(0, 20)
    sizes = [batch["image"].shape[1:3] for batch in whole]
    assert {*sizes} == {frame.size for frame in frames}
    assert [batch["image"].shape[1:3] for batch in batches(0, 20, seed=2)] != sizes
    for ours, theirs in zip(batches(7, 12), whole[7:12], strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])
    for half, both in zip(batches(0, 20, rows=[1, 3]), whole, strict=True):
        np.testing.assert_array_equal(half["image"], both["image"][[1, 3]])
    plain = training(source, end=20, batch_size=4)
    np.testing.assert_array_equal(joined(plain, "index"), joined(whole, "index"))
