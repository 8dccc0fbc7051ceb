"""Headless Chromium, which is driven over its DevTools protocol."""

import itertools
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import websocket

from tests.helpers.server_process import wait

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-sync", "--disable-background-networking", "--disable-component-update"),
    *("--disable-dev-shm-usage", "--remote-debugging-port=0", "--remote-allow-origins=*"),
)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("MLCLS_REQUIRE_BROWSER"), reason="no Chromium here"
)


class Tab:
    """A browser tab."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=60)
        self._numbers = itertools.count(1)
        self.problems = []  # exceptions of scripts, and what the page's policy refused

    def send(self, method: str, **parameters):
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.problems.append(message["params"])
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def run(self, script: str):
        """The value of a JavaScript expression."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def choose(self, file: Path) -> None:
        """Put `file` into the page's field."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self.send("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def press(self, key: str, number: int = 0, *, code: str = "", modifiers: int = 0) -> None:
        """Press and release a key; modifiers: 1 Alt, 2 Ctrl, 4 Meta, 8 Shift, added up."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            facts = {"type": kind, "key": key, "code": code, "modifiers": modifiers}
            self.send("Input.dispatchKeyEvent", windowsVirtualKeyCode=number, **facts, **text)


@contextmanager
def chromium(folder: Path) -> Iterator[int]:
    """A browser with a new profile in `folder`; yields its debugging port."""
    profile = folder / "profile"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with (folder / "chromium.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    active = profile / "DevToolsActivePort"
    wait(lambda: active.exists() and active.read_text().count("\n") >= 1)
    yield int(active.read_text().split()[0])
    process.terminate()
    process.wait(30)


def open_tab(port: int, *, width: int, height: int, is_phone: bool = False) -> Tab:
    """A new tab of this size, in which nothing is open yet."""
    place = f"http://127.0.0.1:{port}/json/new?about:blank"
    with urllib.request.urlopen(urllib.request.Request(place, method="PUT")) as answer:
        tab = Tab(json.load(answer)["webSocketDebuggerUrl"])
    for domain in ("Runtime", "Log", "Page", "DOM"):
        tab.send(f"{domain}.enable")
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone}
    tab.send("Emulation.setDeviceMetricsOverride", **size)
    return tab
