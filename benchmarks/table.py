"""What the benchmarks' tables share."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def row_of(*cells: object) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def spread(values: Sequence[float], form: str) -> str:
    """Mean and, of several values, their standard deviation."""
    mean = format(statistics.mean(values), form)
    return f"{mean} ± {statistics.stdev(values):{form}}" if len(values) > 1 else mean
