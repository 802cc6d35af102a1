"""The flags that several verbs share, declared once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, Token


def _whole(_type: type, tokens: Sequence[Token]) -> int:
    """A whole number; cyclopts alone would round 1.5."""
    text = tokens[0].value
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


Whole = Annotated[int, Parameter(converter=_whole)]
Switch = Annotated[bool, Parameter(negative="", show_default=False)]  # a flag that is off unless given
Json = Annotated[Switch, Parameter(name="--json", help="One JSON document on stdout, nothing else.")]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], Parameter(name="--device", help="Where to compute.")]
Quiet = Annotated[Switch, Parameter(name=["--quiet", "-q"], help="Print results only.")]
Verbose = Annotated[Switch, Parameter(name=["--verbose", "-v"], help="Print more: every setting and every layer.")]
Host = Annotated[str, Parameter(name="--host", help="The address to listen on; any but this machine's needs a token.")]
Port = Annotated[int, Parameter(name="--port", converter=_whole, help="The port; 0 takes a free one.")]
TokenFile = Annotated[
    Path | None,
    Parameter(
        name="--token-file", help="The token that every request has to bring; otherwise the environment's PLUSX_TOKEN."
    ),
]
Insecure = Annotated[
    Switch, Parameter(name="--insecure", help="Listen on an address that others can reach without any token.")
]
AllowHost = Annotated[
    list[str] | None,
    Parameter(name="--allow-host", negative="", help="Another name that requests may use, such as that of a proxy."),
]
Decisions = Annotated[list[Path] | None, Parameter(name="--decisions", negative="")]
