"""Processes to kill, stop and resume: forked from one that has imported everything and started no thread.

A trial is the small training of `tests/training/toy_training.py` in a run folder with its lock, as `plusx train` holds
it. What a child has done so far stands in memory that it shares with its parent, so that no kill can take it back.
"""

# ruff: noqa: E402 - the number of threads is read when NumPy and PyTorch are imported

from __future__ import annotations

import hashlib
import json
import mmap
import os
import select
import signal
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # before any import
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests" / "training")]

import safetensors.torch
import torch
import toy_training as toy  # type: ignore[import-not-found]

from plusx import durable, errors
from plusx.run_folder import RunFolder
from plusx.training import checkpoint
from plusx.training.events import Event, Saved, StepDone
from plusx.training.loop import fit

__all__ = ["CRASHED", "Notes", "fast_folder", "toy"]

CRASHED = 98  # the exit code of a child that raised what it should not


class Notes:
    """What a child tells while it lives: whole numbers by name, and a text."""

    NAMES = ("begun", "done", "saved", "saves", "worst", "forgotten", "leftovers", "holding", "asked")
    MOST = 4000  # bytes of text

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 * len(self.NAMES) + self.MOST)

    def __getitem__(self, name: str) -> int:
        return int(struct.unpack_from("<q", self._memory, 8 * self.NAMES.index(name))[0])

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("<q", self._memory, 8 * self.NAMES.index(name), value)

    @property
    def text(self) -> str:
        """The digest of a finished run, or why a child failed."""
        return self._memory[8 * len(self.NAMES) :].rstrip(b"\0").decode(errors="replace")

    @text.setter
    def text(self, value: str) -> None:
        self._memory[8 * len(self.NAMES) :] = value.encode()[: self.MOST].ljust(self.MOST, b"\0")


def beside(workers: int, folder: Path, work: Callable[[int], None]) -> list[dict[str, Any]]:
    """`work(worker)` in so many children beside each other; the totals that each has left in `folder`.

    Ends this process with what a child said that failed.
    """
    notes = Notes()
    children = [forked(partial(work, worker), notes) for worker in range(workers)]
    codes = [ended(child) for child in children]  # of all of them: none may be left
    if any(codes):
        raise SystemExit(notes.text)
    return [json.loads((folder / f"totals-{worker}.json").read_text()) for worker in range(workers)]


def prepare() -> None:
    """Import what a training imports on its way, so that children begin at once, and make sure that they can be forked.

    Raises RuntimeError unless this process has one thread: a fork takes along no other, but the locks they hold.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        toy.run(Path(folder), toy.settings(4))
    tasks = len(list(Path("/proc/self/task").iterdir()))
    if tasks != 1 or threading.active_count() != 1:
        raise RuntimeError(f"{tasks} threads run, and children can only be forked from one")


def forked(work: Callable[[], None], notes: Notes) -> int:
    """Start a child that does `work`; its exit code is 0, that of an error of plusx, or CRASHED. Returns its pid."""
    child = os.fork()
    if child:
        return child
    code = CRASHED
    try:
        work()
        code = 0
    except errors.Error as error:
        notes.text, code = error.message, error.exit_code
    except BaseException:
        notes.text = traceback.format_exc()[-Notes.MOST :]
    finally:
        os._exit(code)


def ended(child: int, seconds: float | None = None) -> int | None:
    """The child's exit code, or minus the signal that ended it; None where it still runs after `seconds`."""
    watched = os.pidfd_open(child)
    try:
        if not select.select([watched], [], [], seconds)[0]:
            return None
    finally:
        os.close(watched)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fast_folder() -> Path | None:
    """Where runs lie unless a folder is named: in memory, where that is possible, for a kill takes no file along."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and os.access(memory, os.W_OK) else None


def killed(child: int) -> int:
    """End the child now; its exit code, as it may have ended by itself in between."""
    os.kill(child, signal.SIGKILL)
    code = ended(child)
    assert code is not None
    return code


def train(folder: Path, how: Any, notes: Notes, photos: Any = None, *, twice: bool = False) -> None:
    """The work of a child: go on with the run in `folder` to its end, and note the digest of all that it gave.

    `twice`: every checkpoint is written before the validation of its step, too, as a signal in it does, and replaced.
    """

    def listen(event: Event) -> None:
        _note(event, folder, notes)
        if twice and isinstance(event, StepDone) and event.step % how.checkpoint_every == 0:
            one.save()

    photos = photos or toy.Photos()
    folder.mkdir(parents=True, exist_ok=True)
    with RunFolder(folder).lock():
        one = toy.training(folder, how, listen)
        one.state.model.bn1.register_forward_hook(getattr(photos, "hold", _pass))
        one.resume()
        _note_resumed(notes, one.state.step)
        outcome = fit(one, photos, photos.validate)
        durable.write_file(folder / "model.safetensors", safetensors.torch.save(outcome.model.state_dict()))
        notes.text = digest(folder, one, outcome)


def digest(folder: Path, one: Any, outcome: Any) -> str:
    """SHA-256 of weights, average, momentum, counters, best weights, the history and the model file."""
    everything = (toy.digest(one, outcome), durable.sha256_file(folder / "model.safetensors"))
    return hashlib.sha256(repr(everything).encode()).hexdigest()


def broken_promises(notes: Notes, interval: int) -> Iterator[str]:
    """What a child has found wrong with what was left to it by those before."""
    if notes["worst"] > interval:
        yield f"{notes['worst']} steps were lost, and checkpoints lie {interval} apart"
    if notes["forgotten"]:
        yield f"a checkpoint that was written was not found again, {notes['forgotten']} times"
    if notes["leftovers"]:
        yield f"{notes['leftovers']} leftovers lay there after a save"


def leftovers(folder: Path) -> int:
    """Files and folders of unfinished writes."""
    return sum(path.name.startswith((durable.TEMPORARY, durable.REPLACED)) for path in folder.rglob("*"))


@contextmanager
def torn_writes() -> Iterator[None]:
    """A negative control: folders are written in place, in parts, as many programs do it."""
    whole = durable.write_folder

    def write_in_place(path: Path, files: dict[str, bytes]) -> None:
        path.mkdir(parents=True, exist_ok=True)
        manifest = json.dumps(durable._manifest(files)).encode()
        for name, data in {**files, durable.MANIFEST: manifest}.items():
            with (path / name).open("wb") as file:
                for start in range(0, len(data), 4096):
                    file.write(data[start : start + 4096])
                    file.flush()
                    time.sleep(0.02)  # a slow disk

    durable.write_folder = write_in_place  # type: ignore[assignment]
    try:
        yield
    finally:
        durable.write_folder = whole


def _pass(*_: Any) -> None:
    """A hook that does nothing."""


def _note(event: Event, folder: Path, notes: Notes) -> None:
    if isinstance(event, StepDone):
        notes["done"] = event.step
    if isinstance(event, Saved):
        notes["saved"] = checkpoint.step_of(event.path)
        notes["saves"] += 1
        notes["leftovers"] = max(notes["leftovers"], leftovers(folder))


def _note_resumed(notes: Notes, step: int) -> None:
    """Compare where the run goes on with where the children before had been."""
    notes["worst"] = max(notes["worst"], notes["done"] - step)
    notes["forgotten"] += step < notes["saved"]
    notes["done"] = step
    notes["begun"] += 1
