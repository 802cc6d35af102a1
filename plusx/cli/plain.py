"""Text as a terminal may get it: whatever files, folders and classes are called, nothing in them is a command."""

from __future__ import annotations

import json
import logging
import re

from plusx.unseen import UNSEEN_IN_A_LINE

_UNUSUAL = re.compile(r"[^\n -~]")


def printable(text: str) -> str:
    """Text as one line of a terminal: what is `plusx.unseen` is escaped, not lost; wide spaces and emoji stay."""
    return UNSEEN_IN_A_LINE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def lines(text: str) -> str:
    """The same for text of several lines, which stay lines."""
    return "\n".join(printable(line) for line in text.split("\n"))


def json_text(document: str) -> str:
    """A JSON document of the same values, in which what is not printable is escaped as JSON does."""
    return _UNUSUAL.sub(lambda found: _escaped(found[0]), document)


class Printable(logging.Formatter):
    """What is logged, as lines of a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text."""
        return lines(super().format(record))


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() else json.dumps(letter)[1:-1].replace("\x7f", "\\u007f")
