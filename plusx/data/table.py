"""Text in CSV tables that any file name survives, and in which a spreadsheet finds no formula.

A cell that begins like a formula is run by the programs that people open tables with, and names of files and classes
are chosen by whoever made the photos. Such text gets an apostrophe in front, and so does text that would be taken for
it, so that reading gives back exactly what was written.
"""

from __future__ import annotations

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last: wide = + - @


def cell(text: str) -> str:
    """Text as it stands in a table."""
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def text_of(written: str) -> str:
    """The text that `cell` wrote; a cell that was typed by hand is what it says."""
    return written[1:] if written.startswith("'") and written.lstrip("'").startswith(_FORMULA) else written
