"""Data sets to look through, and a studio in a process of its own."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.helpers.toy_backbone import COMMAND

ROOT = Path(__file__).parents[2]
LABELS = ("cat", "dog", "<img src=x onerror=alert(1)>", "猫", "tree")


def write_dataset(
    folder: Path, *, train: int = 6, val: int = 1, labels: tuple[str, ...] = LABELS, names=None
) -> Path:
    """Images of few contents, hard links for the most part; image i has label i % K."""
    images = folder / "images"
    images.mkdir(parents=True)
    for i in range(7):
        pixels = np.random.default_rng(i).integers(0, 255, (6 + i, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 48 + i)).save(folder / f"{i}.png")
    (folder / "label.txt").write_text("".join(f"{k} {name}\n" for k, name in enumerate(labels)))
    number = 0
    for list_file, count in (("train.txt", train), ("val.txt", val)):
        lines = []
        for _ in range(count):
            name = names[number] if names else f"{number:05d}.png"
            os.link(folder / f"{number % 7}.png", images / name)
            values = (int(k == number % len(labels)) for k in range(len(labels)))
            lines.append(f"images/{name}\t{','.join(map(str, values))}\n")
            number += 1
        (folder / list_file).write_text("".join(lines))
    return folder


@dataclass(frozen=True)
class Studio:
    process: subprocess.Popen
    address: str  # with the token, if there is one

    @property
    def port(self) -> int:
        return int(re.search(r":(\d+)/", self.address)[1])

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers; a body is sent by POST, as JSON, with the studio's origin."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            if body is None:
                connection.request("GET", path, headers=given)
            else:
                own = {
                    "Content-Type": "application/json",
                    "Origin": f"http://127.0.0.1:{self.port}",
                }
                content = body if isinstance(body, bytes) else json.dumps(body)
                connection.request("POST", path, content, own | given)
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.headers)
        finally:
            connection.close()

    def json(self, path: str, body: Any = None) -> Any:
        status, content, _ = self.ask(path, body)
        assert status == 200, content
        return json.loads(content)

    def rows(self, query: str = "") -> list[int]:
        """The rows that a query finds."""
        status, content, _ = self.ask(f"/find?{query}")
        assert status == 200, content
        return np.frombuffer(content, "<i4").tolist()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)


@contextmanager
def studio(*arguments: Any) -> Iterator[Studio]:
    """`mlcls studio` at a free port; it must end well unless it was killed."""
    command = [sys.executable, "-c", COMMAND, "studio", *map(str, arguments), "--port=0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ}
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("Open http://"), line
        yield Studio(process, line.split()[1])
        if process.poll() is None:
            process.terminate()
            assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()
