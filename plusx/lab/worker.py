"""A training process of the lab: `python -m plusx.lab.worker`.

Jobs come as lines of JSON on stdin, the first of which is the setup; events go as lines of JSON to stdout. It ends when
stdin does; on SIGTERM with a checkpoint; and so, too, when nobody hears it any more.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from types import FrameType
from typing import Any

from plusx.errors import Error, Interrupted

INTERRUPTED = 75
LOST = ("loss-not-finite", "weights-not-finite")  # the codes of a training whose numbers are lost
SECONDS = 0.5  # between two steps that are told


def main() -> int:
    """Train what stdin asks for; returns the exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    voice = _Voice()
    try:
        _serve(voice)
    except (Interrupted, KeyboardInterrupt):
        return INTERRUPTED
    except Error as error:
        voice.say(event="failed", message=error.message, exit_code=error.exit_code)
        return error.exit_code
    return 0


class _Voice:
    """Writes events to stdout, and keeps the last step in mind."""

    def __init__(self) -> None:
        self.step, self._said = 0, 0.0

    def say(self, **event: Any) -> None:
        """One line. Where nobody listens, the lab is gone: the training stops as if it had been asked to."""
        try:
            sys.stdout.write(json.dumps(event) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            os.kill(os.getpid(), signal.SIGTERM)

    def hear(self, event: Any) -> None:
        """An event of training."""
        from plusx.training.events import Notice, StepDone

        if isinstance(event, Notice):
            self.say(event="notice", text=event.text)
        if isinstance(event, StepDone):
            self.step, now = event.step, time.monotonic()
            if now - self._said >= SECONDS or event.step == event.total:
                self._said = now
                self.say(event="step", step=event.step, total=event.total, loss=event.loss)


def _serve(voice: _Voice) -> None:
    from plusx.lab.job import Job, Setup
    from plusx.lab.photos import LabPhotos, gather

    setup = Setup.from_json(json.loads(sys.stdin.readline()))
    gathered: dict[tuple[Any, ...], LabPhotos] = {}
    for line in sys.stdin:
        job = Job.from_json(json.loads(line))
        config = job.network.config(setup.config)
        look = (config.size, config.resize_ratio, config.crop_scale, config.test_size, config.sizes)
        if look not in gathered:
            gathered[look] = gather(setup.data, config, setup.amount, lambda _: None)
        _train(setup, job, gathered[look], voice)


def _train(setup: Any, job: Any, photos: Any, voice: _Voice) -> None:
    from plusx.lab.job import DIVERGED, train_network
    from plusx.run_folder import RunFolder

    voice.step = 0
    try:
        train_network(setup, job, photos, voice.hear)
    except Error as error:
        if error.code not in LOST:
            raise
        RunFolder(job.folder).write(DIVERGED, {"step": voice.step + 1, "sentence": error.message})
        voice.say(event="diverged", step=voice.step + 1)
        return
    voice.say(event="done")


def _terminated(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    sys.exit(main())
