"""docs/scaling.md: written by hand, but for what stands between `<!-- NAME -->` and `<!-- /NAME -->`, its tables."""

from __future__ import annotations

import json
import re
from pathlib import Path

from at_scale.tables import TABLES

RESULTS = Path(__file__).parents[1] / "results" / "scaling.jsonl"
PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
_MARKED = re.compile(r"(?P<start><!-- (?P<name>[a-z]+) -->\n).*?(?P<end><!-- /(?P=name) -->)", re.DOTALL)


def written(text: str, results: Path = RESULTS) -> str:
    """The page with its tables made anew. Raises KeyError for a table that nobody knows."""
    if not results.exists():
        return text
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return _MARKED.sub(lambda m: f"{m['start']}{chr(10).join(TABLES[m['name']](lines))}\n{m['end']}", text)
