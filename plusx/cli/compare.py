"""`plusx compare RUN RUN...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from plusx.cli.flags import Json

if TYPE_CHECKING:
    from plusx.report.comparison import Comparison


def compare(*runs: Path, out: Path | None = None, json: Json = False) -> int:
    """Put runs beside each other and say which differences are more than chance.

    By their test figures where `plusx evaluate` has tested all of them, else by validation. Two runs are compared on
    the photos both answered (McNemar's exact test); runs that differ by their seed alone make a group, and groups are
    compared over their seeds (Welch's test).

    Parameters
    ----------
    runs
        Run folders.
    out
        Also write the comparison there, as one HTML page with the curves of the runs over each other.
    """
    from plusx.cli.terminal import document
    from plusx.durable import write_file
    from plusx.report.comparison import comparison_page
    from plusx.verbs.compare import compare

    comparison = compare(runs)
    if out is not None:
        write_file(out, comparison_page(comparison).encode("utf-8", "replace"))
    if json:
        document(comparison.to_json())
    else:
        show(comparison)
    return 0


def show(comparison: Comparison) -> None:
    """The comparison on stdout."""
    from plusx.cli.terminal import result, table
    from plusx.report.comparison import HEADER, differing, row, spread_line

    result(comparison.basis)
    for line in table([row(run) for run in comparison.runs], HEADER):
        result(line)
    settings = differing(comparison.runs)
    if settings:
        result("settings that differ:")
        for line in table([(name, *values) for name, values in settings], ("", *(r.name for r in comparison.runs))):
            result(f"  {line}")
    for group in comparison.seeds():
        result(spread_line(group))
    for verdict in comparison.verdicts:
        result(verdict.sentence())
