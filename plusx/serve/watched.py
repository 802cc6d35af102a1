"""What a run folder says right now: read as it grows, never written to."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from plusx.durable import is_held
from plusx.errors import watch as sentences
from plusx.run_folder import RunFolder
from plusx.serve.ahead import Ahead
from plusx.serve.progress import Pace
from plusx.serve.recorded import Facts, Recorded, stamp_of
from plusx.serve.tail import Curve, Record, Tail, whole

QUIET = 60.0  # seconds without a line after which a run that holds its lock seems stopped, at the least
LINES = 10  # or so many times what a line takes
STOOD_STILL = 1.5  # times what the steps took; validation and checkpoints take less than that
FINISHING = 900.0  # seconds that measuring and calibrating after the last step may take
SKIPPED = 20  # photos left out that are named


@dataclass(frozen=True)
class Seen:
    """A run at one look. `step` is the last one logged of `steps`; times are seconds, `written` since 1970.

    `series` holds loss and accuracy of batches as [step, mean, lowest, highest], and rate, validation accuracy,
    validation log loss and images per second as [step, mean]. `best` is the (step, accuracy) of validation; `sizes`
    says from which step on which size in pixels is trained.
    """

    name: str
    state: str  # planned, running, silent, finished, interrupted or ended
    words: str
    next: str | None = None
    step: int = 0
    steps: int | None = None
    steps_per_epoch: int | None = None
    photos_seen: int | None = None
    seconds: float = 0.0
    seconds_left: float | None = None
    written: float | None = None
    series: Mapping[str, list[list[float]]] = field(default_factory=dict)
    best: tuple[int, float] | None = None
    validated: int | None = None  # photos behind each validation
    sizes: tuple[tuple[int, int], ...] = ()
    revisions: tuple[str, ...] = ()
    skipped: int = 0
    skipped_first: Facts = ()
    settings: Facts = ()
    machine: Facts = ()
    data: tuple[str, ...] = ()
    figures: Facts = ()  # of a finished run
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)

    @property
    def size(self) -> int | None:
        """The size in pixels that is trained at now."""
        passed = [size for start, size in self.sizes if start <= self.step]
        return passed[-1] if passed else None


class WatchedRun:
    """A run folder that is looked at again and again; a look costs what is new, and is safe from several threads."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._history, self._timing = Tail(run.path / "history.jsonl"), Tail(run.path / "timing.jsonl")
        self.recorded = Recorded(run)
        self._lock = threading.Lock()
        self._pace = Pace()
        self._begin()

    def look(self) -> Seen:
        """The run as it is now. Never raises for what the folder holds or lacks."""
        with self._lock:
            self._take_in()
            return self._seen()

    @property
    def taken(self) -> int:
        """Bytes of the logs that were read so far."""
        return self._history.taken + self._timing.taken

    def _begin(self) -> None:
        self._step = 0
        self._validated: int | None = None
        self._curves = {name: Curve() for name in ("loss", "accuracy", "rate", "val_accuracy", "val_loss")}

    def _take_in(self) -> None:
        news = self._history.news()
        if news.anew:
            self._begin()
        for record in news.records:
            self._take(record)
        news = self._timing.news()
        self._pace = Pace() if news.anew else self._pace
        for record in news.records:
            self._pace.take(record)
        if news.records and self._timing.changed is not None:
            self._pace.sighted(self._timing.changed)

    def _take(self, record: Record) -> None:
        step = whole(record.get("step"))
        if step is None:
            return
        self._step = max(self._step, step)
        for name in ("loss", "accuracy", "rate"):
            self._curves[name].add(step, record.get(name))
        validation = record.get("validation")
        if isinstance(validation, dict):
            self._validated = whole(validation.get("n"))
            self._curves["val_accuracy"].add(step, validation.get("accuracy"))
            self._curves["val_loss"].add(step, validation.get("log_loss"))

    def _seen(self) -> Seen:
        config, plan = self.recorded.config, self.recorded.plan
        state, words, following = self._state(plan)
        return Seen(
            name=self.run.path.resolve().name,
            state=state,
            words=words,
            next=following,
            step=self._step,
            seconds=self._seconds(),
            written=self._written(),
            series=self._series(config),
            best=self._curves["val_accuracy"].best,
            validated=self._validated,
            settings=self.recorded.settings(),
            machine=self.recorded.machine(),
            data=self.recorded.roots(),
            figures=self.recorded.figures() if state == "finished" else (),
            notes=self._notes(plan),
            **self._skipped(),
            **self._ahead(plan, config, state),
        )

    def _ahead(self, plan: Ahead | None, config: Mapping[str, Any], state: str) -> dict[str, Any]:
        batch = whole(config.get("batch_size"))
        seen = self._step * batch if batch else None
        if plan is None:
            return {"photos_seen": seen}
        pace = self._pace.of(plan)
        left = None if pace is None else plan.seconds_from(self._step, pace) + plan.ending
        return {
            "photos_seen": seen,
            "steps": plan.last_step,
            "steps_per_epoch": plan.steps_per_epoch,
            "seconds_left": left if state in ("running", "silent") else None,
            "sizes": tuple(plan.marks()),
            "revisions": sentences.revisions(plan.total, plan.revisions, plan.stalled_at),
        }

    def _state(self, plan: Ahead | None) -> tuple[str, str, str | None]:
        """The state, a sentence about it, and the next command to type, if any."""
        if self.run.finished and (self.run.path / "metrics.json").exists():
            tested = (self.run.path / "test.json").exists()
            use = ("predict", str(self.run), "PHOTO") if tested else ("evaluate", str(self.run))
            return "finished", sentences.FINISHED, shlex.join(("plusx", *use))
        held, all_done = is_held(self.run.path / "run.lock"), plan is not None and self._step >= plan.last_step
        quiet = self._quiet_for()
        late = quiet > (FINISHING if all_done else self._patience())
        if held or (held is None and not late):
            return ("silent", sentences.silent(quiet), None) if late else self._at_work(plan, all_done)
        resume = shlex.join(("plusx", "train", "--resume", "--out", str(self.run)))
        if not self.recorded.config:
            return "planned", sentences.NOTHING_YET, None
        saved = self._saved()
        if not self._step and not saved:
            return "planned", sentences.NOT_BEGUN, resume
        if saved >= self._step:
            return "interrupted", sentences.interrupted(saved), resume
        return "ended", sentences.ended(self._step, saved), resume

    def _at_work(self, plan: Ahead | None, all_done: bool) -> tuple[str, str, None]:
        if not self._step:
            return "planned", sentences.PREPARING if plan is None else sentences.BEGINNING, None
        if all_done:
            return "running", sentences.FINISHING, None
        return "running", sentences.running(plan.size_at(self._step)) if plan else sentences.TRAINING, None

    def _quiet_for(self) -> float:
        """Seconds since the last line of a log, or since the run was made."""
        written = self._written() or self._made()
        return 0.0 if written is None else max(0.0, time.time() - written)

    def _written(self) -> float | None:
        """When a log was last written to, in seconds since 1970."""
        return max(filter(None, (self._history.changed, self._timing.changed)), default=None)

    def _made(self) -> float | None:
        """When the run was made, whose settings are written once, just before its first step."""
        stamp = stamp_of(self.run.path / "config.yaml")
        return stamp[2] / 1e9 if stamp else None

    def _seconds(self) -> float:
        """What the training took so far: by the clock, or, where the run stood still in between, by its steps."""
        made, written, steps = self._made(), self._written(), self._pace.seconds
        clock = written - made if made and written else steps
        return clock if 0 <= clock <= STOOD_STILL * steps else steps

    def _patience(self) -> float:
        """How long a run may say nothing: it writes a line every so many steps, and validates in between."""
        per_line = self._pace.seconds / max(1, self._step) * (whole(self.recorded.config.get("log_every")) or 1)
        return max(QUIET, LINES * per_line)

    def _saved(self) -> int:
        """The step of the newest checkpoint; 0 where there is none."""
        try:
            names = [path.name for path in self.run.checkpoints.iterdir()]
        except OSError:
            return 0
        steps = [name.removeprefix("step-") for name in names if name.startswith("step-")]
        return max((int(step) for step in steps if step.isascii() and step.isdigit()), default=0)

    def _series(self, config: Mapping[str, Any]) -> dict[str, list[list[float]]]:
        mixed = bool(config.get("mixup") or config.get("cutmix"))  # accuracy would mean something else
        curves = self._curves
        return {
            "loss": curves["loss"].spans(),
            "accuracy": [] if mixed else curves["accuracy"].spans(),
            "rate": curves["rate"].means(),
            "val_accuracy": curves["val_accuracy"].means(),
            "val_loss": curves["val_loss"].means(),
            "speed": self._pace.speed.means(),
        }

    def _skipped(self) -> dict[str, Any]:
        lines = self.recorded.skipped()
        return {"skipped": len(lines), "skipped_first": tuple(lines[:SKIPPED])}

    def _notes(self, plan: Ahead | None) -> tuple[str, ...]:
        """What is wrong with the folder, in sentences."""
        found = []
        for tail in (self._history, self._timing):
            if tail.damaged:
                found.append(sentences.damaged_lines(tail.path.name, tail.damaged))
            if tail.behind:
                found.append(sentences.behind(tail.path.name))
        if plan is None and self.run.plan.exists():
            found.append(sentences.damaged(self.run.plan.name))
        if not self.recorded.config and (self.run.path / "config.yaml").exists():
            found.append(sentences.damaged("config.yaml"))
        return tuple(found)
