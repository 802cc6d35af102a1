"""Drawings that explain: layers in a row, a block with and without its shortcut, a copy that is deeper."""

from __future__ import annotations

from collections.abc import Iterator

from plusx.report.axes import Axis
from plusx.report.drawing import Svg, drawing, rect, series_group, words
from plusx.report.figures import Bars, Spread, grouped_bars

BLOCK = (420, 330)
_PLAIN, _RESIDUAL, _SHORTCUT = 84, 262, 338  # where the wires run
_IN, _SPLIT, _ADD, _OUT = 28, 44, 204, 268

PUBLISHED = {  # top-1 error in % of one network on ImageNet's validation set, ten crops: He et al. 2015, table 2
    "plain": (27.94, 28.54),
    "residual": (27.88, 25.03),
}


def layers_diagram() -> Svg:
    """From a photo through maps, which get smaller and more, to a probability for each class."""
    maps = [
        (12, 78, 3, "a photo", "a photo: three numbers a pixel"),
        (122, 62, 4, "edges", "the first layers answer to edges and colours"),
        (214, 46, 6, "corners", "later ones answer to corners and textures"),
        (300, 28, 9, "ears", "the last ones answer to parts of things"),
    ]
    body = [series_group(told, _maps(left, side, count, name, told)) for left, side, count, name, told in maps]
    body.append(series_group("a probability for each class", _answers(380)))
    arrows = [_rightwards(*ends) for ends in ((98, 116), (198, 209), (281, 294), (358, 372))]
    name = "Layers in a row: each makes maps of numbers from those before it, and the last one makes probabilities"
    return drawing(name, (420, 150), ['<g class="choice">', *body, "</g>", *arrows])


def _maps(left: int, side: int, count: int, name: str, told: str) -> Iterator[str]:
    """Maps behind each other, with their name below."""
    top = 60 - side / 2 - 1.5 * count
    for k in range(count):
        yield rect(left + 3 * k, top + 3 * k, side, side, "box", told)
    yield words(left + side / 2 + 1.5 * count, 136, name, "middle", "strong")


def _answers(left: int) -> Iterator[str]:
    for k, (width, name) in enumerate(((30, "cat"), (8, "dog"))):
        yield rect(left, 40 + 24 * k, width, 14, f"f{k + 1}", f"the probability of {name}")
    yield words(left + 15, 136, "cat?", "middle", "strong")


def _rightwards(start: int, end: int) -> str:
    return f'<path class="wire" d="M{start},60H{end - 6}"/><path class="head" d="M{end},60l-8,-4v8z"/>'


def block_diagram() -> Svg:
    """Two layers in a row, and the same two with x added to what they make of it.

    Over its left half the signal flows forward, over its right half the gradient flows back.
    """
    zones = [
        f'<rect class="zone z{k}" x="{170 * k}" y="0" width="{170 + 80 * k}" height="330" aria-label="{told}"/>'
        for k, told in enumerate(("the signal flows forward", "the gradient flows back"))
    ]
    flows = [f'<g class="view v{k}">{"".join(_flows(style))}</g>' for k, style in enumerate(("flow", "flow back"))]
    told = [
        words(_PLAIN, 322, "here: the signal", "middle"),
        words(_RESIDUAL, 322, "here: the gradient", "middle"),
    ]
    drawn = [
        *_branch(_PLAIN, "plain", "H(x) = F(x)"),
        *_branch(_RESIDUAL, "residual", "H(x) = F(x) + x"),
        *_shortcut(),
        *told,
    ]
    name = "A plain block and a residual block: in the residual one x goes round the layers and is added to F(x)"
    return drawing(name, BLOCK, [*zones, '<g class="still">', *drawn, "</g>", *flows])


