"""`cache`: how much decoded photos take, and clearing them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from plusx.data.cache import cache_entries, cache_folder, cache_limit
from plusx.data.cache import clear as clear_entries


@dataclass(frozen=True)
class CacheReport:
    """The state of the cache, sizes in bytes; `freed` is what clearing removed."""

    folder: str
    entries: int
    size: int
    limit: int
    freed: int

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for people."""
        freed = [f"Freed {self.freed / 1e6:,.1f} MB."] if self.freed else []
        state = f"{self.folder}: {self.entries} decoded sets, {self.size / 1e6:,.1f} MB of {self.limit / 1e9:g} GB."
        return [*freed, state]


def cache(*, clear: bool = False) -> CacheReport:
    """Report on the cache of decoded photos, after clearing it where asked."""
    freed = clear_entries() if clear else 0
    entries = cache_entries()
    return CacheReport(str(cache_folder()), len(entries), sum(e.size for e in entries), cache_limit(), freed)
