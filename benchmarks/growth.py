"""What a photo costs when there are a thousand of them, and when there are a million: seconds and memory by stage.

    python benchmarks/growth.py WORK --photos 1000 10000 100000 1000000

WORK gets tars of distinct tiny photos, labelled by folder, ten thousand to a tar. Every stage runs in a process of
its own, after what it builds on: listing the photos (scan), their SHA-256 (hash), who trains and who tests (split),
decoding into an empty cache (cache), and all of `plusx check` (check). Then a training from its command to its
first batch, with no cache to decode into: from the tars (start), and from shards with an index (shards), which has
so many rows while its tars are a few that repeat. WORK/results.jsonl gets one line per size and stage, so that a
campaign that was stopped goes on where it was; the tables are printed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from simulated import simulated, unchecked
from table import row_of

from plusx.data.cache import pixel_store
from plusx.data.source import content_hashes, scan
from plusx.data.split import assign
from plusx.doctor.folder import check
from plusx.images.preprocess import Preprocess

STARTS = ("start", "shards")
STAGES = ("scan", "hash", "split", "cache", "check", *STARTS)
BEFORE = {"hash": ("scan",), "split": ("scan", "hash"), "cache": ("scan", "hash")}
IN_A_TAR = 10_000
SIDE = 8  # pixels
REAL = 1_000  # photos that the simulated shards hold
AT_LEAST, ROUNDS = 5.0, 5  # a stage is repeated until that took so many seconds, or so often
BASE = 10_000  # photos; cost at other sizes is compared with the cost at this one
CLASSES = ("cat", "dog")
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s")  # of POSIX's ustar, as far as it is used


class Look:
    """What each stage gives for the photos of one folder; each built once."""

    def __init__(self, data: Path) -> None:
        self.data = data

    @cached_property
    def scan(self) -> Any:
        """The listing."""
        return scan(self.data)

    @cached_property
    def hash(self) -> Any:
        """SHA-256 of every photo."""
        return content_hashes(self.scan.photos)

    @cached_property
    def split(self) -> Any:
        """The split of every photo."""
        return assign(self.scan, self.hash, None, seed=0)

    @cached_property
    def cache(self) -> Any:
        """The decoded photos."""
        return pixel_store(self.scan.photos, self.hash, Preprocess(resize=SIDE, crop=SIDE))

    @cached_property
    def check(self) -> Any:
        """The report, as `plusx check` prints it."""
        return check(self.data).lines()

    @cached_property
    def start(self) -> Any:
        """A training, stopped after its first batch was there."""
        return _first_batch(self.data)

    @cached_property
    def shards(self) -> Any:
        """The same, of shards."""
        from plusx.data import listing

        listing.Source = unchecked  # type: ignore[assignment, misc]
        return _first_batch(self.data)


class _Enough(Exception):
    """The first batch is there."""


def _first_batch(data: Path) -> None:
    from plusx.data.loader import Batch, Batches
    from plusx.verbs.train import train
    from plusx.verbs.wish import Wish

    real = Batches.batch

    def first(self: Batches, step: int) -> Batch:
        real(self, step)
        raise _Enough

    Batches.batch = first  # type: ignore[method-assign]
    out = Path(os.environ["XDG_CACHE_HOME"], "run")
    settings = {"epochs": 1, "size": 32, "model": "resnet20", "device": "cpu", "workers": 1}
    with contextlib.suppress(_Enough):
        train([str(data)], Wish(settings, ("sizes=[]",), out=out))
        raise RuntimeError("there was no first batch")


def make_photos(folder: Path, count: int) -> Path:
    """The folder with `count` distinct photos in tars; made once."""
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for start in range(0, count, IN_A_TAR):
            with (partial / f"shard-{start // IN_A_TAR:04}.tar").open("wb") as tar:
                for i in range(start, min(start + IN_A_TAR, count)):
                    tar.write(_member(f"{CLASSES[i % 2]}/{i:08}.png", _png(i)))
                tar.write(bytes(1024))
        partial.rename(folder)
    return folder


def _member(name: str, content: bytes) -> bytes:
    """One file of a tar; `tarfile` would take several times as long."""
    fields = (name.encode(), b"0000644\0", b"0000000\0", b"0000000\0", b"%011o\0" % len(content), b"%011o\0" % 0)
    header = _HEADER.pack(*fields, b" " * 8, b"0", b"", b"ustar\0", b"00")
    header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
    return header.ljust(512, b"\0") + content + bytes(-len(content) % 512)


def _png(index: int) -> bytes:
    """A picture of SIDE x SIDE pixels that no other index has."""
    row = b"\0" + (index.to_bytes(4) * (SIDE * 3))[: SIDE * 3]
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(row * SIDE, 1)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in (*chunks, (b"IEND", b"")))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def measured_here(stage: str, data: Path) -> dict[str, float]:
    """Seconds of `stage` in this process, its peak memory, and that of the largest of its workers, in bytes."""
    look, workers = Look(data), _Workers()
    for earlier in BEFORE.get(stage, ()):
        getattr(look, earlier)
    if stage in STARTS:
        import plusx.verbs.train  # noqa: F401 - what importing takes is no photo's
    before = _memory("self", "RssAnon")
    with workers:
        started = time.perf_counter()
        getattr(look, stage)
        seconds = time.perf_counter() - started
    anonymous = max(workers.anonymous, _memory("self", "RssAnon")) - before
    return {"seconds": seconds, "peak": _peak("self"), "worker_peak": workers.peak, "anonymous": anonymous}


class _Workers:
    """Looks at the memory of this process's children until it is told to stop; they are gone when the stage is over.

    And at its own without that of files, which the operating system can take back.
    """

    def __init__(self) -> None:
        self.peak = self.anonymous = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Workers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.anonymous = max(self.anonymous, _memory("self", "RssAnon"))
            self.peak = max([self.peak, *map(_peak, _children())])


def _children() -> Iterator[str]:
    for task in Path("/proc/self/task").iterdir():
        try:
            children = (task / "children").read_text().split()
            yield from (c for c in children if b"worker" in Path("/proc", c, "cmdline").read_bytes())
        except OSError:  # it has just ended
            continue


def _peak(process: str) -> int:
    """Most memory a process ever held, in bytes. `ru_maxrss` would count what its parent held when it was started."""
    return _memory(process, "VmHWM")


def _memory(process: str, kind: str) -> int:
    try:
        status = Path("/proc", process, "status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(kind)), 0)


def measure(stage: str, data: Path, cache: Path) -> dict[str, Any]:
    """Medians over fresh processes, each with an empty cache."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)} | ({"PLUSX_CACHE_GB": "0"} if stage in STARTS else {})
    rounds: list[dict[str, float]] = []
    started = time.monotonic()
    while not rounds or (len(rounds) < ROUNDS and time.monotonic() - started < AT_LEAST):
        shutil.rmtree(cache, ignore_errors=True)
        command = [sys.executable, __file__, "--here", stage, str(data)]
        rounds.append(json.loads(subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE).stdout))
    shutil.rmtree(cache, ignore_errors=True)
    seconds = [r["seconds"] for r in rounds]
    return {
        "rounds": len(rounds),
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
        "peak": max(r["peak"] for r in rounds),
        "worker_peak": max(r["worker_peak"] for r in rounds),
        "anonymous": max(r["anonymous"] for r in rounds),
    }