def _branch(x: int, title: str, result: str) -> Iterator[str]:
    yield words(x, 12, title, "middle", "strong")
    yield words(x - 10, _IN + 4, "x", "end", "strong")
    for top, bottom in ((_IN - 6, 60), (90, 128), (158, _ADD - 11 if x == _RESIDUAL else _OUT), (_ADD + 11, _OUT)):
        if bottom > top and not (x == _PLAIN and top == _ADD + 11):
            yield _arrow(x, top, bottom)
    for top in (60, 128):
        yield f'<rect class="box" x="{x - 54}" y="{top}" width="108" height="30"/>'
        yield words(x, top + 19, "convolution, norm", "middle", "strong")
    yield words(x + 8, 113, "ReLU", "start")
    yield words(x + 8, 246, "ReLU", "start")
    yield f'<path class="brace" d="M{x - 60},60h-6v98h6"/>'
    yield words(x - 70, 113, "F", "end", "strong")
    yield words(x, _OUT + 20, result, "middle", "strong")


def _shortcut() -> Iterator[str]:
    yield f'<path class="wire" d="M{_RESIDUAL},{_SPLIT}H{_SHORTCUT}V{_ADD}H{_RESIDUAL + 14}"/>'
    yield f'<path class="head" d="M{_RESIDUAL + 11},{_ADD}l8,-4v8z"/>'
    yield f'<circle class="box" cx="{_RESIDUAL}" cy="{_ADD}" r="11"/>'
    yield f'<path class="wire" d="M{_RESIDUAL - 6},{_ADD}h12m-6,-6v12"/>'
    yield words(_SHORTCUT + 8, 118, "x, as it is", "start", "strong")
    yield words(_SHORTCUT + 8, 134, "the shortcut", "start")


def _arrow(x: int, top: int, bottom: int) -> str:
    return f'<path class="wire" d="M{x},{top}V{bottom - 6}"/><path class="head" d="M{x},{bottom}l-4,-8h8z"/>'


def _flows(style: str) -> Iterator[str]:
    yield f'<path class="{style} s2" d="M{_PLAIN},{_IN - 6}V{_OUT}"/>'
    yield f'<path class="{style} s2" d="M{_RESIDUAL},{_IN - 6}V{_OUT}"/>'
    yield f'<path class="{style} s1" d="M{_RESIDUAL},{_SPLIT}H{_SHORTCUT}V{_ADD}H{_RESIDUAL + 11}"/>'


def copy_diagram() -> Svg:
    """A trained network, a deeper one that copies it and hands on, and how blocks of zeros do that by themselves."""
    rows = [
        ("a trained network", ["", "", ""], "boxes"),
        ("deeper: copied, then identity", ["", "", "", "= x", "= x", "= x"], "added"),
        ("deeper, with shortcuts: F = 0", ["", "", "", "0", "0", "0"], "shortcuts"),
    ]
    body = ['<g class="choice">']
    for k, (name, boxes, kind) in enumerate(rows):
        body.append(series_group(name, _chain(28 + 64 * k, name, boxes, kind == "shortcuts")))
    name = "Any network can be made deeper without changing its answers, if the added layers hand on what they get"
    return drawing(name, (420, 200), [*body, "</g>"])


def _chain(top: int, name: str, boxes: list[str], shortcuts: bool) -> Iterator[str]:
    yield words(10, top - 10, name, "start", "strong")
    end = 34 + 58 * len(boxes)
    yield words(14, top + 19, "x", "middle", "strong")
    yield f'<path class="wire" d="M22,{top + 15}H{end}"/><path class="head" d="M{end + 6},{top + 15}l-8,-4v8z"/>'
    for k, text in enumerate(boxes):
        left = 34 + 58 * k
        yield f'<rect class="box{" new" if text else ""}" x="{left}" y="{top}" width="44" height="30"/>'
        yield words(left + 22, top + 19, text or str(k + 1), "middle", "strong")
        if shortcuts:
            yield f'<path class="wire s1" d="M{left - 4},{top + 15}v-21h52v21"/>'
    yield words(end + 12, top + 19, "y", "start", "strong")


def published_errors() -> Svg:
    """What He et al. published for 18 and 34 layers on ImageNet."""
    bars = [
        Bars(name, [Spread.of([value]) for value in values], colour)
        for (name, values), colour in zip(PUBLISHED.items(), (2, 1), strict=True)
    ]
    y = Axis("top-1 error, %", 0, 30)
    return grouped_bars("Published errors on ImageNet, plain and residual", y, ["18 layers", "34 layers"], bars)
