"""What damaged pictures do to the processes that decode: row D25 of the fault matrix.

    python campaigns/fuzz.py --trials 100000 --seed 0 --out FILE
    python campaigns/fuzz.py --seed 0 --from 4711 --trials 1 --keep mutant.bin

Every trial damages a small picture of some format (fuzz_pictures.py) by one to four mutations (fuzz_mutations.py) and
hands it, alone, to a real decoding process of plusx: by turns as `check` looks at photos and as training does. Counted
are pixels given, refusals by code, processes that died (their trials are named: a death costs one photo and no more),
the longest a picture took, and the most memory a process or this one used. Broken promises end with exit code 1: a
picture of over five seconds, a process over 512 MB, this process over its bound, an answer of no known kind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parents[1]))  # the HEIC encoder is a test's

from fuzz_mutations import Mutant, mutated
from fuzz_pictures import picture, pictures, saved

from plusx.images.answers import CODES
from plusx.images.decode import BadPhoto
from plusx.images.pool import DecodePool
from plusx.images.preprocess import Preprocess
from plusx.images.source import Source

SECONDS = 5.0  # that one picture may take
MEMORY = 512_000_000  # bytes that a decoding process may use
GROWTH = 64_000_000  # bytes that this process may grow by
NOTED = 20  # trials of a kind that are named
KNOWN = CODES | {"pixels", "worker-died", "timeout"}
_LOOKS = (Preprocess(32, 32), Preprocess(24, 20, (9, 8, 7), decoder_scale=True))
_WIDE = 1 << 20  # bytes a picture may have


@dataclass(frozen=True)
class Outcome:
    """What became of a picture: a code or "pixels", seconds, and the most bytes its process used for it, 0 unknown."""

    code: str
    seconds: float
    memory: int


@dataclass
class Totals:
    """What a campaign counted; `deaths`, `slow`, `heavy` and `odd` name trials."""

    seed: int
    first: int
    trials: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    pixels: Counter[str] = field(default_factory=Counter)  # by format: how many still gave some
    formats: Counter[str] = field(default_factory=Counter)
    deaths: list[int] = field(default_factory=list)
    slow: list[int] = field(default_factory=list)
    heavy: list[int] = field(default_factory=list)
    odd: list[int] = field(default_factory=list)
    longest: float = 0.0
    longest_trial: int = -1
    memory: int = 0
    memory_trial: int = -1
    of_the_ended: int = 0  # bytes: the most that any process had which has ended, whatever it died of
    parent_growth: int = 0
    seconds: float = 0.0

    def add(self, trial: int, format: str, outcome: Outcome) -> None:
        """Count one trial."""
        self.trials += 1
        self.answers[outcome.code] += 1
        self.formats[format] += 1
        self.pixels[format] += outcome.code == "pixels"
        self.deaths += [trial] * (outcome.code == "worker-died")
        self.slow += [trial] * (outcome.code == "timeout" or outcome.seconds > SECONDS)
        self.heavy += [trial] * (outcome.memory > MEMORY)
        self.odd += [trial] * (outcome.code not in KNOWN)
        if outcome.seconds > self.longest:
            self.longest, self.longest_trial = outcome.seconds, trial
        if outcome.memory > self.memory:
            self.memory, self.memory_trial = outcome.memory, trial

    @property
    def broken(self) -> list[str]:
        """Every promise that did not hold, with the trials that show it."""
        found = {"slower than five seconds": self.slow, "over 512 MB": self.heavy, "no known answer": self.odd}
        told = [f"{what}: trials {_some(trials)} of seed {self.seed}" for what, trials in found.items() if trials]
        grown = f"the parent grew by {self.parent_growth / 1e6:.0f} MB"
        dead = f"a process that has ended had {self.of_the_ended / 1e6:.0f} MB"
        return told + [dead] * (self.of_the_ended > MEMORY) + [grown] * (self.parent_growth > GROWTH)

    def to_json(self) -> dict[str, Any]:
        """One line of a results file; of a long list of trials, the first."""
        every = vars(self)
        cut = {name: len(every[name]) for name in ("deaths", "slow", "heavy", "odd")}
        return {**every, **{name: every[name][:NOTED] for name in cut}, "counts": cut, "broken": self.broken}


class Decoders:
    """The two pools, of one process each, and the file through which pictures go to them; a context manager."""

    def __init__(self, command: Sequence[str] | None = None) -> None:
        self._pools = [DecodePool(look, 1, SECONDS, command) for look in _LOOKS]
        self._sound = saved(picture(), "PNG")
        self._file = tempfile.NamedTemporaryFile(prefix="fuzz-", suffix=".bin")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for pool in self._pools:
            pool.close()
        self._file.close()

    def look(self, trial: int, data: bytes) -> Outcome:
        """Have a picture decoded: even trials as `check` does, odd ones as training does."""
        pool = self._pools[trial % 2]
        if not pool._crew:
            self._answered(trial, self._sound)  # the start of a process counts for no picture
        began = time.perf_counter()
        answer = self._answered(trial, data)
        seconds = time.perf_counter() - began
        code = answer.code if isinstance(answer, BadPhoto) else "pixels"
        return Outcome(code, seconds, max((_peak(member._process.pid) for member in pool._crew), default=0))

    def _answered(self, trial: int, data: bytes) -> Any:
        os.pwrite(self._file.fileno(), data, 0)
        pool, sources = self._pools[trial % 2], [Source(self._file.name, 0, len(data))]
        ((_, answer),) = pool.map(sources) if trial % 2 else pool.survey(sources)
        return answer


def campaign(
    seed: int, first: int, trials: int, seconds: float = float("inf"), command: Sequence[str] | None = None
) -> Totals:
    """Trials from `first` on, until there were enough of them or the time is over."""
    kinds, totals, began = pictures(), Totals(seed, first), time.monotonic()
    told, before = began, 0
    with Decoders(command) as decoders:
        for trial in range(first, first + trials):
            mutant = mutated(seed, trial, kinds)
            if trial == first + 100:
                before = _own_peak()
            totals.add(trial, _format(mutant), decoders.look(trial, mutant.data[:_WIDE]))
            now = time.monotonic()
            if now - began > seconds:
                break
            if now - told > 30:
                told = now
                print(
                    f"{totals.trials:,} of {trials:,}; longest {totals.longest:.2f} s (trial {totals.longest_trial}), "
                    f"most {totals.memory / 1e6:.0f} MB (trial {totals.memory_trial})",
                    file=sys.stderr,
                    flush=True,
                )
    totals.parent_growth = _own_peak() - before if before else 0
    totals.seconds = time.monotonic() - began
    return totals


def table(totals: Totals) -> Iterator[str]:
    """What was counted, for people."""
    yield f"{totals.trials:,} pictures in {totals.seconds:.0f} s, {1e3 * totals.seconds / totals.trials:.2f} ms each"
    for code, count in totals.answers.most_common():
        yield f"  {code:<14} {count:>9,}  {count / totals.trials:7.2%}"
    yield "pixels in spite of the damage: " + ", ".join(
        f"{name} {totals.pixels[name] / count:.0%} of {count:,}" for name, count in sorted(totals.formats.items())
    )
    yield f"processes that died: {len(totals.deaths)}{_named(totals.deaths)}"
    yield f"longest: {totals.longest:.2f} s (trial {totals.longest_trial})"
    yield f"memory of a decoding process: {totals.memory / 1e6:.0f} MB at most (trial {totals.memory_trial})"
    yield f"growth of the parent: {totals.parent_growth / 1e6:.0f} MB"
    yield from (f"BROKEN: {promise}" for promise in totals.broken)


def _format(mutant: Mutant) -> str:
    return mutant.picture.split()[0]


def _named(trials: Sequence[int]) -> str:
    return f" (trials {_some(trials)})" if trials else ""


def _some(trials: Sequence[int]) -> str:
    return ", ".join(map(str, trials[:NOTED])) + (" ..." if len(trials) > NOTED else "")


def _peak(process: int) -> int:
    """The most memory a process has had in use since this was last asked, in bytes; 0 where that cannot be known."""
    folder = Path("/proc", str(process))
    try:
        status = (folder / "status").read_text()
    except OSError:
        return 0
    with contextlib.suppress(OSError):
        (folder / "clear_refs").write_text("5")  # the peak begins anew
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def _own_peak() -> int:
    return _bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _most_of_the_ended() -> int:
    return _bytes(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def _bytes(peak: int) -> int:
    return peak if sys.platform == "darwin" else peak * 1024


def _arguments(given: Iterable[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="TRIAL", help="the first trial")
    parser.add_argument("--keep", type=Path, help="write the picture of the first trial there, and say what it is")
    parser.add_argument("--out", type=Path, help="add one JSON line of totals to this file")
    return parser.parse_args(None if given is None else list(given))


def main(given: Iterable[str] | None = None) -> int:
    """Run the campaign as the command line asks; 1 where a promise was broken."""
    asked = _arguments(given)
    if asked.keep is not None:
        mutant = mutated(asked.seed, asked.first, pictures())
        asked.keep.write_bytes(mutant.data)
        print(f"trial {asked.first}: {mutant.picture}, {', '.join(mutant.mutations)}, {len(mutant.data):,} bytes")
    totals = campaign(asked.seed, asked.first, asked.trials, asked.seconds)
    totals.of_the_ended = _most_of_the_ended()
    print("\n".join(table(totals)))
    if asked.out is not None:
        with asked.out.open("a") as file:
            file.write(json.dumps(totals.to_json()) + "\n")
    return 1 if totals.broken else 0


if __name__ == "__main__":
    sys.exit(main())