def table(lines: list[dict[str, Any]]) -> list[str]:
    """Markdown tables: what a photo costs by stage, and what a training costs until its first batch is there."""
    starts = [line for line in lines if line["stage"] in STARTS]
    others = [line for line in lines if line["stage"] not in STARTS]
    return [*(by_stage(others) if others else ()), *([""] if others and starts else ()), *(_started(starts))]


def _started(lines: list[dict[str, Any]]) -> list[str]:
    if not lines:
        return []
    found = {(line["photos"], line["stage"]): line for line in lines}
    sizes = sorted({n for n, _ in found})
    what = [f"{source}: {cell}" for source in ("tars", "shards") for cell in ("seconds to the first batch", "memory")]
    rows = [row_of("photos", *what), row_of(*["---:"] * 5)]
    for n in sizes:
        rows.append(row_of(f"{n:,}", *(cell for s in STARTS for cell in _start_cells(found.get((n, s))))))
    rows.append(row_of("each more", *(cell for s in STARTS for cell in _each_more(found, sizes, s))))
    return rows


def _start_cells(line: dict[str, Any] | None) -> tuple[str, str]:
    if line is None:
        return "", ""
    spread = f" ({line['fastest']:.2f} to {line['slowest']:.2f}, n = {line['rounds']})" if line["rounds"] > 1 else ""
    return f"{line['seconds']:.2f}{spread}", f"{line['anonymous'] / 1e6:.1f} MB"


