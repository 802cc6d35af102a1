"""Pages: one file, escaped, without scripts or requests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from plusx.report import page
from plusx.report.page import duration, picture, render


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A template of the test's own beside the project's."""
    for path in page.TEMPLATES.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text = '{% extends "base.html" %}{% block content %}<p>{{ name }}</p>{% endblock %}'
    (tmp_path / "own.html").write_text(text)
    monkeypatch.setattr(page, "TEMPLATES", tmp_path)
    page._environment.cache_clear()
    yield tmp_path
    page._environment.cache_clear()


def test_whatever_a_file_is_called_a_page_shows_it_and_runs_nothing(template: Path) -> None:
    html = render("own.html", title="A & B", name="<script>alert(1)</script>\udcff.jpg")
    assert "<title>A &amp; B</title>" in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;?.jpg" in html
    assert "<script" not in html
    html.encode()


def test_a_page_needs_no_other_file_and_forbids_scripts_and_requests(template: Path) -> None:
    html = render("own.html", title="x", name="y")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    assert policy[1].startswith("default-src 'none'; ")
    assert "script-src" not in policy[1]
    assert not re.findall(r"<(?:script|link|iframe|object)|url\(|@import|https?://", html)
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_a_page_is_not_made_without_what_it_shows(template: Path) -> None:
    with pytest.raises(UndefinedError, match="'name' is undefined"):
        render("own.html", title="x")


def test_pictures_say_what_they_are() -> None:
    assert picture(b"\xff\xd8\xff") == "data:image/jpeg;base64,/9j/"
    assert picture(b"\x89PNG").startswith("data:image/png;base64,")
    with pytest.raises(KeyError):
        picture(b"<svg onload=...>")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (6000, "1 h 40 min")]
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said
