"""The machine's own limits: how fast it multiplies matrices, and how fast it copies memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIDES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}  # of the matrices that are multiplied
COPIED = {"cpu": 1 << 28, "cuda": 1 << 30}  # bytes, far more than a cache holds


@dataclass(frozen=True)
class Clock:
    """Seconds of work on a device, waited for."""

    device: torch.device

    def now(self) -> float:
        """Seconds, once everything handed to the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    def seconds(self, work: Callable[[], object]) -> float:
        """Seconds that `work` takes."""
        started = self.now()
        work()
        return self.now() - started

    def median(self, work: Callable[[], object], times: int) -> float:
        """Median seconds of `times` runs of `work`, after one that does not count."""
        self.seconds(work)
        return statistics.median(self.seconds(work) for _ in range(times))


class Ceilings:
    """Matrix products and copies of one device and precision, ready to be timed in turn with other work.

    A matrix product is tried as `torch.mm` and as the 1x1 convolution it equals, since the two may come from
    different libraries; `flops` is the rate of the fastest way at the best size.
    """

    def __init__(self, device: torch.device, precision: str) -> None:
        self.clock = Clock(device)
        kind = device.type if device.type in SIDES else "cuda"
        ways = [(side, way) for side in SIDES[kind] for way in (torch.mm, _as_convolution)]
        self._products = [_product(side, way, device, DTYPES[precision]) for side, way in ways]
        self._source = torch.zeros(COPIED[kind], dtype=torch.uint8, device=device)
        self._target = torch.empty_like(self._source)

    @torch.inference_mode()
    def flops(self) -> float:
        """Floating-point operations a second of matrix products: the best of all sizes and ways, each timed once."""
        return max(operations / self.clock.seconds(work) for operations, work in self._products)

    def bytes(self) -> float:
        """Bytes a second of a copy, those read and those written both counted."""
        return 2 * self._source.numel() / self.clock.seconds(lambda: self._target.copy_(self._source))


def _product(
    side: int, way: Callable[[Tensor, Tensor], Tensor], device: torch.device, dtype: torch.dtype
) -> tuple[int, Callable[[], Tensor]]:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3, lambda: way(a, b)


def _as_convolution(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T as a 1x1 convolution over the rows of a, seen as pixels."""
    side = len(a)
    pixels = a.view(1, 1, side, side).permute(0, 3, 1, 2)  # [1, channels, 1, side], channels last
    return F.conv2d(pixels, b.view(side, side, 1, 1))