def _each_more(found: dict[tuple[int, str], dict[str, Any]], sizes: list[int], stage: str) -> tuple[str, str]:
    """What a photo more costs, from the least to the greatest size."""
    lines = [found[n, stage] for n in sizes if (n, stage) in found]
    if len(lines) < 2:
        return "", ""
    few, many = lines[0], lines[-1]
    more = many["photos"] - few["photos"]
    seconds, memory = ((many[name] - few[name]) / more for name in ("seconds", "anonymous"))
    return f"{1e6 * seconds:.1f} µs", f"{memory:.0f} bytes"


def by_stage(lines: list[dict[str, Any]]) -> list[str]:
    """A Markdown table: one row per size, one column per stage: microseconds a photo, rounds and memory."""
    lines = sorted(lines, key=lambda line: line["photos"])
    sizes, found = dict.fromkeys(line["photos"] for line in lines), {(e["photos"], e["stage"]): e for e in lines}
    stages = [stage for stage in STAGES if any(stage == s for _, s in found)]
    rows = [row_of("photos", *(f"{stage}: µs a photo; peak" for stage in stages), "largest worker")]
    rows.append(row_of(*["---:"] * (len(stages) + 2)))
    for n in sizes:
        workers = max(e["worker_peak"] for (size, _), e in found.items() if size == n)
        rows.append(row_of(f"{n:,}", *(_cell(found.get((n, s))) for s in stages), f"{workers / 1e6:.0f} MB"))
    last = max(sizes)
    ratios = (_ratio(found.get((last, s)), found.get((BASE, s))) for s in stages)
    rows.append(row_of(f"{last:,} against {BASE:,}", *ratios, ""))
    return rows


def _cell(line: dict[str, Any] | None) -> str:
    if line is None:
        return ""
    middle, low, high = (f"{1e6 * line[name] / line['photos']:.1f}" for name in ("seconds", "fastest", "slowest"))
    spread = f" ({low} to {high}, n = {line['rounds']})" if line["rounds"] > 1 else ""
    return f"{middle}{spread}; {line['peak'] / 1e6:.0f} MB"


def _ratio(large: dict[str, Any] | None, small: dict[str, Any] | None) -> str:
    if large is None or small is None:
        return ""
    cost, base = (line["seconds"] / line["photos"] for line in (large, small))
    return f"{cost / base:.2f} times"


def machine() -> dict[str, Any]:
    """Processor, cores and versions."""
    import torch

    from plusx.training.environment import record

    return record(torch.device("cpu"), fast_math=False)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--photos", nargs="+", type=int, default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES)
    parser.add_argument("--most-started", type=int, default=100_000, help="photos in tars that a training starts from")
    wanted = parser.parse_args()
    results = wanted.work / "results.jsonl"
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for n in wanted.photos:
        tars = [stage for stage in wanted.stages if stage != "shards"]
        data = make_photos(wanted.work / f"photos-{n}", n) if tars else wanted.work
        for stage in wanted.stages:
            if stage == "start" and n > wanted.most_started:
                continue
            if any((line["photos"], line["stage"]) == (n, stage) for line in done):
                continue
            folder = data
            if stage == "shards":
                few = make_photos(wanted.work / f"photos-{REAL}", REAL)
                folder = simulated(wanted.work / f"shards-{n}", few, n)
            figures = measure(stage, folder, wanted.work / "cache")
            done.append({"photos": n, "stage": stage, **figures, "machine": machine()})
            with results.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
            print(json.dumps({name: value for name, value in done[-1].items() if name != "machine"}), flush=True)
    print("\n".join(table(done)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--here"]:
        print(json.dumps(measured_here(sys.argv[2], Path(sys.argv[3]))))
    else:
        main()
