"""Numbers about a server, in the text format of Prometheus."""

from collections.abc import Callable
from functools import partial

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Monitor:
    """Counters in a registry of their own; may be used from any thread."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, processor time, open files
        counter = partial(Counter, registry=registry)
        seconds = partial(Histogram, buckets=_SECONDS, registry=registry)
        self.requests = counter("mlcls_requests", "Requests by status, all paths", ["code"])
        told = "From the headers of a classification to its answer"
        self.latency = seconds("mlcls_request_seconds", told)
        told = "Time of an image (queue, decode) or of a batch (compute)"
        phases = seconds("mlcls_phase_seconds", told, ["phase"])
        self.queue, self.decode, self.compute = map(phases.labels, ("queue", "decode", "compute"))
        told = "Images computed together"
        self.batches = Histogram("mlcls_batch_size", told, buckets=_IMAGES, registry=registry)
        self.images = counter("mlcls_images", "Images whose scores were computed")
        told = "Images that wait for the device"
        self._queue_length = Gauge("mlcls_queue_length", told, registry=registry)

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Report `length()` whenever the numbers are asked for."""
        self._queue_length.set_function(length)

    def text(self) -> bytes:
        """Return all numbers, of `CONTENT_TYPE`."""
        return generate_latest(self._registry)
