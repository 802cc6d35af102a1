"""Rows of `predict` as a table, JSON, CSV or a Kaggle submission."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO, cast

from plusx.cli.plain import lines, printable
from plusx.durable import disk_errors, write_file
from plusx.metrics import percent
from plusx.verbs.predict import Row, to_csv, to_json, to_kaggle

Writer = Callable[[Iterator[Row], TextIO], None]


def write_rows(rows: Iterator[Row], form: str, out: Path | None) -> None:
    """Write `rows` in one of the four forms to a file, whole or not at all, or to stdout as they come."""
    writer = _WRITERS[form]
    if out is None:
        writer(rows, cast(TextIO, _Terminal()) if sys.stdout.isatty() else sys.stdout)
        return
    text = io.StringIO(newline="")
    writer(rows, text)
    _write(out, text.getvalue().encode("utf-8", "surrogateescape"))


class _Terminal:
    """A terminal on stdout: what is called so that it would be a command for it is escaped. Files get it as it is."""

    def write(self, text: str) -> int:
        """Write text of any number of lines."""
        return sys.stdout.write(lines(text.replace("\r\n", "\n")))


def _write(out: Path, content: bytes) -> None:
    """A file is replaced whole, behind a link too; a pipe or device is written to and stays what it is."""
    target = out.resolve()
    if target.exists() and not target.is_file():
        with disk_errors(out):
            target.write_bytes(content)
    else:
        write_file(target, content)


def _table(rows: Iterator[Row], file: TextIO) -> None:
    """One line a photo, as it is answered; widths are fixed so that nothing has to be waited for."""
    for row in rows:
        if row.error is None:
            answer = f"{printable(row.answer or ''):<16} {percent(row.probability or 0.0):>9}"
        else:
            answer = f"{'-':<16} {'-':>9}"
        file.write(f"{answer}  {printable(row.path + _remark(row))}\n")


def _remark(row: Row) -> str:
    """Why there is no answer: what cannot be read, or which class a refused answer would have been."""
    if row.error:
        return f"  ({printable(row.error['message'])})"
    return f"  ({printable(row.label or '')} is likeliest)" if row.answer != row.label else ""


_WRITERS: dict[str, Writer] = {"table": _table, "json": to_json, "csv": to_csv, "kaggle": to_kaggle}
