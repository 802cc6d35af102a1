"""The page as people use it: many photos, keyboard, screen reader, small screens, paste, camera."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.serve.browser import Browser
from tests.serve.mock import Mock, serving
from tests.serve.page.steps import BLUE, EXPLAINED, GREEN, GREY, RED, Visit, arrived, beyond, settle


def test_everything_can_be_done_with_the_keyboard(visit: Visit, address: str, photo: Any, tmp_path: Path) -> None:
    with visit(address) as page:
        page.downloads(tmp_path)
        page.reach("#pick")
        page.choose("Enter", [photo("a.jpg", RED), photo("b.jpg", BLUE)])
        settle(page, 2)
        page.reach(".photo:first-child .why")
        assert page.js("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is seen"
        page.press("Enter")
        page.wait(EXPLAINED)
        page.js("document.activeElement.blur()")
        page.reach(".open select")
        page.press("ArrowDown")
        page.wait("document.querySelector('select').selectedIndex == 1")
        page.wait(
            "document.querySelector('.large').ariaLabel.includes('for ' + document.querySelector('select').value)"
        )
        page.reach(".open input")
        page.press("End")
        assert page.js("document.activeElement.value") == "100"
        page.reach(".open .out")
        page.press("Enter")
        assert page.texts(".name") == ["b.jpg"]
        assert page.js("document.activeElement.matches('.out')"), "the focus goes on to the next"
        page.press("Shift+Tab", "Shift+Tab", "Shift+Tab")
        assert page.js("document.activeElement.id") == "save"
        page.press(" ")
        assert arrived(tmp_path / "answers.csv").count(b"\r\n") == 2
        page.press("Tab", "Enter")
        page.wait("!document.querySelector('.photo')")
        assert page.js("document.activeElement.id") == "pick"


def test_answers_are_told_to_screen_readers_and_every_control_has_a_name(visit: Visit, photo: Any) -> None:
    with serving(Mock()) as url, visit(url) as page:
        page.drop([photo("a.jpg", RED)])
        page.wait("$('told').textContent.includes('a.jpg: cat')")
        page.drop([photo(f"{i}.jpg", RED) for i in range(5)])
        page.wait("$('told').textContent == '6 photos: 6 cat.'")
        page.call("Accessibility.enable")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        kinds = {"button", "combobox", "slider", "textbox", "image", "link"}
        named = [(n["role"]["value"], n["name"]["value"]) for n in nodes if n.get("role", {}).get("value") in kinds]
        assert len(named) > 10
        assert [role for role, name in named if not name.strip()] == []
        assert ("button", "Show why: 3.jpg") in named


def test_fifty_photos_are_sent_three_at_a_time(visit: Visit, photo: Any) -> None:
    mock = Mock(delay=0.02)
    paths = [photo(f"{i}.jpg", RED if i % 3 else BLUE, (60, 40)) for i in range(50)]
    with serving(mock) as url, visit(url) as page:
        page.drop(paths)
        page.wait("document.querySelectorAll('.photo').length == 50")
        assert "to go" in page.text("#counts")
        settle(page, 50)
        assert page.text("#counts") == "50 photos: 33 cat, 17 dog"
        assert page.texts(".name") == [path.name for path in paths]
        assert 2 <= mock.most <= 3
        assert [path for kind, path in mock.asked if kind == "POST"] == ["/v1/predict"] * 50


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 390, 1200])
def test_nothing_is_wider_than_the_screen(visit: Visit, photo: Any, width: int, dark: bool) -> None:
    classes = tuple(f"a-class-with-a-rather-long-name-{'x' * (i % 30)}{i}" for i in range(120))
    cut = photo("c" * 120 + ".jpg", BLUE)
    cut.write_bytes(cut.read_bytes()[:700])
    with serving(Mock(classes=classes, name="m" * 80)) as url, visit(url, width=width, dark=dark) as page:
        page.js("$('about').open = $('every').open = true")
        assert beyond(page) == []
        page.drop([photo("n" * 150 + ".jpg", GREY), cut, photo("d.jpg", GREEN)])
        settle(page, 3)
        page.click(".photo:first-child .why")
        page.wait(EXPLAINED)
        assert beyond(page) == []
        assert page.js("$('classes').children.length") == 120


@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_moves_when_answers_come(visit: Visit, browser: Browser, photo: Any, width: int) -> None:
    """Layout shift as browsers measure it: 0 is none, 0.1 what is called good (web.dev/cls)."""
    with serving(Mock(delay=0.5)) as url, browser.page(width) as page:
        page.call("Page.addScriptToEvaluateOnNewDocument", source=MOVED)
        page.goto(f"{url}/")
        page.wait("model")
        time.sleep(0.1)
        assert page.js("moved") < 0.01, "nor when the model is known"
        page.drop([photo("a.jpg", RED)])
        page.wait("document.querySelector('.photo')")
        time.sleep(0.2)
        page.js("moved = 0")
        page.wait(EXPLAINED)
        assert page.js("moved") < 0.01
        page.drop([photo(f"{i}.jpg", RED) for i in range(3)])
        time.sleep(0.3)
        page.js("moved = 0")
        settle(page, 4)
        time.sleep(0.1)
        assert page.js("moved") < 0.01


MOVED = """window.moved = 0; new PerformanceObserver(list => list.getEntries().forEach(e => moved += e.value))
  .observe({type: 'layout-shift', buffered: true})"""


def test_photos_can_be_pasted(visit: Visit, address: str) -> None:
    paste = """(async () => {
      const canvas = new OffscreenCanvas(40, 30), context = canvas.getContext('2d');
      context.fillStyle = 'rgb(200 40 40)'; context.fillRect(0, 0, 40, 30);
      const data = new DataTransfer();
      data.items.add(new File([await canvas.convertToBlob()], 'image.png', {type: 'image/png'}));
      document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true}));
    })()"""
    with visit(address) as page:
        page.js(paste)
        settle(page, 1)
        assert page.texts(".name") == ["image.png"]
        assert page.js("document.querySelector('.photo').dataset.state") in ("sure", "unsure", "none")


def test_a_folder_that_is_dropped_gives_its_photos(visit: Visit, address: str, photo: Any) -> None:
    folder = photo("a.jpg", RED).parent
    (folder / "notes.txt").write_text("no photo")
    with visit(address) as page:
        page.drop([folder])
        settle(page, 1)
        assert page.texts(".name") == ["photos/a.jpg"]


def test_the_camera_takes_a_photo(visit: Visit, address: str) -> None:
    with visit(address) as page:
        page.allow("videoCapture")
        page.click("#camera")
        page.wait("!$('shutter').disabled")
        assert page.js("document.activeElement.id") == "shutter"
        page.press("Enter")
        settle(page, 1)
        assert page.texts(".name") == ["camera-1.jpg"]
        assert page.js("stream === null && !$('lens').open"), "the camera is given back"


def test_clearing_stops_what_is_under_way(visit: Visit, photo: Any) -> None:
    mock = Mock(delay=1)
    with serving(mock) as url, visit(url) as page:
        page.drop([photo(f"{i}.jpg", RED) for i in range(12)])
        page.wait("document.querySelectorAll('.photo').length == 12")
        page.wait("running == 3")
        page.click("#clear")
        page.wait("running == 0", seconds=0.5)
        mock.delay = 0
        page.drop([photo("b.jpg", BLUE)])
        page.wait(EXPLAINED)
        assert page.text("#counts") == "1 photo: 1 dog"
        assert len([path for _, path in mock.asked if path == "/v1/predict"]) <= 4
