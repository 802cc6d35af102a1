"""The page as a file: what its policy allows, and what it never does."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from plusx.serve.page import FILE, Page, page

TEXT = FILE.read_text(encoding="utf-8")
STYLE = re.findall(r"<style>(.*?)</style>", TEXT, re.DOTALL)[0]
SCRIPT = re.findall(r"<script>(.*?)</script>", TEXT, re.DOTALL)[0]


class Attributes(HTMLParser):
    """Every attribute of every tag."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [(tag, name, value or "") for name, value in attrs]


def test_the_policy_names_the_script_and_the_style_by_their_hashes_and_allows_nothing_else() -> None:
    script, style = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (SCRIPT, STYLE))
    assert page().body == FILE.read_bytes()
    assert page().policy == (
        f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src 'self' blob: data:; "
        "connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


@pytest.mark.parametrize("more", ["<script>1</script>", "<style>p {}</style>"])
def test_a_page_with_a_second_script_or_style_is_refused(more: str) -> None:
    with pytest.raises(ValueError, match="one <script> and one <style> were expected, found"):
        Page.of(TEXT + more)


def test_no_attribute_holds_a_style_or_a_script_and_none_points_elsewhere() -> None:
    parser = Attributes()
    parser.feed(TEXT)
    assert len(parser.found) > 100
    for tag, name, value in parser.found:
        assert name != "style", tag
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "action", "srcset"):
            assert value.startswith("data:"), (tag, name, value)


def test_text_is_only_ever_put_in_as_text() -> None:
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
    ):
        assert word not in SCRIPT
    for word in ("localStorage", "sessionStorage", "indexedDB", "document.cookie"):
        assert word not in SCRIPT, "the token stays in memory, and photos stay nowhere"


def test_the_page_asks_its_own_server_by_relative_addresses_alone() -> None:
    assert "fetch(path," in SCRIPT
    assert SCRIPT.count("fetch(") == 1
    assert not re.findall(r"https?://|//[a-z]+\.", SCRIPT)
    assert set(re.findall(r"[\"`](v1/\w+)", SCRIPT)) == {"v1/model", "v1/predict", "v1/explain"}


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(scheme: int) -> None:
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", STYLE.split("@media")[scheme]))
    grounds = ("paper", "card", "well")
    pairs = [(ink, ground) for ink in ("ink", "soft", "accent", "bad", "warn") for ground in grounds]
    pairs += [("accent-ink", "accent"), ("bad", "bad-soft"), ("accent", "accent-soft")]
    for ink, ground in pairs:
        assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    assert contrast(colours["edge"], colours["card"]) >= 3, "the edges of fields and buttons"


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio of two colours #rrggbb, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
