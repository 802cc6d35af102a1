"""What the service counts of itself, in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_BATCH = (1, 2, 4, 8, 16, 32)


class Gauges:
    """Counters of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "plusx_requests", "Requests by path and status", ("path", "status"), registry=self.registry
        )
        self.bad_photos = Counter(
            "plusx_bad_photos", "Photos that were not answered", ("code",), registry=self.registry
        )
        self.answers = Counter("plusx_answers", "Photos answered", registry=self.registry)
        self.decoders_replaced = Counter(
            "plusx_decoders_replaced", "Decoding processes that ended or hung and were replaced", registry=self.registry
        )
        self.waiting = Gauge("plusx_photos_in_hand", "Photos admitted and not answered", registry=self.registry)
        self.ready = Gauge("plusx_ready", "1 once the self-test has passed, until the end", registry=self.registry)
        self.seconds = Histogram(
            "plusx_answer_seconds", "From a photo's arrival to its answer", buckets=_SECONDS, registry=self.registry
        )
        self.batches = Histogram(
            "plusx_batch_photos", "Photos computed together", buckets=_BATCH, registry=self.registry
        )
        self.computed = Histogram(
            "plusx_batch_seconds", "Seconds a batch was computed", buckets=_SECONDS, registry=self.registry
        )

    def batch(self, photos: int, seconds: float) -> None:
        """A batch was computed."""
        self.batches.observe(photos)
        self.computed.observe(seconds)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self.registry)
