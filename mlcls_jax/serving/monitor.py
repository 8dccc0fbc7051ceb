"""Numbers about a server, in the text format of Prometheus."""

from collections.abc import Callable

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
        self.requests = Counter(
            "mlcls_requests", "Requests by status, all paths", ["code"], registry=registry
        )
        self.latency = Histogram(
            "mlcls_request_seconds",
            "From the headers of a classification to its answer",
            buckets=_SECONDS,
            registry=registry,
        )
        self._phases = Histogram(
            "mlcls_phase_seconds",
            "Time of an image (queue, decode) or of a batch (compute)",
            ["phase"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue, self.decode, self.compute = map(
            self._phases.labels, ("queue", "decode", "compute")
        )
        self.batches = Histogram(
            "mlcls_batch_size", "Images computed together", buckets=_IMAGES, registry=registry
        )
        self.images = Counter(
            "mlcls_images", "Images whose scores were computed", registry=registry
        )
        self._queue_length = Gauge(
            "mlcls_queue_length", "Images that wait for the device", registry=registry
        )

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Report `length()` whenever the numbers are asked for."""
        self._queue_length.set_function(length)

    def text(self) -> bytes:
        """Return all numbers, of `CONTENT_TYPE`."""
        return generate_latest(self._registry)
