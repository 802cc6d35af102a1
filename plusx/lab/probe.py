"""A probe in a training: it writes the signals of some steps to `signals.jsonl`, and costs nothing in between.

Every step at first, then ever more rarely: what goes wrong in a network without norms does so in the first steps. A row
holds the loss and the lists of `Capture.to_json`: responses and their gradients on the way to the update, gradients of
weights as the optimizer took them (after clipping, if there is any), and updates over weights.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import count
from typing import Any

from torch import nn

from plusx.durable import Log
from plusx.errors import lab as sentences
from plusx.lab.capture import Capture, layers_of
from plusx.run_folder import RunFolder
from plusx.training.events import Event, Listener, Saved, StepDone

SIGNALS = "signals.jsonl"
MOMENTS = 40


def watch(network: nn.Module, run: RunFolder) -> Listener:
    """A probe in `network` whose rows lie in `run`: what `Session.watch` asks for.

    Raises UsageError where gradients are scaled by a factor of which the probe knows nothing.
    """
    if run.read_config()["precision"] == "fp16":
        raise sentences.cannot_watch("fp16")
    return Probe(network, signals(run)).listen


def signals(run: RunFolder) -> Log:
    """What a probe has written in a run; no rows where there was none."""
    return Log(run.path / SIGNALS)


@cache
def due(total: int, moments: int = MOMENTS) -> frozenset[int]:
    """The steps of `total` that are looked at: first, last, and as many between them at equal ratios as are whole."""
    if total <= moments:
        return frozenset(range(1, total + 1))
    for tried in count(moments):
        found = frozenset(round(total ** (i / (tried - 1))) for i in range(tried))
        if len(found) >= moments:
            return found
    raise AssertionError("more tries give more steps")


class Probe:
    """Looks at the steps that are due, of a run that is new or gone on with."""

    def __init__(self, network: nn.Module, log: Log) -> None:
        self._layers, self._log = layers_of(network), log
        self._capture: Capture | None = None
        self._due, self._first = True, True  # which step comes first is only known when it is done
        network.register_forward_pre_hook(self._entered)

    def listen(self, event: Event) -> None:
        """An event of the training."""
        if isinstance(event, StepDone):
            self._finished(event)
        elif isinstance(event, Saved):
            self._log.offset()  # on the disk with the checkpoint

    def _entered(self, network: nn.Module, _: Any) -> None:
        """A batch, or the first part of one, goes in; validation is none of the probe's business."""
        if network.training and self._due and self._capture is None:
            self._capture = Capture(self._layers)

    def _finished(self, event: StepDone) -> None:
        if self._first:
            self._cut(event.step)
        moments, self._first = due(event.total), False
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.detach()
            if event.step in moments:
                self._log.append({"step": event.step, "loss": event.loss, **capture.to_json()})
        self._due = event.step + 1 in moments

    def _cut(self, step: int) -> None:
        """Drop what an interrupted run wrote beyond the checkpoint that this one went on from."""
        if not self._log.path.exists():
            return
        kept = 0
        for line in self._log.path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n") or json.loads(line)["step"] >= step:
                break
            kept += len(line)
        self._log.truncate(kept)
