"""The processes that decode for the server: real ones, with pictures made to be slow or large."""

import asyncio
import io
import os
import signal
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from mlcls_jax.data.frame import Frame
from mlcls_jax.data.images import decode_image, resize
from mlcls_jax.errors import DataError
from mlcls_jax.serving.decoders import Decoders, _Group
from mlcls_jax.serving.monitor import Monitor
from mlcls_jax.serving.options import Options
from tests.helpers import bombs

PLAIN = {"frames": [Frame((32, 48))], "drawn_side": None}
PICTURE = bombs.encoded(bombs.noise(60, 90), "PNG")


def run(work, **options):
    """What `work(decoders)` returns; afterwards no process of them is left."""

    async def main():
        decoders = Decoders(Options(decoders=1, **options), Monitor())
        try:
            return await work(decoders)
        finally:
            processes = [process for group in decoders._groups for process in living(group)]
            decoders.close()
            for process in processes:
                assert await asyncio.to_thread(process._process.wait, 60) == -signal.SIGKILL

    return asyncio.run(main())


def living(group):
    return [*group._idle, *group._busy]


def test_a_picture_is_as_evaluation_reads_it():
    async def work(decoders):
        plain = await decoders.decode(PICTURE, **PLAIN)
        drawn = await decoders.decode(PICTURE, frames=[Frame((32, 48))], drawn_side=45)
        return plain, drawn

    (plain,), (image, drawn) = run(work)
    wanted = resize(decode_image(PICTURE, name="x"), (32, 48))
    np.testing.assert_array_equal(plain, wanted)
    np.testing.assert_array_equal(image, wanted)
    small = Image.open(io.BytesIO(PICTURE))
    small.thumbnail((45, 45))
    np.testing.assert_array_equal(drawn, np.array(small))


def test_what_is_no_picture_is_told_and_the_process_goes_on():
    async def work(decoders):
        first = living(decoders._groups[0])
        for data, message in [
            (b"no picture", "image: this is not an image"),
            (PICTURE[:-100], "image: cannot be decoded"),
            (bombs.png(100, 101), "100 x 101 pixels, above the limit of 10000"),
            (bombs.jpeg_scans(10_000, 64), "a JPEG of more than 256 scans"),
        ]:
            with pytest.raises(DataError, match=message):
                await decoders.decode(data, **PLAIN)
        await decoders.decode(PICTURE, **PLAIN)
        assert living(decoders._groups[0]) == first

    run(work, max_pixels=10_000)


SLOW = {  # several seconds of processor time
    "JPEG": lambda: bombs.jpeg_scans(250, 6000),
    "BMP": lambda: bombs.bmp_rle(60_000, 800),
}


@pytest.mark.parametrize("kind", SLOW)
def test_pictures_made_to_be_slow_keep_no_other_waiting(kind):
    slow = SLOW[kind]()

    async def work(decoders):
        slow_ones = [asyncio.create_task(decoders.decode(slow, **PLAIN)) for _ in range(4)]
        await asyncio.sleep(0.5)
        for _ in range(20):
            await decoders.decode(PICTURE, **PLAIN)
        assert not any(task.done() for task in slow_ones)
        while not living(decoders._groups[-1]):
            await asyncio.sleep(0.1)
        (process,) = living(decoders._groups[-1])
        for task in slow_ones:
            task.cancel()  # as when the time for an answer is over
        await asyncio.gather(*slow_ones, return_exceptions=True)
        assert await asyncio.to_thread(process._process.wait, 60) == -signal.SIGKILL

    run(work)


def test_a_large_picture_is_decoded_by_the_next_group():
    async def work(decoders):
        large = bombs.png(6000, 6000)  # some tenths of a second
        (image,) = await decoders.decode(large, **PLAIN)
        assert living(decoders._groups[1])
        return image

    assert not run(work).any()


def test_a_process_that_was_killed_is_replaced():
    async def work(decoders):
        (process,) = living(decoders._groups[0])
        await decoders.decode(PICTURE, **PLAIN)
        os.killpg(process._process.pid, signal.SIGKILL)
        with pytest.raises(DataError, match="image: the process that decoded it has ended"):
            await decoders.decode(PICTURE, **PLAIN)
        await decoders.decode(PICTURE, **PLAIN)
        assert living(decoders._groups[0]) != [process]

    run(work)


def test_a_process_takes_no_more_memory_than_it_may():
    async def work():
        group = _Group(1, None, 2**27)
        try:
            job = {**PLAIN, "frames": [asdict(Frame((32, 48)))], "max_pixels": 10**8}
            small, _ = await group.ask(job, PICTURE)
            large, _ = await group.ask(job, bombs.png(6000, 6000))
        finally:
            group.close()
        return small, large

    small, large = asyncio.run(work())
    assert "shapes" in small
    assert large["error"] == "image: too large to decode: it takes more memory than there is"


def test_a_process_imports_nothing_heavy():
    command = "import sys, mlcls_jax.data.decoder; print({m.split('.')[0] for m in sys.modules})"
    found = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert "simplejpeg" in found.stdout
    assert not {"jax", "flax", "cv2", "fastapi"} & eval(found.stdout)
