"""What one request may cost, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass

from plusx.errors import serve as sentences


@dataclass(frozen=True)
class Limits:
    """Bounds of the service. Raises UsageError where one of those that users choose lets nothing through.

    `queue`: photos that are admitted and not answered; `deadline`: seconds from a photo's arrival to its answer.
    """

    megabytes: float = 20.0  # of one body
    megapixels: float = 25.0  # of one photo
    deadline: float = 10.0
    queue: int = 64
    workers: int | None = None  # processes that decode; None: one for each CPU
    head_seconds: float = 10.0  # in which the head of a request has to arrive
    body_seconds: float = 30.0  # and its body
    reply_seconds: float = 30.0  # for which a client may read nothing of its reply
    idle_seconds: int = 15  # for which a connection may ask for nothing
    decode_seconds: float = 5.0  # in which a photo has to be decoded
    head_bytes: int = 32 << 10
    uploads: int = 512 << 20  # bytes of all bodies that are in memory
    connections: int = 4096
    lag_seconds: float = 0.5  # between being told to stop and taking no more requests
    drain_seconds: int = 30  # in which what was taken is finished

    def __post_init__(self) -> None:
        for flag, value, least in (
            ("--max-megabytes", self.megabytes, 0.001),
            ("--max-megapixels", self.megapixels, 0.001),
            ("--deadline", self.deadline, 0.1),
            ("--queue", self.queue, 1),
            ("--workers", 1 if self.workers is None else self.workers, 1),
        ):
            if not least <= value < float("inf"):
                raise sentences.bad_limit(flag, value, f"a number of {least:g} or more")

    @property
    def body_bytes(self) -> int:
        """Of one body."""
        return int(self.megabytes * 1_000_000)

    @property
    def pixels(self) -> int:
        """Of one photo."""
        return int(self.megapixels * 1_000_000)
