"""The page of one experiment of the lab, from plain values: what was asked, what was found, figures, tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from plusx.report.drawing import Svg
from plusx.report.page import render
from plusx.report.standalone import lively

_NUMBER = re.compile(r"[-−+±<>]?\s*\d[\d,.]*(·10\S+)?(\s?[%a-zA-Z/²µ×]{1,9})?(\s*(±|to|\().*)?")
_EMPTY = ("", "-", "–", "none")


class Finding(Protocol):
    """What was found, what the literature says, and whether they agree; None where it cannot be told."""

    @property
    def sentence(self) -> str:
        """What was found here."""

    @property
    def expected(self) -> str:
        """What the literature says, and where."""

    @property
    def agrees(self) -> bool | None:
        """Whether the directions are the same."""

    @property
    def why(self) -> str:
        """Why not, where it is known."""


class Table(Protocol):
    """Cells as printed, under a header."""

    @property
    def title(self) -> str:
        """What it is called."""

    @property
    def header(self) -> Sequence[str]:
        """Names of the columns."""

    @property
    def rows(self) -> Sequence[Sequence[str]]:
        """Cells as printed."""


class Figure(Protocol):
    """A drawing and what to look for in it."""

    @property
    def caption(self) -> str:
        """What to look for."""

    @property
    def svg(self) -> Svg:
        """The drawing."""


class Result(Protocol):
    """An experiment that was run, as `plusx.lab.results.Result` is."""

    @property
    def title(self) -> str:
        """What it is called."""

    @property
    def question(self) -> str:
        """What was asked."""

    @property
    def conditions(self) -> str:
        """On what, how large, how long, how many seeds."""

    @property
    def tables(self) -> Sequence[Table]:
        """The numbers as printed."""

    @property
    def figures(self) -> Sequence[Figure]:
        """The drawings."""

    @property
    def findings(self) -> Sequence[Finding]:
        """What was found."""


@dataclass(frozen=True)
class Shown:
    """A figure as a page shows it."""

    svg: Svg
    caption: str


@dataclass(frozen=True)
class Aligned:
    """A table of which the columns in `numeric` hold numbers, and are set flush right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def numeric(self) -> set[int]:
        """Which columns hold numbers alone."""
        columns = range(1, len(self.header))
        return {at for at in columns if all(_numeric(row[at]) for row in self.rows)}


def lab_page(result: Result, facts: Mapping[str, str] | None = None) -> str:
    """The experiment as one HTML page; `facts` are further rows of how it was measured, such as the machine."""
    return render(
        "lab.html",
        title=result.title,
        result=result,
        figures=[Shown(lively(figure.svg), figure.caption) for figure in result.figures],
        tables=[Aligned(table.title, table.header, table.rows) for table in result.tables],
        facts=list((facts or {}).items()),
    )


def machine_line(machine: Mapping[str, Any]) -> str:
    """The machine of a run in a line, from its record (`environment.json`)."""
    cores = f"{machine['cores']} cores" if machine.get("cores") else ""
    device = machine.get("device", "")
    named = (machine.get("processor"), cores, "" if device == "cpu" else device)
    return ", ".join(str(part) for part in named if part)


def _numeric(cell: str) -> bool:
    return cell.strip() in _EMPTY or _NUMBER.fullmatch(cell.strip()) is not None
