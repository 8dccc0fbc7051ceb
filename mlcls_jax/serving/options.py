"""What a server may be told, and the command line's arguments for it."""

import argparse
import math
import os
from dataclasses import dataclass, fields

from mlcls_jax.config import option
from mlcls_jax.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Limits and times of a server.

    Raises:
      ConfigError: a value is outside its range.
    """

    host: str = option("127.0.0.1", "address to listen at; 0.0.0.0: all of the machine's")
    port: int = option(8080, "port to listen at; 0: any free one", min=0, max=65535)
    max_batch: int = option(16, "images computed together, at most", min=1)
    max_wait_ms: float = option(
        0.0, "wait so long for more images while the device is idle; 0: start at once", min=0
    )
    queue_size: int = option(256, "images at work or waiting; more get status 503", min=1)
    request_timeout_s: float = option(30.0, "time from body to answer; then status 504", min=0.01)
    body_timeout_s: float = option(60.0, "time for a body to arrive; then status 408", min=0.01)
    drain_timeout_s: float = option(
        30.0, "after SIGTERM or SIGINT: time for the answers that are due", min=0
    )
    max_body_mb: float = option(20.0, "size of a request; above it, status 413", min=0.001)
    max_held_mb: float = option(
        512.0, "size of all requests at one time; above it, status 503", min=0.001
    )
    max_pixels: int = option(50_000_000, "width times height of an image, at most", min=1)
    decoders: int = option(
        min(os.cpu_count() or 1, 8),
        "processes that decode and resize images; twice half as many more for slow ones",
        min=1,
    )
    allow_urls: tuple[str, ...] = option(
        (), "hosts from which images are fetched, such as images.example.org; none: URLs are off"
    )
    cors: tuple[str, ...] = option((), "origins of other web pages that may ask; none: only ours")

    def __post_init__(self) -> None:
        for f in fields(self):
            value, low, high = getattr(self, f.name), f.metadata["min"], f.metadata["max"]
            if low is None:
                continue
            if not low <= value <= (math.inf if high is None else high):
                limits = f"at least {low}" if high is None else f"from {low} to {high}"
                raise ConfigError(f"{f.name}={value}: must be {limits}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let `parser` know every option, as `--name VALUE`."""
    for f in fields(Options):
        many = isinstance(f.default, tuple)
        parser.add_argument(
            f"--{f.name}",
            type=str if many else type(f.default),
            default=f.default,
            nargs="+" if many else None,
            metavar=f.name.rpartition("_")[2].upper() if not many else "HOST",
            help=f"{f.metadata['help']} (default: {f.default})".replace(" (default: ())", ""),
        )


def from_arguments(arguments: argparse.Namespace) -> Options:
    """The options that a parser of `add_arguments` has read."""
    given = {f.name: getattr(arguments, f.name) for f in fields(Options)}
    return Options(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
