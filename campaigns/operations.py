"""Every operation by which a process changes the files in a folder, one by one: counted, failed, or its last.

`watched(folder, act)` calls `act(operation, moment)` before and after each open, write, truncate, fsync, rename, mkdir,
unlink and rmdir below `folder`, and, of a write, when half of the bytes are written. `act` may raise OSError, as a
faulty disk does, or kill the process.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

BEFORE, HALF, AFTER = "before", "half", "after"
_NAMES = ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir")


@dataclass(frozen=True)
class Operation:
    """The `number`-th change of files, counted from 0: what is done to which path, below the folder watched."""

    number: int
    name: str
    path: str

    @property
    def moments(self) -> tuple[str, ...]:
        """When something can go wrong with it."""
        return (BEFORE, HALF, AFTER) if self.name == "write" else (BEFORE, AFTER)


Act = Callable[[Operation, str], None]


class Killed(BaseException):
    """The end of a process, without one."""


def dying(number: int, at: str) -> Act:
    """What happens at a moment of an operation and ever after where a process is killed there: nothing any more."""

    def die(operation: Operation, moment: str) -> None:
        if operation.number > number or (operation.number, moment) == (number, at):
            raise Killed

    return die


def nothing(operation: Operation, moment: str) -> None:
    """An act for whoever only counts."""


@contextlib.contextmanager
def watched(folder: Path, act: Act) -> Iterator[list[Operation]]:
    """Watch what this process does to files below `folder`; gives the operations so far, a list that grows."""
    watch = _Watch(folder.resolve(), act)
    with contextlib.ExitStack() as stack:
        for name in _NAMES:
            stack.enter_context(mock.patch.object(os, name, watch.wrapped(name, getattr(os, name))))
        stack.enter_context(mock.patch.object(io, "open", watch.opening(io.open)))
        yield watch.seen


class _Watch:
    def __init__(self, folder: Path, act: Act) -> None:
        self.folder, self.act = f"{folder}{os.sep}", act
        self.seen: list[Operation] = []

    def wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(where: Any, *others: Any, **options: Any) -> Any:
            with self.around(name, _path(where, options.get("dir_fd"))):
                return real(where, *others, **options)

        return call

    def opening(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, mode: str = "r", *others: Any, **options: Any) -> Any:
            path = "" if isinstance(file, int) else _path(file, None)
            if not path.startswith(self.folder) or not set(mode) & set("wax+"):
                return real(file, mode, *others, **options)
            with contextlib.ExitStack() as stack:
                with self.around("open", path):
                    opened = stack.enter_context(real(file, mode, *others, **options))
                stack.pop_all()
            return _File(opened, path, self)

        return call

    @contextlib.contextmanager
    def around(self, name: str, path: str) -> Iterator[Callable[[], None]]:
        """The block does the operation; it may call what it is given when half of it is done."""
        if not path.startswith(self.folder):
            yield lambda: None
            return
        operation = Operation(len(self.seen), name, path.removeprefix(self.folder))
        self.seen.append(operation)
        self.act(operation, BEFORE)
        yield lambda: self.act(operation, HALF)
        self.act(operation, AFTER)


class _File:
    """An open file whose changes are watched."""

    def __init__(self, file: Any, path: str, watch: _Watch) -> None:
        self._file, self._path, self._watch = file, path, watch

    def write(self, data: Any) -> int:
        with self._watch.around("write", self._path) as half:
            done = int(self._file.write(data[: len(data) // 2]))
            self._file.flush()
            half()
            while done < len(data):
                done += self._file.write(data[done:])
            self._file.flush()
        return done

    def truncate(self, *size: int) -> int:
        with self._watch.around("truncate", self._path):
            return int(self._file.truncate(*size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _path(where: Any, folder: int | None) -> str:
    """The absolute path behind a path, a descriptor, or a name in an open folder."""
    if isinstance(where, int):
        return str(Path(f"/proc/self/fd/{where}").readlink())
    base = Path(f"/proc/self/fd/{folder}").readlink() if folder is not None else Path.cwd()
    return os.path.join(base, os.fsdecode(where))  # noqa: PTH118 - a name may be absolute
