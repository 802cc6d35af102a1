"""What an experiment gives: tables, figures, raw numbers, and sentences that say what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from plusx.report.figures import Svg
from plusx.trust.significance import mean_and_spread


@dataclass(frozen=True)
class Table:
    """Cells as printed, under a header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A drawing; `name` is the stem of its file, `caption` says what to look for."""

    name: str
    caption: str
    svg: Svg


@dataclass(frozen=True)
class Finding:
    """What was found, in one sentence with its numbers, beside what the literature says and where it says so.

    `agrees` tells whether the direction is that of the literature, None where it cannot be told; `why` says why not.
    """

    sentence: str
    expected: str
    agrees: bool | None
    why: str = ""

    @property
    def verdict(self) -> str:
        """`agrees` in words."""
        said = {True: "as the literature says", False: "not as the literature says", None: "cannot be told"}
        return said[self.agrees]


@dataclass(frozen=True)
class Result:
    """An experiment that was run. `conditions` is one sentence: on what, how large, how long, how many seeds.

    `raw` holds every number behind tables and figures, as JSON values.
    """

    name: str
    title: str
    question: str
    conditions: str
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    findings: tuple[Finding, ...]
    raw: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The result as plain values; figures by name and caption, as they are files of their own."""
        return {
            "name": self.name,
            "title": self.title,
            "question": self.question,
            "conditions": self.conditions,
            "tables": [asdict(table) for table in self.tables],
            "figures": [{"name": figure.name, "caption": figure.caption} for figure in self.figures],
            "findings": [asdict(finding) | {"verdict": finding.verdict} for finding in self.findings],
            "raw": dict(self.raw),
        }


def direction(differences: Sequence[float]) -> bool | None:
    """Whether all differences, one for each seed, are above zero; None where seeds disagree or there are none."""
    if differences and all(d > 0 for d in differences):
        return True
    return False if differences and all(d < 0 for d in differences) else None


def spread(values: Sequence[float], unit: str = " %", scale: float = 100.0, digits: int = 2) -> str:
    """Mean and sample standard deviation over seeds, as printed: '12.34 ± 0.56 %'; a single value has no deviation."""
    mean, deviation = mean_and_spread(values)
    said = f"{scale * mean:.{digits}f}"
    return said + ("" if deviation is None else f" ± {scale * deviation:.{digits}f}") + unit


def seeds_said(count: int) -> str:
    """How many seeds there are, in words."""
    return "one seed" if count == 1 else f"{count} seeds"
