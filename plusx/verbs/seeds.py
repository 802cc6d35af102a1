"""`train --seeds N`: the same training under several seeds, one after another, and their spread.

All runs have the split of the first seed, so that they are tested on the same photos: what is left is the chance of
training. Each is a run folder of its own, OUT/seed-S; OUT/compare.html shows them over each other.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from plusx.durable import write_file, write_json
from plusx.errors import DiskError, Interrupted, disk, usage
from plusx.errors import reports as sentences
from plusx.errors.training import interrupted_run
from plusx.recipes.resolve import resolve
from plusx.report.comparison import Comparison, comparison_page
from plusx.run_folder import RunFolder, create, refuse_taken
from plusx.training.events import Notice
from plusx.verbs import labelled
from plusx.verbs.compare import compare
from plusx.verbs.finish import Trained
from plusx.verbs.reports import Built, TrainEvent
from plusx.verbs.train import run_name, train
from plusx.verbs.wish import Wish

RECORD, PAGE = "seeds.json", "compare.html"

Listen = Callable[[TrainEvent], None]


@dataclass(frozen=True)
class Seeds:
    """The finished runs of all seeds, their comparison, and its page: None where that could not be written."""

    out: Path
    runs: tuple[Trained, ...]
    comparison: Comparison
    page: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "out": str(self.out),
            "runs": [run.to_json() for run in self.runs],
            "comparison": self.comparison.to_json(),
            "page": self.page and str(self.page),
        }


@dataclass(frozen=True)
class _Record:
    """What OUT/seeds.json says: the first and every other seed, DATA and the wish of the first run."""

    seeds: tuple[int, ...]
    data: tuple[str, ...]
    wish: Wish
    again: Wish = field(default_factory=Wish)  # what was given with --resume


def is_of_seeds(out: Path | None) -> bool:
    """Whether `out` is a folder that `train_seeds` began."""
    return out is not None and (out / RECORD).exists()


def train_seeds(
    data: Sequence[str],
    wish: Wish,
    seeds: int | None,
    *,
    on_event: Listen | None = None,
    started: float | None = None,
) -> Seeds:
    """Train under `seeds` seeds from that of the wish on; with `wish.resume` go on with the folder in `wish.out`.

    A time budget is that of each run. The other runs take every setting of the first, what the machine chose for it
    included. Raises what `train` raises; Interrupted tells how to go on with all of them.
    """
    out, record = _continued(wish, seeds) if wish.resume else _begun(data, wish, seeds or 0)
    listen = _recording(out, record, on_event)
    runs: list[Trained] = []
    try:
        for seed in record.seeds:
            begun = time.monotonic() if runs or started is None else started
            runs.append(_one(data, out, record, seed, listen, begun))
    except (Interrupted, KeyboardInterrupt) as error:
        if not is_of_seeds(out) or _asked_twice(error):
            raise
        raise interrupted_run(out, _again(out)) from None
    except DiskError as error:
        if not isinstance(error.__cause__, DiskError):  # nothing told how to go on with one run
            raise
        raise disk.resumable(error.__cause__, _again(out)) from error
    finally:
        if wish.out is None:
            with contextlib.suppress(OSError):
                out.rmdir()  # where DATA was refused, nothing is left behind: only an empty folder can be removed
    comparison = compare([run.run for run in runs])
    return Seeds(out, tuple(runs), comparison, _page(out / PAGE, comparison, listen))


def _again(out: Path) -> str:
    """The command that goes on with all seeds."""
    return f"plusx train --resume --out {shlex.quote(str(out))}"


def _asked_twice(error: BaseException) -> bool:
    """Whether a Ctrl-C came while the one before was ending the run already: a second one ends it at once, with 130."""
    return isinstance(error, KeyboardInterrupt) and isinstance(error.__context__, Interrupted | KeyboardInterrupt)


def _page(path: Path, comparison: Comparison, listen: Listen) -> Path | None:
    """Where the comparison is as a page; what goes wrong with it is told and costs no run."""
    try:
        write_file(path, comparison_page(comparison).encode("utf-8", "replace"))
    except Exception as error:  # a page is never worth the runs
        listen(Notice(sentences.uncompared(path, error)))
        return None
    return path


def _begun(data: Sequence[str], wish: Wish, seeds: int) -> tuple[Path, _Record]:
    if seeds < 2:
        raise sentences.too_few_seeds(seeds)
    config = resolve(wish.flags, sets=wish.sets, file=wish.file)
    out = wish.out or create(None, f"{run_name(data, config)}-seeds").path
    refuse_taken(out)
    split_seed = config.seed if config.split_seed is None else config.split_seed
    wish = replace(wish, sets=(*wish.sets, f"split_seed={split_seed}"))
    return out, _Record(tuple(range(config.seed, config.seed + seeds)), labelled.absolute(data), wish)


def _recording(out: Path, record: _Record, listen: Listen | None) -> Listen:
    """What hears of the runs; the record is written once the first has begun, when there is something to go on with."""

    def heard(event: TrainEvent) -> None:
        if isinstance(event, Built) and not (out / RECORD).exists():
            write_json(out / RECORD, _to_json(record))
        if listen is not None:
            listen(event)

    return heard


def _continued(wish: Wish, seeds: int | None) -> tuple[Path, _Record]:
    """What the folder in `wish.out` was begun with; runs that exist refuse other flags, and what is new has the old."""
    if wish.out is None:
        raise usage.resume_without_run()
    if not is_of_seeds(wish.out):
        raise sentences.no_seeds(wish.out)
    path = wish.out / RECORD
    try:
        record = _from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise sentences.seeds_damaged(path) from None
    if seeds not in (None, len(record.seeds)):
        raise usage.changed_settings(wish.out, [("--seeds", len(record.seeds), seeds)])
    flags = {name: value for name, value in wish.flags.items() if name != "seed"}
    return wish.out, replace(record, again=replace(wish, flags=flags))


def _one(data: Sequence[str], out: Path, record: _Record, seed: int, listen: Listen, begun: float) -> Trained:
    """The run of one seed: begun, gone on with, or read where it is finished."""
    folder, first = out / f"seed-{seed}", out / f"seed-{record.seeds[0]}"
    if (folder / "config.yaml").exists():
        return train(data, replace(record.again, out=folder, resume=True), on_event=listen, started=begun)
    if folder == first:
        return train(record.data, replace(record.wish, out=folder), on_event=listen, started=begun)
    if record.again.resume:  # other photos would be another training, not the same under another seed
        labelled.as_recorded(labelled.look_now(record.data, RunFolder(first)), RunFolder(first))
    recorded = RunFolder(first).decisions  # as the first run obeyed them, whatever has become of the files since
    decided = (recorded,) if recorded.exists() else ()
    wish = Wish({"seed": seed}, file=first / "config.yaml", plan=record.wish.plan, out=folder, decisions=decided)
    return train(record.data, wish, on_event=listen, started=begun)


def _to_json(record: _Record) -> dict[str, Any]:
    wish = record.wish
    paths = {name: path and str(path.resolve()) for name, path in (("file", wish.file), ("plan", wish.plan))}
    flags = {name: str(v) if isinstance(v, Path) else v for name, v in wish.flags.items()}
    files = [str(path.resolve()) for path in wish.decisions]
    return {
        "seeds": record.seeds,
        "data": record.data,
        "flags": flags,
        "sets": list(wish.sets),
        "decisions": files,
    } | paths


def _from_json(values: Mapping[str, Any]) -> _Record:
    file, plan = (Path(values[name]) if values[name] else None for name in ("file", "plan"))
    decided = tuple(Path(path) for path in values.get("decisions", ()))
    wish = Wish(dict(values["flags"]), tuple(values["sets"]), file, plan, decisions=decided)
    return _Record(tuple(map(int, values["seeds"])), tuple(map(str, values["data"])), wish)
