"""The display of a training: a live line with bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

from plusx.cli.terminal import Bars, result, suggest, table
from plusx.config import Config
from plusx.metrics import percent
from plusx.recipes.plan import Plan
from plusx.training.events import Notice, StepDone, Validated
from plusx.verbs.figures import exactness_lines, trust_lines
from plusx.verbs.finish import Trained
from plusx.verbs.models import layers_of
from plusx.verbs.reports import Built, Decoding, Planned, Started, TrainEvent

SMOOTHING = 0.95  # of the running means of loss, accuracy and seconds


class Live(Bars):
    """Shows the events of `train` as they come."""

    def __init__(self, out: Console, *, verbose: bool = False) -> None:
        super().__init__(out)
        self.verbose = verbose
        self._tasks: dict[str, Any] = {}
        self._means: dict[str, float] = {}
        self._every_step = False
        self._has_test = True  # until the photos are known
        self._log_every = 100
        self._plan: Plan | None = None

    def show(self, event: TrainEvent) -> None:
        """Show one event."""
        match event:
            case Decoding():
                self._decoding(event)
            case Built():
                self._built(event)
            case Planned():
                self._planned(event)
            case Started():
                self.out.print(event.text)
            case StepDone():
                self._step(event)
            case Validated():
                self._validated(event)
            case Notice():
                self.out.print(f"Note: {event.text}")
            case _:
                pass

    def ending(self, trained: Trained) -> None:
        """The result on stdout, and the next command to type."""
        validation = trained.metrics.get("validation")
        if validation:
            low, high = validation["accuracy_ci95"]
            result(
                f"validation accuracy {percent(validation['accuracy'])} "
                f"(95 % interval {percent(low)} to {percent(high)}, n = {validation['n']:,}), "
                f"log loss {validation['log_loss']:.4f}"
            )
        for line in (*trust_lines(trained.metrics), *exactness_lines(trained.metrics)):
            result(line)
        result(f"{trained.metrics['steps']:,} steps; the model is {trained.model}")
        if (trained.run / "report.html").exists():
            self.out.print(f"report: {trained.run / 'report.html'}")
        use = ("evaluate", trained.run) if self._has_test else ("predict", trained.run, "PHOTO")
        suggest(self.out, "plusx", *use)

    def _decoding(self, event: Decoding) -> None:
        title, state = f"decoding {event.split}", f"{event.done:,} of {event.total:,}"
        self._bar(title, event.done, event.total, state)
        if self._plain_line_is_due():
            self.out.print(f"{title}: {state}")

    def _built(self, event: Built) -> None:
        self._means.clear()  # of several trainings in one process, each has its own
        self._every_step, self._log_every = event.config.show_every_step, event.config.log_every
        self._end_bars()
        self._has_test = bool(event.counts.get("test"))
        counts = ", ".join(f"{n:,} {name}" for name, n in event.counts.items())
        classes = ", ".join(event.listing.classes[:8]) + (", ..." if len(event.listing.classes) > 8 else "")
        self.out.print(
            f"{len(event.listing.photos):,} photos of {len(event.listing.classes)} classes ({classes}): {counts}"
        )
        if event.listing.junk:
            self.out.print(
                f"left out {len(event.listing.junk)} files that are no photos, such as {event.listing.junk[0]}"
            )
        parameters = sum(p.numel() for p in event.network.parameters())
        self.out.print(f"{event.config.model}, {parameters:,} parameters; run folder {event.run}")
        if self.verbose or self._every_step:
            layers = layers_of(event.network, event.config.size)
            for line in table(layers.rows(), layers.header):
                self.out.print(line)
        self.out.print(f"settings: {_settings(event.config, every=self.verbose)}")

    def _planned(self, event: Planned) -> None:
        self._plan = plan = event.plan
        sizes = ", ".join(f"{percent(share, 0)} at {size} px" for share, size in plan.sizes)
        epochs = plan.last_step / plan.steps_per_epoch
        self.out.print(
            f"plan: {plan.last_step:,} steps of {event.config.batch_size} photos ({epochs:.1f} epochs), {sizes}"
        )

    def _step(self, event: StepDone) -> None:
        self._mean("loss", event.loss)
        self._mean("accuracy", event.accuracy)
        self._mean("seconds", event.seconds)
        loss, accuracy = (
            (event.loss, event.accuracy) if self._every_step else (self._means["loss"], self._means["accuracy"])
        )
        state = f"step {event.step:,}/{event.total:,}, loss {loss:.4f}, accuracy {percent(accuracy, 1)}"
        rate = event.photos / self._means["seconds"]
        done = event.step / event.total
        left = (self._plan.steps_left(done) if self._plan else 1 - done) * event.total * self._means["seconds"]
        state += f", {_rate(rate)} images/s, {_duration(left)} left"
        if self.out.is_terminal:
            self._bar(f"epoch {event.epoch + 1}", event.step, event.total, state)
        shown = event.step == event.total or (self._every_step and self._step_is_due(event))
        if shown or self._plain_line_is_due():
            self.out.print(f"epoch {event.epoch + 1}, {state}")

    def _step_is_due(self, event: StepDone) -> bool:
        """The textbook program prints a line every 100 steps; every step where there is no live line."""
        return not self.out.is_terminal or event.step % self._log_every == 0

    def _validated(self, event: Validated) -> None:
        figures = f"accuracy {percent(event.metrics['accuracy'])}, log loss {event.metrics['log_loss']:.4f}"
        n = f" (n = {event.metrics['n']:,}, the half that chooses)" if "n" in event.metrics else ""
        best = ", the best so far" if event.best else ""
        self.out.print(f"epoch {event.epoch + 1}, step {event.step:,}: validation {figures}{n}{best}")

    def _mean(self, name: str, value: float) -> None:
        self._means[name] = SMOOTHING * self._means.get(name, value) + (1 - SMOOTHING) * value

    def _bar(self, name: str, done: int, total: int, state: str) -> None:
        if name not in self._tasks:
            self._end_bars()
            self._tasks[name] = self._bars.add_task(name, total=total, state="")
        self._bars.update(self._tasks[name], completed=done, total=total, state=state)

    def _end_bars(self) -> None:
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks.clear()


def _settings(config: Config, *, every: bool) -> str:
    """The settings as `--set` takes them: every one, or those that differ from the defaults."""
    values = config.model_dump(mode="json", exclude_defaults=not every)
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in values.items())


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
