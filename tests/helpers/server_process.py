"""A server in a process of its own, and plain requests to it."""

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH = "/multilabel-image-classification"

# Files in the folder `switches` make the model misbehave, one at a time and when a test wants it.
SCRIPT = """
import json, sys, time
from pathlib import Path
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.models import registry
from mlcls_jax.serving import Options, serve
from tests.helpers import toy_backbone

registry.FAMILIES["Toy"] = toy_backbone.FAMILY
bundle, switches, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
options = Options(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})
predictor = Predictor(read_bundle(Path(bundle)), batch_size=options.max_batch)
run, warm_up = predictor.run, predictor.warm_up

def wait_while_held():
    while (switches / "hold").exists():
        (switches / "held").touch()
        time.sleep(0.005)

def switched(images):
    for name, error in (("fail", ValueError("secret")), ("exit", SystemExit(3))):
        if (switches / name).exists():
            (switches / name).unlink()
            raise error
    wait_while_held()
    return run(images)

predictor.run = switched
predictor.warm_up = lambda **options: (wait_while_held(), warm_up(**options))
serve(predictor, options, announce=lambda text: print(text, flush=True))
"""


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen
    port: int
    switches: Path

    def ask(
        self, body: Any = None, kind: str = "application/json", *, path: str = PATH, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, body (parsed if JSON) and headers; `body` is sent as JSON unless bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            if body is None:
                connection.request("GET", path, headers=headers)
            else:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                connection.request("POST", path, data, {"Content-Type": kind, **headers})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(content) if is_json else content, dict(answer.headers)

    def classify(self, image: bytes, **options: Any) -> dict[str, Any]:
        """The result of an image that must be answered."""
        status, answer, _ = self.ask({"image": base64.b64encode(image).decode(), **options})
        assert status == 200, answer
        assert (answer["errorCode"], answer["errorMsg"]) == (0, "Success")
        assert answer["logId"]
        return answer["result"]

    def wait_for(self, path: str, status: int) -> None:
        """Until `path` has this status."""
        wait(lambda: self.ask(path=path)[0] == status)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


def start(bundle: Path, switches: Path, **options: Any) -> Server:
    """A server of `bundle` on a free port of loopback, perhaps not warm yet."""
    switches.mkdir(exist_ok=True)
    command = [sys.executable, "-c", SCRIPT, bundle, switches, json.dumps({"port": 0, **options})]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    line = process.stdout.readline()
    assert line.startswith("Serving on http://127.0.0.1:"), line
    return Server(process, int(line.rpartition(":")[2]), switches)


def wait(condition: Any, seconds: float = 120) -> None:
    """Until `condition()` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
