"""A web server on this machine, which begins and ends with a block."""

import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self


class Server(ThreadingHTTPServer):
    """Answers at `url`; a handler may note in `asked` what it was asked."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.port, self.url = self.server_port, f"http://127.0.0.1:{self.server_port}"
        self.asked: list[Any] = []

    def __enter__(self) -> Self:
        # Looks every 10 ms whether to end: by default, ending takes half a second.
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


def serve(folder: Path) -> Server:
    """Return a server of the files in a folder, which notes each request."""
    return Server(partial(_Files, directory=folder))


class _Files(SimpleHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        self.server.asked.append(self.requestline)
