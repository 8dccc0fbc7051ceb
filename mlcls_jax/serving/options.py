"""Options of a server, and the command line's arguments for them."""

import argparse
import math
import os
import re
from dataclasses import dataclass, fields

from mlcls_jax.config import from_arguments, option
from mlcls_jax.errors import ConfigError

API_KEY = "MLCLS_API_KEY"  # environment variable


@dataclass(frozen=True, kw_only=True)
class Options:
    """Limits and times of a server.

    Raises:
      ConfigError: a value is outside its range, or the key or a file for TLS makes no sense.
    """

    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0: all addresses of the machine")
    port: int = option(8080, "port to listen on; 0: any free one", min=0, max=65535)
    max_batch: int = option(16, "largest number of images computed together", min=1)
    max_wait_ms: float = option(
        0.0, "how long to wait for more images while the device is idle; 0: start at once", min=0
    )
    queue_size: int = option(256, "images being processed or waiting; more get status 503", min=1)
    max_masked: int = option(
        4,
        "images explained by masking at one time, each computed 65 times; more get status 503. 0:"
        " none, and `explain` takes a head that attends",
        min=0,
    )
    request_timeout_s: float = option(30.0, "time from body to answer; then status 504", min=0.01)
    header_timeout_s: float = option(
        10.0, "time for the headers of a request to arrive; then the connection is closed", min=0.01
    )
    body_timeout_s: float = option(60.0, "time for a body to arrive; then status 408", min=0.01)
    drain_timeout_s: float = option(
        30.0, "after SIGTERM or SIGINT: time for pending answers", min=0
    )
    max_body_mb: float = option(20.0, "largest size of a request; above it, status 413", min=0.001)
    max_held_mb: float = option(
        512.0, "largest total size of concurrent requests; above it, status 503", min=0.001
    )
    max_connections: int = option(
        512, "open connections; above it, status 503: keep it well below `ulimit -n`", min=1
    )
    max_pixels: int = option(50_000_000, "largest width times height of an image", min=1)
    tta: tuple[str, ...] = ()  # views of every picture; the command has the flag
    decoders: int = option(
        min(os.cpu_count() or 1, 8),
        "processes that decode and resize images; twice half as many more for slow ones",
        min=1,
    )
    allow_urls: tuple[str, ...] = option(
        (),
        "hosts from which images are fetched, such as images.example.org; none: URLs are off",
        metavar="HOST",
    )
    label_studio: str | None = option(
        None,
        "folder of the images of Label Studio, its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT: answer"
        " as its machine learning backend, too",
        path="local",
    )
    cors: tuple[str, ...] = option(
        (), "origins of other web pages that may send requests; none: only ours", metavar="HOST"
    )
    api_key: str | None = option(
        None,
        f"key that requests must have; better given as {API_KEY} in the environment: `ps` shows"
        " arguments",
        is_secret=True,
    )
    tls_cert: str | None = option(None, "file with the certificate (chain), PEM: serve over HTTPS")
    tls_key: str | None = option(None, "file with the certificate's private key, PEM")

    @property
    def max_body_bytes(self) -> int:
        """Return the bytes that a request may have."""
        return int(self.max_body_mb * 2**20)

    def __post_init__(self) -> None:
        for f in fields(self):
            if f.metadata.get("min") is None:
                continue
            value, low, high = getattr(self, f.name), f.metadata["min"], f.metadata["max"]
            if not low <= value <= (math.inf if high is None else high):
                limits = f"at least {low}" if high is None else f"from {low} to {high}"
                raise ConfigError(f"{f.name}={value}: must be {limits}")
        if self.api_key is not None and not re.fullmatch(r"[!-~]+", self.api_key):
            raise ConfigError(
                "api_key: must consist of ASCII letters, digits and signs, without spaces"
                + ("" if self.api_key else "; it is empty"),
                f"It is taken from --api_key or else {API_KEY}; unset both to serve without a key.",
            )
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError(
                f"{'tls_key' if self.tls_cert else 'tls_cert'}: is missing",
                "HTTPS takes two files: --tls_cert and --tls_key.",
            )


def options_of(arguments: argparse.Namespace, tta: tuple[str, ...] = ()) -> Options:
    """Return the options among a command's arguments; the key may be in the environment."""
    key = os.environ.get(API_KEY) if arguments.api_key is None else arguments.api_key
    return from_arguments(Options, arguments, api_key=key, tta=tta)
