"""Stop a training at every moment, go on, and compare every bit: rows T01 to T09.

    python campaigns/resume.py --out FILE        # everything
    python campaigns/resume.py --trials 100      # as many resumes, evenly spread
    python campaigns/resume.py --seconds 60      # as many as there is time for, in order

First the loop alone, on a toy network: all ways to train that a checkpoint has something to remember of, times every
moment at which a stop leaves something else (in every part of every step, after it, before and after its checkpoint,
in and after every validation). Then the whole pipeline on drawn photos, from the cache and streamed, with every trick
on: every moment, decoded by 0, 1, 2 or 4 processes before the stop and by each of these after it. A resumed run must
be equal to the uninterrupted one in the last two checkpoints, best weights, model file, figures and history.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ["OMP_NUM_THREADS"] = "1"  # bits depend on the number of threads; before torch is imported

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "training")]

import resuming  # noqa: E402
import torch  # noqa: E402
import toy_training as toy  # type: ignore[import-not-found]  # noqa: E402

WORKERS = (0, 1, 2, 4)
AVERAGES = ({"average": "none"}, {"average": "ema", "average_every": 1}, {"average": "ema", "average_every": 2})
OPTIMIZERS: tuple[dict[str, Any], ...] = (
    {"optimizer": "sgd", "nesterov": True},
    {"optimizer": "adamw", "learning_rate": 0.01},
)
PARTS, PRECISIONS = (1, 2, 3), ("fp32", "bf16")
REST: tuple[dict[str, Any], ...] = (  # taken in turns by the product of the others
    {"schedule": "triangular", "keep": "best"},
    {"schedule": "cosine", "keep": "last", "clip_norm": None, "frozen": 0.4},
    {"schedule": "steps", "milestones": (0.5, 0.75), "warmup": 0.1, "keep": "best", "validate_every": 2},
    {"schedule": "constant", "patience": 1, "keep": "best"},
    {"schedule": "triangular", "revisions": ((5, 10),), "norm_bias_rate": 4.0, "input_rate": 0.3, "keep": "last"},
)
PIPELINES = (
    (*resuming.TRICKS, *resuming.MIXED),
    (*resuming.TRICKS, *resuming.MIXED, "precision=bf16", "optimizer=adamw", "average_every=1", "accumulate=3"),
)


@dataclass
class Totals:
    """What was done. `mismatches` say how to see them again."""

    loop_settings: int = 0
    loop_resumes: int = 0
    pipeline_runs: int = 0
    pipeline_resumes: int = 0
    pairs_of_workers: int = 0
    seconds: float = 0.0
    complete: bool = True
    mismatches: list[str] = field(default_factory=list)


class Campaign:
    """The resumes that are still to be made, and what came of the others."""

    def __init__(self, folder: Path, trials: int | None, seconds: float) -> None:
        self.folder, self.trials = folder, trials
        self.ends, self.totals, self.pairs = time.monotonic() + seconds, Totals(), set[tuple[int, int]]()

    def chosen(self, moments: list[str], share: float) -> list[str]:
        """Of the moments of one run those that are tried: all, or evenly spread as many as `share` of the trials."""
        if self.trials is None:
            return moments
        count = min(len(moments), max(1, round(self.trials * share)))
        return [moments[i * len(moments) // count] for i in range(count)]

    @property
    def late(self) -> bool:
        """Whether the time is over; the totals then say that they are not complete."""
        over = time.monotonic() > self.ends
        self.totals.complete = self.totals.complete and not over
        return over

    def loop(self) -> None:
        """The loop alone."""
        settings = list(ways())
        for number, how in enumerate(settings):
            if self.late:
                return
            self._way(number, toy.settings(**how), 0.5 / len(settings))

    def _way(self, number: int, how: Any, share: float) -> None:
        whole, copies = self.folder / f"loop-{number}", self.folder / f"loop-{number}-copies"
        expected = toy.moments(whole, how, copies)
        self.totals.loop_settings += 1
        for moment in self.chosen(sorted(path.name for path in copies.iterdir()), share):
            torch.manual_seed(99)
            equal = toy.run(copies / moment, how, resume=True) == expected
            self.totals.loop_resumes += 1
            if not equal:
                self.totals.mismatches.append(f"loop: settings {number}, {moment}")
        shutil.rmtree(whole)
        shutil.rmtree(copies)

    def pipeline(self) -> None:
        """The whole pipeline, cached and streamed."""
        data = resuming.draw(self.folder / "photos")
        kinds = list(itertools.product((False, True), enumerate(PIPELINES)))
        for streamed, (number, sets) in kinds:
            first: resuming.Fingerprint = {}
            for workers in WORKERS:
                if self.late:
                    return
                name = f"{'streamed' if streamed else 'cached'}-{number}-by-{workers}"
                with resuming.quiet(streamed=streamed):
                    whole = self._pipeline(data, name, sets, workers, 0.5 / len(kinds) / len(WORKERS))
                self._compare(f"{name}, uninterrupted", first or whole, whole, (resuming.NAMES_WORKERS,))
                first = first or whole

    def chains(self) -> None:
        """Two and ten resumes in one epoch of the whole pipeline."""
        data = resuming.draw(self.folder / "photos")
        for streamed in (False, True):
            with resuming.quiet(streamed=streamed):
                runs = [
                    resuming.chain(data, self.folder / f"chain-{streamed}-{len(stops)}", PIPELINES[0], stops)
                    for stops in ((), (18, 22), range(16, 26))
                ]
            self.totals.pipeline_runs += len(runs)
            self.totals.pipeline_resumes += 12
            for resumes, again in zip((2, 10), runs[1:], strict=True):
                self._compare(f"streamed {streamed}, {resumes} resumes in one epoch", runs[0], again)

    def _pipeline(
        self, data: Path, name: str, sets: tuple[str, ...], workers: int, share: float
    ) -> resuming.Fingerprint:
        """A run, and its resumes, whose numbers of workers take turns."""
        copies = self.folder / f"{name}-copies"
        whole = resuming.moments(data, self.folder / name, copies, sets, workers)
        self.totals.pipeline_runs += 1
        found = sorted(path.name for path in copies.iterdir())
        for moment, after in zip(self.chosen(found, share), itertools.cycle(WORKERS), strict=False):
            if self.late:
                break
            again = resuming.resumed(copies / moment, after)
            self.totals.pipeline_resumes += 1
            self.pairs.add((workers, after))
            self._compare(f"{name}, {moment}, then by {after}", whole, again)
        shutil.rmtree(copies)
        return whole

    def _compare(
        self, what: str, one: resuming.Fingerprint, other: resuming.Fingerprint, but: tuple[str, ...] = ()
    ) -> None:
        if differing := resuming.differences(one, other, but):
            self.totals.mismatches.append(f"pipeline: {what}: {', '.join(differing)}")


def ways() -> Iterator[dict[str, Any]]:
    """All ways to train."""
    product = itertools.product(AVERAGES, OPTIMIZERS, PARTS, PRECISIONS)
    for number, (average, optimizer, parts, precision) in enumerate(product):
        yield {"accumulate": parts, "precision": precision} | average | optimizer | REST[number % len(REST)]


def main() -> int:
    """Run the campaign; 1 where a bit differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, help="resumes, half of them of the loop; all where not given")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no run begins after so long")
    parser.add_argument("--out", type=Path, help="a file to which the totals are added, as a line of JSON")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.monotonic()
    # nothing here loses its power, and tens of thousands of files are written
    with tempfile.TemporaryDirectory(prefix="plusx-resume-") as folder, patch.object(os, "fsync"):
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        campaign = Campaign(Path(folder), wanted.trials, wanted.seconds)
        campaign.loop()
        campaign.pipeline()
        if not campaign.late:
            campaign.chains()
    totals = campaign.totals
    totals.seconds, totals.pairs_of_workers = round(time.monotonic() - begun, 1), len(campaign.pairs)
    told = asdict(totals)
    for name, value in told.items():
        print(f"{name.replace('_', ' '):<18} {len(value) if isinstance(value, list) else value}")
    for mismatch in totals.mismatches:
        print(f"  {mismatch}", file=sys.stderr)
    if wanted.out:
        with wanted.out.open("a") as file:
            file.write(json.dumps({"campaign": "resume", "torch": torch.__version__} | told) + "\n")
    return 1 if totals.mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
