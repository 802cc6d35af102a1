"""What verbs say: results on stdout, everything else on stderr; plain lines where there is no terminal."""

from __future__ import annotations

import json as json_module
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from plusx.cli.plain import json_text, lines, printable

PLAIN_SECONDS = 10.0  # how often a progress line is printed where there is no terminal


def console(quiet: bool = False) -> Console:
    """The console for everything that is not a result (stderr); it honours NO_COLOR and redirection."""
    return _Plain(stderr=True, quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False)


class _Plain(Console):
    """Prints text as it is, and nothing in it is a command for the terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As the console does, names of files and classes escaped."""
        super().print(*(lines(each) if isinstance(each, str) else each for each in objects), **options)


def result(text: str) -> None:
    """One result line on stdout, whatever the files are called that it names."""
    sys.stdout.write(printable(text) + "\n")


def document(value: Any) -> None:
    """The one JSON document of `--json`."""
    text = json_module.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(json_text(text) + "\n")


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> list[str]:
    """Left-aligned text, right-aligned numbers, two spaces between columns."""
    cells = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    return ["  ".join(_fit(c, w, n) for c, w, n in zip(row, widths, numeric, strict=True)).rstrip() for row in cells]


def suggest(out: Console, *words: str | Path) -> None:
    """The next command to type, its words quoted for a shell."""
    out.print(f"Next: {shlex.join(map(str, words))}")


@contextmanager
def counting(out: Console, title: str) -> Iterator[Any]:
    """A progress callback `(done, total)`: a bar on a terminal, a line every few seconds elsewhere."""
    if not out.is_terminal:
        yield _plain_counter(out, title)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def stages(out: Console) -> Iterator[Any]:
    """The same for work in several steps, each with a title: a callback `(title, done, total)`."""
    with ExitStack() as stack:
        begun: dict[str, Any] = {}

        def report(title: str, done: int, total: int) -> None:
            if title not in begun:
                stack.close()
                begun[title] = stack.enter_context(counting(out, title))
            begun[title](done, total)

        yield report


class Bars:
    """Live bars on a terminal; a context manager, since they must be ended. Elsewhere a plain line, now and then."""

    def __init__(self, out: Console) -> None:
        self.out = out
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
        self._bars = Progress(*columns, console=out, disable=not out.is_terminal, transient=True)
        self._printed = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def _plain_line_is_due(self) -> bool:
        """Every few seconds, where there is no live line."""
        due = not self.out.is_terminal and time.monotonic() - self._printed >= PLAIN_SECONDS
        if due:
            self._printed = time.monotonic()
        return due


def _plain_counter(out: Console, title: str) -> Any:
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            out.print(f"{title}: {done:,} of {total:,}")

    return report


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text in ("", "-")


def _fit(text: str, width: int, number: bool) -> str:
    return text.rjust(width) if number else text.ljust(width)
