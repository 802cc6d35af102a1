"""`cache`: how much decoded photos, unpacked archives and fetched ones take, and clearing them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from plusx.data.entries import ARCHIVE, LISTING, OBJECT, cache_entries, cache_folder, cache_limit
from plusx.data.entries import clear as clear_entries


@dataclass(frozen=True)
class CacheReport:
    """The state of the cache, sizes in bytes; `freed` is what clearing removed.

    Among the entries are unpacked `archives` and files `fetched` from URLs.
    """

    folder: str
    entries: int
    archives: int
    fetched: int
    size: int
    limit: int
    freed: int

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for people."""
        freed = [f"Freed {self.freed / 1e6:,.1f} MB."] if self.freed else []
        kinds = f"{self.entries - self.archives - self.fetched} decoded sets"
        if self.archives:
            kinds += f" and {self.archives} unpacked archive{'s' if self.archives > 1 else ''}"
        if self.fetched:
            kinds += f" and {self.fetched} fetched file{'s' if self.fetched > 1 else ''}"
        return [*freed, f"{self.folder}: {kinds}, {self.size / 1e6:,.1f} MB of {self.limit / 1e9:g} GB."]


def cache(*, clear: bool = False) -> CacheReport:
    """Report on the cache, after clearing it where asked."""
    freed = clear_entries() if clear else 0
    entries = [entry for entry in cache_entries() if entry.kind != LISTING]
    kinds = [entry.kind for entry in entries]
    size = sum(entry.size for entry in cache_entries())
    counts = len(entries), kinds.count(ARCHIVE), kinds.count(OBJECT)
    return CacheReport(str(cache_folder()), *counts, size, cache_limit(), freed)
