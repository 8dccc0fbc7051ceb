"""The server under load: connections that ask for one image after another and check each answer.

python -m benchmarks.server MODEL_DIR [--connections 32] [--seconds 30] [--max_batch 16]
    [--hostile 0] [--json FILE]

Server and clients share this machine's processors, as two processes. Each connection sends pictures
of its own (noise, as PNG) and knows their scores beforehand. Below the table: what the bare
predictor does in a loop with batches as large as the server's were on average.

With `--hostile 4`, the same again while four more connections send JPEGs that take 20 s to decode:
no answer may then take more than three times as long as the longest before.
"""

import argparse
import asyncio
import io
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.timing import print_table
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.predictor import Predictor

T = TypeVar("T")

PATH = "/multilabel-image-classification?threshold=0.0"
TOLERANCE = 1e-4
PERCENTILES = (50, 90, 99, 100)
SERVER = """
import sys
from pathlib import Path
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.serving import Options, serve

size = int(sys.argv[2])
predictor = Predictor(read_bundle(Path(sys.argv[1])), batch_size=size)
serve(predictor, Options(port=0, max_batch=size), announce=lambda text: print(text, flush=True))
"""


def main() -> None:
    """Start a server, load it, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--max_batch", type=int, default=16)
    parser.add_argument("--hostile", type=int, default=0, help="connections that send slow JPEGs")
    parser.add_argument("--json", help="write the table to this file too")
    options = parser.parse_args()

    predictor = Predictor(read_bundle(options.model_dir), batch_size=options.max_batch)
    pictures = [
        _picture(seed, predictor.bundle.image_size) for seed in range(4 * options.connections)
    ]
    expected = np.concatenate(
        [predictor.scores(pictures[i : i + 16]) for i in range(0, len(pictures), 16)]
    )
    apart = np.abs(expected[:, None] - expected[None]).max(-1)
    apart = apart[np.triu_indices(len(pictures), 1)].min()
    if apart < 2 * TOLERANCE:
        sys.exit(f"the model cannot tell the pictures apart: their scores differ by {apart:.1e}")

    command = [sys.executable, "-c", SERVER, options.model_dir, str(options.max_batch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        port = int(server.stdout.readline().rpartition(":")[2])
        _wait_until_ready(port)
        files = [_png(picture) for picture in pictures]
        asyncio.run(_load(port, files, expected, options.connections, min(options.seconds, 2)))
        before, started = _metrics(port), time.monotonic()
        outcomes = asyncio.run(_load(port, files, expected, options.connections, options.seconds))
        seconds, after = time.monotonic() - started, _metrics(port)
        with_hostile = []
        if options.hostile:
            load = _load(port, files, expected, options.connections, options.seconds)
            with_hostile = asyncio.run(_besieged(port, load, options.hostile))
        server.send_signal(signal.SIGTERM)
    counted = {name: after[name] - before.get(name, 0) for name in after}

    images, batches = counted["mlcls_batch_size_sum"], counted["mlcls_batch_size_count"]
    latencies = np.array([latency for latency, _ in outcomes]) * 1000
    verdicts = [verdict for _, verdict in outcomes]
    bare = _bare_loop(predictor, pictures, max(1, round(images / batches)), seconds=min(seconds, 5))
    rate = verdicts.count("right") / seconds
    rows = [
        ("requests", f"{len(outcomes):,}"),
        ("failures", f"{verdicts.count('failed'):,}"),
        ("wrong answers", f"{verdicts.count('wrong'):,}"),
        ("images/s", f"{rate:,.0f}"),
        *((f"latency, {p} %, ms", f"{np.percentile(latencies, p):.1f}") for p in PERCENTILES),
        ("mean batch", f"{images / batches:.1f}"),
        ("bare predictor, images/s", f"{bare:,.0f}"),
        ("server / bare predictor", f"{rate / bare:.2f}"),
        ("exit code after SIGTERM", str(server.returncode)),
    ]
    if with_hostile:
        besieged = np.array([latency for latency, _ in with_hostile]) * 1000
        verdicts += [verdict for _, verdict in with_hostile]
        longest = besieged.max() / latencies.max()
        rows += [
            ("with slow JPEGs: requests", f"{len(with_hostile):,}"),
            *((f"… latency, {p} %, ms", f"{np.percentile(besieged, p):.1f}") for p in PERCENTILES),
            ("… longest / longest before", f"{longest:.2f}"),
        ]
    title = f"{options.connections} connections, {seconds:.0f} s"
    print_table(title, [{"case": case, "value": value} for case, value in rows], options.json)
    if rate == 0 or set(verdicts) != {"right"} or server.returncode:
        sys.exit(1)
    if with_hostile and longest > 3:
        sys.exit("an answer took more than three times as long while slow JPEGs were sent")


async def _load(
    port: int, files: list[bytes], expected: np.ndarray, connections: int, seconds: float
) -> list[tuple[float, str]]:
    """Seconds to each answer, and whether it was right, wrong or failed."""
    end = time.monotonic() + seconds
    share = len(files) // connections
    parts = await asyncio.gather(
        *(
            _connection(port, files, expected, range(n * share, (n + 1) * share), end)
            for n in range(connections)
        )
    )
    return [outcome for part in parts for outcome in part]


async def _besieged(port: int, load: Awaitable[T], attackers: int) -> T:
    """What `load` returns, while so many connections send JPEGs that take long to decode."""
    picture = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(picture, "JPEG", progressive=True)
    data = picture.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    slow = data[:-2] + 200 * scan + data[-2:]
    attacks = [asyncio.create_task(_attack(port, slow)) for _ in range(attackers)]
    try:
        return await load
    finally:
        for attack in attacks:
            attack.cancel()
        await asyncio.gather(*attacks, return_exceptions=True)


async def _attack(port: int, file: bytes) -> None:
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_request(file, "image/jpeg"))
        await reader.read(1000)
        writer.close()


async def _connection(
    port: int, files: list[bytes], expected: np.ndarray, mine: range, end: float
) -> list[tuple[float, str]]:
    outcomes = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < end:
        index = mine[len(outcomes) % len(mine)]
        started = time.monotonic()
        writer.write(_request(files[index], "image/png"))
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(None, 1)[0])
            answer = json.loads(await reader.readexactly(length))
        except (OSError, EOFError, ValueError):
            outcomes.append((time.monotonic() - started, "failed"))
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        outcomes.append((time.monotonic() - started, _verdict(answer, expected[index])))
    writer.close()
    return outcomes


def _request(file: bytes, kind: str) -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(file)}\r\n\r\n".encode() + file


def _verdict(answer: dict, expected: np.ndarray) -> str:
    if answer["errorCode"]:
        return "failed"
    scores = np.zeros(len(expected))
    for category in answer["result"]["categories"]:
        scores[category["id"]] = category["score"]
    return "right" if np.abs(scores - expected).max() < TOLERANCE else "wrong"


def _bare_loop(
    predictor: Predictor, pictures: list[np.ndarray], batch: int, *, seconds: float
) -> float:
    """Images/s of prepared images, nothing around the predictor."""
    images = np.stack([predictor.prepare(picture) for picture in pictures[:batch]])
    predictor.run(images)
    started, count = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        predictor.run(images)
        count += batch
    return count / (time.monotonic() - started)


def _picture(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Coloured squares of the model's size."""
    cells = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.array(Image.fromarray(cells).resize(size[::-1], Image.Resampling.NEAREST))


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _wait_until_ready(port: int) -> None:
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=60):
                return
        except urllib.error.HTTPError:
            time.sleep(0.1)


def _metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {s.name: s.value for family in families for s in family.samples if not s.labels}


if __name__ == "__main__":
    main()
