"""A page of photos side by side: sections of rows of cards, for whatever is to be looked at and decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plusx.report.page import render


@dataclass(frozen=True)
class Card:
    """A photo: its name, what is to be said of it, and a small picture (JPEG or PNG; empty where there is none)."""

    name: str
    note: str = ""
    jpeg: bytes = b""


@dataclass(frozen=True)
class Row:
    """Photos that belong together, and what is to be said of all of them."""

    cards: tuple[Card, ...]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One matter: its title, what to do about it, the rows that are shown, and how many more there are.

    `tone` colours the title: "bad" for a fault, "warn" for what should be looked at, "" for information.
    `rest` says where those are listed that are not shown.
    """

    title: str
    lead: str
    rows: tuple[Row, ...]
    more: int = 0
    tone: str = ""
    rest: str = ""

    @property
    def pairs(self) -> bool:
        """Whether photos belong together here, so that each row has a frame of its own."""
        return any(len(row.cards) > 1 for row in self.rows)

    @property
    def count(self) -> int:
        """Rows, those that are not shown included."""
        return len(self.rows) + self.more


def gallery_page(title: str, lead: str | Sequence[str], sections: Sequence[Section]) -> str:
    """The page as HTML: a title, a paragraph and what should be known first, an overview of the sections, and these."""
    first, *rest = [lead] if isinstance(lead, str) else lead
    return render("check.html", title=title, lead=first, known=rest, sections=sections)
