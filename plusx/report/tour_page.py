"""The tour: one page that tells why the "+ x" matters, around what the experiments found on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plusx.report.diagrams import block_diagram, copy_diagram, layers_diagram, published_errors
from plusx.report.lab_page import Aligned, Result, Shown
from plusx.report.page import render
from plusx.report.standalone import lively

TITLE = "Why the “+ x” matters"
SECTIONS = {  # in the order of the story
    "layers": "Layers",
    "surprise": "The surprise",
    "argument": "The argument",
    "shortcut": "The “+ x”",
    "degradation": "Degradation",
    "signals": "Vanishing gradients?",
    "shattering": "Shattered gradients",
    "landscape": "The landscape",
    "surgery": "Surgery",
    "identity": "The identity",
    "family": "The family",
    "known": "What is known",
    "sources": "Sources",
}

FIRST = 4  # figures of a chapter that are shown large: experiments give those that tell most first
_SAID = {True: "yes", False: "no", None: "cannot be told"}


@dataclass(frozen=True)
class Chapter:
    """An experiment as the tour shows it: its result, or None where `command` has to be typed first."""

    command: str
    result: Result | None = None
    figures: tuple[Shown, ...] = ()

    @property
    def tables(self) -> list[Aligned]:
        """The tables of the result."""
        return [Aligned(t.title, t.header, t.rows) for t in self.result.tables] if self.result else []


def tour_page(chapters: Mapping[str, Chapter], machine: str = "") -> str:
    """The whole story as one HTML page; `chapters` has every experiment of the lab by name."""
    return render(
        "tour.html",
        title=TITLE,
        sections=list(SECTIONS.items()),
        chapters=chapters,
        machine=machine,
        first=FIRST,
        done=[name for name, chapter in chapters.items() if chapter.result],
        glance=[_at_a_glance(name, c.result) for name, c in chapters.items() if c.result and c.result.findings],
        numbered=[(name, chapter) for name, chapter in chapters.items() if chapter.tables],
        layers=lively(layers_diagram()),
        published=lively(published_errors()),
        copied=lively(copy_diagram()),
        block=lively(block_diagram()),
    )


def _at_a_glance(name: str, result: Result) -> dict[str, Any]:
    """The first finding, and how many of all agree with the literature."""
    verdicts = [finding.agrees for finding in result.findings]
    worst = False if False in verdicts else None if None in verdicts else True
    counts = [f"{verdicts.count(kind)} {said}" for kind, said in _SAID.items() if kind in verdicts]
    return {
        "name": name,
        "title": SECTIONS.get(name, result.title),
        "sentence": result.findings[0].sentence,
        "agrees": worst,
        "counted": "yes" if worst else ", ".join(counts),
    }
