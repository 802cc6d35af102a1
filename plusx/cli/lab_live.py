"""The display of a lab: one bar for all trainings on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

from rich.console import Console

from plusx.cli.terminal import Bars
from plusx.lab.events import LabEvent, Learned, Stepped, Told
from plusx.training.events import Notice
from plusx.verbs.reports import Decoding


class LabLive(Bars):
    """Shows the events of a lab as they come."""

    def __init__(self, out: Console) -> None:
        super().__init__(out)
        self._task = self._bars.add_task("lab", total=None, state="")
        self._running: dict[str, Stepped] = {}

    def show(self, event: LabEvent) -> None:
        """Show one event."""
        match event:
            case Stepped():
                self._running[event.network] = event
                self._state("training", self._steps())
            case Learned():
                self._learned(event)
            case Told():
                self._state("measuring", event.text)
            case Notice():
                self.out.print(f"Note: {event.text}")
            case Decoding():
                self._state("decoding", f"{event.done:,} of {event.total:,} photos")

    def _learned(self, event: Learned) -> None:
        self._running.pop(event.network, None)
        how = "trained" if event.diverged is None else f"diverged at step {event.diverged:,}"
        self.out.print(f"{event.network} {how} ({event.done} of {event.total})")
        self._bars.update(self._task, completed=event.done, total=event.total)

    def _steps(self) -> str:
        shown = [f"{s.network} step {s.step:,}/{s.total:,}, loss {s.loss:.3f}" for s in self._running.values()]
        return "; ".join(shown)

    def _state(self, what: str, state: str) -> None:
        self._bars.update(self._task, description=what, state=state)
        if self._plain_line_is_due():
            self.out.print(f"{what}: {state}")
