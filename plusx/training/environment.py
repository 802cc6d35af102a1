"""The environment a run depends on: device, threads, denormals, determinism; recorded, and the same on resume."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import PIL
import torch
from torch.utils import deterministic

from plusx.errors import processes, usage
from plusx.images.pool import usable_cpus
from plusx.launch import launched
from plusx.version import __version__

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names of malloc.h
_MOST_KEPT, _MOST_KEPT_BEFORE = 1 << 30, 1 << 25  # bytes; glibc before 2.35 refuses more than half of a heap
_X86 = ("x86_64", "AMD64")


def choose_device(name: str) -> torch.device:
    """The device behind 'auto' (CUDA, else Apple's, else the CPU) or the one named. Raises UsageError without it."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    if not there.get(name, False):
        raise usage.no_device(name)
    return torch.device(name)


def own_device(device: torch.device) -> torch.device:
    """Of several processes on a machine, each has a GPU of its own. Raises UsageError where there are too few."""
    launch = launched()
    if launch.size == 1 or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise processes.no_accelerator(device.type)
    if launch.local_rank >= torch.cuda.device_count():
        raise processes.too_few_gpus(launch.local_rank, torch.cuda.device_count())
    torch.cuda.set_device(launch.local_rank)
    return torch.device("cuda", launch.local_rank)


def choose_precision(device: torch.device, precision: str) -> str:
    """What "auto" means on `device`: bf16 where it multiplies in bf16 itself, else fp32; anything else stays."""
    if precision != "auto":
        return precision
    return "bf16" if _multiplies_bf16(device) else "fp32"


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    # elsewhere than on x86, convolutions in bf16 fall back to what is slower than float32
    fast = platform.machine() in _X86 and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return fast and any(there for name, there in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


def require_precision(device: torch.device, precision: str) -> None:
    """Raise UsageError where `device` has no such precision: fp16 needs a scaler, which CUDA alone has."""
    if precision == "fp16" and device.type != "cuda":
        raise usage.no_precision(precision, device.type)
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise usage.no_precision(precision, device.type)


def prepare(device: torch.device, threads: int | None = None, *, fast_math: bool = False) -> None:
    """Make equal inputs give equal bits: deterministic kernels, a fixed number of threads, denormals flushed.

    Denormal numbers are slow on many CPUs and carry nothing in training; flushing them is part of the record.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
    keep_freed_memory()
    torch.set_flush_denormal(True)  # before the first parallel work: threads inherit it when they start
    torch.set_num_threads(threads or _asked_threads() or max(1, usable_cpus() // launched().local_size))
    torch.use_deterministic_algorithms(_is_exact(device, fast_math))
    # nothing here reads what was never written
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = fast_math
    torch.set_float32_matmul_precision("high" if fast_math else "highest")


def keep_freed_memory() -> None:
    """Let glibc keep what one step frees for the next: what goes back to the kernel returns as page faults.

    Worth about a quarter of a step on a CPU (`docs/experiments.md`). Elsewhere than with glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        if not mallopt(_M_MMAP_THRESHOLD, _MOST_KEPT):
            mallopt(_M_MMAP_THRESHOLD, _MOST_KEPT_BEFORE)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def _is_exact(device: torch.device, fast_math: bool) -> bool:
    """Whether kernels are held to deterministic ones: on Apple's GPUs max pooling has none, and would be refused."""
    return not fast_math and device.type != "mps"


def _asked_threads() -> int | None:
    """OMP_NUM_THREADS, where it is set to a number."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) else None


def record(device: torch.device, *, fast_math: bool) -> dict[str, Any]:
    """What the numbers of a run depend on besides data, seed, settings and plan."""
    return {
        "plusx": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": usable_cpus(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "flush_denormal": _flushes_denormals(),
        "deterministic": _is_exact(device, fast_math),
        "processes": launched().size,
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed between two records, as 'torch was 2.14 and is now 2.15'; of processes, more is said elsewhere."""
    compared = [key for key in before if key != "processes"]
    return [f"{key} was {before[key]} and is now {now[key]}" for key in compared if now.get(key) != before[key]]


def _flushes_denormals() -> bool:
    """Measured, because not every processor can."""
    return (torch.tensor([1e-39]) * 0.5).item() == 0.0


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
