"""Pages as one self-contained HTML file: templates of Jinja, escaped by default, with no script and no request."""

from __future__ import annotations

import base64
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plusx.metrics import percent
from plusx.unseen import UNSEEN
from plusx.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
_FLAG = re.compile(r"(?<![\w-])(--[a-z-]+(?: [\w.:=/]*\w)?)")
_KINDS = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png"}

_VERDICTS = {True: "As the literature says:", False: "Not as the literature says:", None: "Cannot be told. Expected:"}
_MARKS = {True: "good", False: "bad", None: "warn"}


def render(template: str, **values: Any) -> str:
    """The page that `template` (a file name in templates/) makes of `values`; whatever is text in them is escaped.

    Every page extends base.html, which asks for a `title`. Pictures go in as JPEG or PNG bytes through the filter
    `picture`, shares through `percent`, counts through `count`, seconds through `duration`, sentences with flags in
    them through `flags`, whether a finding agrees with the literature through `verdict` and `mark`, and SVG of
    `plusx.report.figures` as what that returns. A template that uses what it was not given raises
    jinja2.UndefinedError.
    """
    return seen(_environment().get_template(template).render(version=__version__, **values))


def seen(text: str) -> str:
    """Text without what nobody sees: names of files hold any bytes, commands for a terminal and turns of direction.

    No-break spaces and joined letters stay; anything else becomes a question mark, as what UTF-8 lacks does.
    """
    return UNSEEN.sub("?", text)


def picture(data: bytes) -> str:
    """JPEG or PNG bytes as the address of an <img>: the file needs no other beside it."""
    return f"data:{_KINDS[data[:2]]};base64,{base64.b64encode(data).decode()}"


def count(n: int) -> str:
    """A whole number as printed for people."""
    return f"{n:,}"


def duration(seconds: float) -> str:
    """Seconds as people say them: '12.3 s', '2 min 5 s', '1 h 40 min'."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "picture": picture, "count": count, "duration": duration}
    environment.filters |= {"flags": _flags, "verdict": _VERDICTS.__getitem__, "mark": _MARKS.__getitem__}
    return environment


def _flags(text: str) -> str:
    """A sentence with its flags set as code, each with its value, so that no line ends within one."""
    from markupsafe import Markup, escape

    return Markup(_FLAG.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped just before
