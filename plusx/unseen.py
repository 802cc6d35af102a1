"""What nobody sees in a text and a terminal, a browser or an editor may obey: one list for pages and terminals."""

from __future__ import annotations

import re

_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"  # all but tab and line feed
_TURNS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # of direction: what Unicode calls Bidi_Control
_ENDS = "\u2028\u2029"  # of lines and paragraphs
_SURROGATES = "\ud800-\udfff"  # bytes of a name that are no UTF-8

UNSEEN = re.compile(f"[{_CONTROLS}{_TURNS}{_ENDS}{_SURROGATES}]")
UNSEEN_IN_A_LINE = re.compile(f"[\t\n{_CONTROLS}{_TURNS}{_ENDS}{_SURROGATES}]")
