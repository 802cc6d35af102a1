"""`plusx predict --parquet` and `--engine ray`: a folder of parts, its progress and its totals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from plusx.cli.terminal import Bars, console, document, result
from plusx.errors import scoring as sentences
from plusx.errors.usage import several_formats
from plusx.verbs.predict import Tally
from plusx.verbs.scoring import Progress, Scoring, Totals, score


def scoring(model: Path, paths: Sequence[str], out: Path | None, chosen: Sequence[str], **how: Any) -> Scoring:
    """What is asked for. Raises UsageError without a folder, and where rows in one of the `chosen` forms are, too."""
    if rows := [name for name in chosen if name != "json"]:
        raise several_formats([*rows, "parquet"])
    if out is None:
        raise sentences.no_out()
    return Scoring(model, tuple(paths), out, **how)


def scored(asked: Scoring, *, json: bool, strict: bool, quiet: bool) -> int:
    """Score, say how it goes on stderr and what came out on stdout; the exit code of `predict`."""
    out = console(quiet)
    if asked.engine == "ray":
        out.print("starting Ray")
    with _Bar(out) as bar:
        totals = score(asked, on_progress=bar.show)
    if json:
        document({"out": str(asked.out), **asdict(totals)})
    else:
        result(_told(asked.out, totals))
    if totals.errors:
        out.print(f"{totals.errors:,} of {totals.photos:,} could not be read; their rows say why.")
    return Tally(totals.answered, totals.errors).exit_code(strict)


class _Bar(Bars):
    """Blocks that are done, photos and their rate."""

    def __init__(self, out: Console) -> None:
        super().__init__(out)
        self._task = self._bars.add_task("scoring", total=None, state="")

    def show(self, progress: Progress) -> None:
        """Show how far it is."""
        rate = progress.written / progress.seconds if progress.seconds > 0 else 0.0
        state = f"{progress.done:,} of {progress.blocks:,} blocks, {progress.photos:,} photos, {rate:,.0f} photos/s"
        self._bars.update(self._task, completed=progress.done, total=progress.blocks, state=state)
        if self._plain_line_is_due():
            self.out.print(f"scoring: {state}")


def _told(out: Path, totals: Totals) -> str:
    parts = "1 part" if totals.blocks == 1 else f"{totals.blocks:,} parts"
    photos = "1 photo" if totals.photos == 1 else f"{totals.photos:,} photos"
    return f"{photos} in {parts} in {out}, {totals.written:,} of them new"
