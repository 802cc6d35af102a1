"""A figure as a file of its own, and back into a page.

A page gives a figure its colours; a file must carry them. Variables are resolved, since not every viewer knows them:
the rules of style.css that the figure uses, once with the light values and once, under a media query, with the dark.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path

from plusx.report.drawing import Svg

_STYLE = Path(__file__).parent / "templates" / "style.css"
_FONT = 'font-family: system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif'
_RULE = re.compile(r"(svg [^{}@]*)\{([^{}]*)\}")
_OWN = re.compile(r"\s*<style>.*?</style>\s*|<rect class=\"paper\"[^>]*/>\s*", re.DOTALL)
_ANSWERS = re.compile(r'(<g class="series"|<rect class="zone[ z0-9]*")')
_MARGIN = 8
_SPACE = "{http://www.w3.org/2000/svg}"
_ELEMENTS = {"svg", "title", "g", "path", "polyline", "polygon", "line", "circle", "rect", "text"}
_ATTRIBUTES = {
    *("class", "viewBox", "role", "aria-label", "width", "height", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r"),
    *("d", "points", "text-anchor", "transform", "tabindex"),
}


def standalone(svg: Svg) -> str:
    """The figure as the text of an .svg file: shown by browsers and on GitHub, in light and in dark."""
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="([-\d. ]+)"', head)
    assert box, "every drawing has a viewBox"
    left, top, width, height = (float(number) for number in box[1].split())
    left, top, width, height = left - _MARGIN, top - _MARGIN, width + 2 * _MARGIN, height + 2 * _MARGIN
    size = f'viewBox="{left:g} {top:g} {width:g} {height:g}" width="{1.5 * width:g}" height="{1.5 * height:g}"'
    paper = f'<rect class="paper" x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}"/>'
    return f"{head.replace(box[0], size)}>\n<style>\n{_style(svg)}\n</style>\n{paper}{rest}\n"


def inline(text: str) -> Svg:
    """What `standalone` wrote, as a part of a page again, where the page's style reaches it.

    ValueError where it is anything but a drawing of plusx: a page must not take in what it does not know.
    """
    try:
        root = ElementTree.fromstring(_OWN.sub("", text, count=2))  # noqa: S314 - expat bounds what entities grow to
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from error
    for node in root.iter():
        node.tag = node.tag.removeprefix(_SPACE)
        if node.tag not in _ELEMENTS or not set(node.attrib) <= _ATTRIBUTES:
            raise ValueError(f"<{node.tag}> with {', '.join(node.attrib) or 'nothing'} in a figure")
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.set("xmlns", _SPACE[1:-1])
    return Svg(ElementTree.tostring(root, encoding="unicode"))  # written anew: nothing is read in two ways


def lively(svg: Svg) -> Svg:
    """The drawing with parts that the keyboard reaches, where it has any that answer the pointer."""
    reached = _ANSWERS.sub(r'\1 tabindex="0" role="img"', svg)
    return svg if reached == svg else Svg(reached.replace('role="img"', 'role="group"', 1))


def _style(svg: str) -> str:
    used = {word for names in re.findall(r'class="([^"]*)"', svg) for word in names.split()} | {"paper"}
    light, dark = _variables()
    rules = [(who, what) for who, what in _rules() if _wanted(who, used)]
    return "\n".join([*_filled(rules, light), "@media (prefers-color-scheme: dark) {", *_filled(rules, dark), "}"])


def _filled(rules: list[tuple[str, str]], variables: dict[str, str]) -> list[str]:
    def value(found: re.Match[str]) -> str:
        return variables[found[1]]

    return [f"{who}{{{re.sub(r'var[(]--([a-z0-9-]+)[)]', value, what)}}}" for who, what in rules]


def _wanted(who: str, used: set[str]) -> bool:
    classes = set(re.findall(r"\.([a-z][a-z0-9-]*)", who))
    return classes <= used


@cache
def _rules() -> list[tuple[str, str]]:
    """(selector, declarations) of figures, with a paper and a font, which a page has by itself."""
    text = re.sub(r"/\*.*?\*/", "", _STYLE.read_text(), flags=re.DOTALL)
    rules = [(who.strip(), what.strip()) for who, what in _RULE.findall(text)]
    own = [(who, what.replace("font-family: inherit", _FONT)) for who, what in rules]
    return [("svg .paper", "fill: var(--card)"), *own]


@cache
def _variables() -> tuple[dict[str, str], dict[str, str]]:
    """The colours of the page: light, dark."""
    roots = re.findall(r":root \{([^}]*)\}", _STYLE.read_text())
    light, dark = (dict(re.findall(r"--([a-z0-9-]+): ([^;]+);", root)) for root in roots[:2])
    return light, light | dark
