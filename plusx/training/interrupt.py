"""Ctrl-C and SIGTERM leave a durable checkpoint within seconds, however long a step takes.

The signal's number arrives through a pipe (`signal.set_wakeup_fd`), so it is seen even while the main
thread is inside one long call. A watcher thread then gives the loop a moment to reach the end of its
step. Where that is too far away the watcher saves the last finished step itself: between two updates
parameters, momentum and averages stand still, and of the one thing that a forward pass moves, the
statistics of batch norm, a copy is kept. The unfinished step is dropped, and the process ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from plusx.errors import Interrupted
from plusx.launch import launched
from plusx.training.world import World

GRACE_SECONDS = 1.5
LONGEST_SAVE = 600.0  # seconds
SAVING_SECONDS = 5.0  # of a process that has to end
INTERRUPTED, SECOND_INTERRUPT, GIVEN_UP = 75, 130, 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether the run was asked to stop, and the lock under which its state changes."""

    def __init__(self, save: Callable[[], str], grace: float = GRACE_SECONDS) -> None:
        self.requested = threading.Event()
        self.changing = threading.Lock()  # held while parameters, counters and logs change together
        self._save = save
        self._grace = grace
        self._reached = threading.Event()

    def reached(self) -> None:
        """The loop has seen the request and saves by itself."""
        self._reached.set()

    def leave(self) -> None:
        """Let the watcher save and end this process, which can do nothing more: another one has gone before it.

        Where nobody is to save any more, the watcher waits for nothing, and the process ends here.
        """
        if self._reached.is_set():
            _end(INTERRUPTED, _by_the_first("plusx: Stopped at once; the last checkpoint is whole."))
        threading.Event().wait(LONGEST_SAVE)

    def watch(self, signals: socket.socket) -> None:
        """Body of the watcher thread: runs until the socket is closed."""
        asked = 0
        while number := signals.recv(1):
            if number[0] not in _SIGNALS:
                continue
            asked += 1
            if asked == 1:
                self.requested.set()
                threading.Thread(target=self._save_if_late, daemon=True).start()
            elif number[0] == signal.SIGINT:
                _end(SECOND_INTERRUPT, _by_the_first("plusx: Stopped at once; the last checkpoint is whole."))

    def give_up(self, told: str | None) -> None:
        """End the process from another thread, since it cannot go on: `told` says why, and the exit code is 1.

        The last finished step is saved first, where that is done soon: a device that waits for a lost process may never
        hand out its tensors.
        """
        saving = threading.Thread(target=self.save, daemon=True)
        saving.start()
        saving.join(SAVING_SECONDS)
        _end(GIVEN_UP, None if told is None else f"plusx: {told}")

    def save(self) -> None:
        """Save the last finished step, unless the loop did so or nobody is to; what fails is not told."""
        with self.changing, contextlib.suppress(Exception):
            if not self._reached.is_set():
                self._save()
                self._reached.set()

    def _save_if_late(self) -> None:
        if self._reached.wait(self._grace):
            return
        with self.changing:
            if self._reached.is_set():
                return
            try:
                sentence, code = self._save(), INTERRUPTED
            except Exception as error:
                sentence, code = str(error), getattr(error, "exit_code", 1)
            _end(code, _by_the_first(f"plusx: {sentence}"))


@contextmanager
def stopping(save: Callable[[], str], grace: float = GRACE_SECONDS) -> Iterator[Stop]:
    """Watch for SIGINT and SIGTERM inside the block. `save` writes the last finished step and returns what to tell.

    Outside the main thread, where Python allows no handlers, nothing is watched.
    """
    stop = Stop(save, grace)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    ours, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    watcher = threading.Thread(target=stop.watch, args=(ours,), daemon=True)
    watcher.start()
    old_handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    old_wakeup = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    try:
        for number in _SIGNALS:
            signal.signal(number, _noticed)
        yield stop
    finally:
        stop.reached()
        for number, handler in old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_wakeup)
        wakeup.close()
        watcher.join()
        ours.close()


@contextmanager
def others_missed(world: World, stop: Stop) -> Iterator[None]:
    """End this process, what is finished saved, where an error in the block is due to another process that is lost."""
    try:
        yield
    except (RuntimeError, Interrupted) as error:
        asked = stop.requested.is_set()
        world.look(error, asked=asked)
        if world.size > 1 and asked and isinstance(error, RuntimeError):
            stop.leave()  # another process has gone in order, as this one was asked to
        raise


@contextmanager
def leaving(sentence: Callable[[], Interrupted]) -> Iterator[None]:
    """Before and after the steps, where nothing is half done for long, the first SIGINT or SIGTERM raises `sentence`.

    Outside the main thread, where Python allows no handlers, only an interrupt that arrives there is turned.
    """
    main = threading.current_thread() is threading.main_thread()
    old = signal.signal(signal.SIGTERM, _interrupt) if main else None
    try:
        yield
    except KeyboardInterrupt:
        raise sentence() from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, old)


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(number)


def _noticed(number: int, frame: FrameType | None) -> None:
    """The pipe tells the watcher; nothing is left to do here, and no KeyboardInterrupt is raised."""


def _by_the_first(sentence: str) -> str | None:
    """What all of several processes would say is said by one."""
    return sentence if launched().first else None


def _end(code: int, sentence: str | None) -> None:
    show_cursor = "\033[?25h" if sys.stderr.isatty() else ""  # a live display may have hidden it
    if sentence is not None:
        os.write(2, f"{show_cursor}\n{sentence}\n".encode())
    os._exit(code)
