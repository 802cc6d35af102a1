"""The page in a real browser, as people use it. Every test also asserts: no complaint, no request to elsewhere."""

from __future__ import annotations

import base64
import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plusx.explain.overlay import overlay
from plusx.verbs.predict import Row, to_csv
from tests.serve.browser import ABSENT, CHROMIUM, Browser, Page
from tests.serve.mock import Mock, serving

RED, BLUE, GREY, GREEN = (200, 40, 40), (40, 60, 210), (120, 118, 122), (30, 190, 60)
SETTLED = """document.querySelectorAll('.photo').length == COUNT && [...document.querySelectorAll('.photo')]
  .every(e => !['waiting', 'looking'].includes(e.dataset.state))"""
EXPLAINED = "document.querySelector('.open .words').innerText.includes('half')"
HOSTILE = "<img src=x onerror=alert(1)>"

Visit = Callable[..., AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests of this module."""
    if CHROMIUM is None:
        pytest.skip(ABSENT)
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture
def address() -> Iterator[str]:
    """A service that answers; tests that take it ask it themselves what it says, so any service will do."""
    with serving(Mock()) as url:
        yield url


@pytest.fixture
def visit(browser: Browser) -> Visit:
    """The page of a service, open and introduced; in the end it has not complained and asked nobody else."""

    @contextmanager
    def visit(url: str, *, ready: bool = True, **look: Any) -> Iterator[Page]:
        with browser.page(**look) as page:
            page.goto(f"{url}/")
            if ready:
                page.wait("model")
            yield page
            assert page.problems == []
            assert [one for one in page.requests if not one.startswith((f"{url}/", "blob:", "data:"))] == []

    return visit


@pytest.fixture
def photo(tmp_path: Path) -> Callable[..., Path]:
    """A photo of one colour with some noise in it, under a name."""

    def photo(name: str, colour: tuple[int, int, int], size: tuple[int, int] = (120, 90), **save: Any) -> Path:
        noise = np.random.default_rng(len(name)).normal(0, 12, (size[1], size[0], 3))
        path = tmp_path / "photos" / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path, **save)
        return path

    return photo


def settle(page: Page, count: int) -> None:
    """Wait until as many photos are there, each with an answer or an error."""
    page.wait(SETTLED.replace("COUNT", str(count)))


def told(url: str, path: Path) -> Any:
    """What the service says of a photo; of one that it refuses, the problem."""
    request = urllib.request.Request(f"{url}/v1/predict", path.read_bytes(), {"Content-Type": "image/jpeg"})
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)


def test_a_photo_that_is_dropped_shows_its_answer_its_bars_and_why(visit: Visit, address: str, photo: Any) -> None:
    path = photo("a.jpg", RED)
    said = told(address, path)
    with visit(address) as page:
        page.drag([path])
        assert page.js("!$('over').hidden")
        page.drop([path])
        settle(page, 1)
        page.wait(EXPLAINED)
        assert page.js("$('over').hidden")
        assert page.text(".word") == said["answer"]
        assert page.text(".answer .share") == f"{100 * said['probability']:.0f}\u00a0%"
        first = max(said["probabilities"], key=lambda name: said["probabilities"][name])
        assert page.texts(".bars .class")[0] == first
        assert page.texts(".bars .share")[0] == page.text(".answer .share")
        assert "120 × 90 px" in page.text(".figures")
        assert page.text(".figures").endswith(" ms")
        assert page.text("#counts") == f"1 photo: 1 {said['answer']}"
        assert page.failures == []


def test_the_map_is_drawn_as_plusx_explain_draws_it(visit: Visit, photo: Any) -> None:
    mock = Mock()
    path = photo("a.png", RED, (160, 100))
    with serving(mock) as url, visit(url) as page:
        page.drop([path])
        page.wait(EXPLAINED)
        found, plain = pixels(page), Image.open(path).convert("RGB")
        said = mock.explanation(plain, None)
        values = np.array(said["map"]["values"]).reshape(said["map"]["rows"], -1)
        left, top, right, bottom = said["box"]
        box = (160 * left, 100 * top, 160 * right, 100 * bottom)
        drawn = np.asarray(overlay(plain, box, values, most=960), dtype=float)
        assert found.shape == drawn.shape
        assert np.abs(found - drawn).mean() < 4, "but for the filter that enlarges the photo"
        page.js("(e => { e.value = 0; e.dispatchEvent(new Event('input')) })(document.querySelector('.open input'))")
        bare = np.asarray(plain.resize((960, 600), Image.Resampling.BICUBIC), dtype=float)
        assert np.abs(pixels(page) - bare).mean() < 6
        assert np.abs(found - bare).mean() > 30


def pixels(page: Page) -> Any:
    """The large picture of the open photo, [h, w, 3]."""
    picture = page.js("document.querySelector('.large').toDataURL('image/png')").partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"), dtype=float)


def test_a_photo_that_its_file_says_to_turn_stands_upright(visit: Visit, address: str, photo: Any) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    with visit(address) as page:
        page.drop([photo("a.jpg", RED, (120, 80), exif=turned)])
        page.wait(EXPLAINED)
        assert page.js("[document.querySelector('.large').width, document.querySelector('.large').height]") == [
            640,
            960,
        ]
        assert "80 × 120 px" in page.text(".figures")


def test_another_class_can_be_explained(visit: Visit, photo: Any) -> None:
    mock = Mock()
    with serving(mock) as url, visit(url) as page:
        page.drop([photo("a.jpg", RED)])
        page.wait(EXPLAINED)
        assert [option.partition(",")[0] for option in page.texts(".open option")] == ["cat", "dog"]
        page.js("(e => { e.value = 'dog'; e.dispatchEvent(new Event('change')) })(document.querySelector('select'))")
        page.wait("document.querySelector('.large').getAttribute('aria-label').includes('what speaks for dog')")
        assert mock.asked[-2:] == [("POST", "/v1/explain?class=cat"), ("POST", "/v1/explain?class=dog")]


def test_several_photos_are_counted_and_each_waits_to_be_explained(visit: Visit, address: str, photo: Any) -> None:
    paths = [photo(f"{i}.jpg", colour) for i, colour in enumerate((RED, RED, BLUE))]
    with visit(address) as page:
        page.drop(paths[:2])
        page.drop(paths[2:])
        settle(page, 3)
        assert page.texts(".name") == ["2.jpg", "0.jpg", "1.jpg"]
        assert page.text("#counts") == "3 photos: 2 cat, 1 dog"
        assert page.js("document.querySelectorAll('.open').length") == 1, "the one that came alone"
        page.click(".photo:last-child .why")
        page.wait("document.querySelector('.photo:last-child .words').innerText.includes('half')")
        page.click(".photo:last-child .why")
        assert page.js("document.querySelector('.photo:last-child .large').hidden")


def test_unsure_and_none_of_these_are_said_in_a_sentence(visit: Visit, photo: Any) -> None:
    with serving(Mock()) as url, visit(url) as page:
        page.drop([photo("grey.jpg", GREY), photo("green.jpg", GREEN)])
        settle(page, 2)
        assert page.texts(".word") == ["Unsure", "None of these"]
        doubtful, strange = page.texts(".sentence")
        assert doubtful.startswith("Likeliest: ")
        assert doubtful.endswith("\u00a0%, below the 90\u00a0% that this model needs to answer.")
        assert strange.startswith("This looks unlike the photos the model learnt from. Likeliest of its classes: ")
        assert page.text("#counts") == "2 photos: 1 unsure, 1 none of these"


def test_a_damaged_photo_says_in_words_what_is_wrong(visit: Visit, address: str, photo: Any) -> None:
    whole, cut = photo("whole.jpg", RED), photo("cut.jpg", BLUE)
    cut.write_bytes(cut.read_bytes()[:700])
    with visit(address) as page:
        page.drop([cut, whole])
        settle(page, 2)
        assert page.texts(".word") == ["No answer", "cat"]
        assert page.texts(".sentence")[0].rstrip(".").lower() == told(address, cut)["detail"].rstrip(".").lower()
        assert page.text("#counts") == "2 photos: 1 cat, 1 without an answer"
        assert page.js("document.querySelector('.photo .redo').hidden"), "trying again would not help"


def test_a_photo_over_the_limit_is_refused_in_words_and_never_sent(visit: Visit, photo: Any) -> None:
    mock = Mock(megabytes=0.01)
    with serving(mock) as url, visit(url) as page:
        assert "each up to 0.01 MB and 25 megapixels" in page.text("#limits")
        page.drop([photo("a.bmp", RED)])
        settle(page, 1)
        assert page.text(".sentence") == "This photo has 0.0325 MB and at most 0.01 MB are taken; save it smaller."
        assert [path for kind, path in mock.asked if kind == "POST"] == []


def test_a_photo_that_the_browser_cannot_show_is_answered_all_the_same(visit: Visit, address: str, photo: Any) -> None:
    with visit(address) as page:
        page.drop([photo("a.tiff", RED)])
        page.wait(EXPLAINED)
        assert page.text(".word") == "cat"
        width, height = page.js("[document.querySelector('.large').width, document.querySelector('.large').height]")
        assert width / height == pytest.approx(120 / 90, abs=0.01), "the box of the map tells the shape of the photo"
        page.click(".why")
        assert page.text(".kind") == "TIFF"


def test_the_csv_is_that_of_plusx_predict(visit: Visit, photo: Any, tmp_path: Path) -> None:
    mock = Mock(classes=("10", 'ca"t', "=dog, é", "9"))
    paths = [photo("a.jpg", RED), photo("=b,c.jpg", GREY), photo("cut é.jpg", BLUE)]
    paths[2].write_bytes(paths[2].read_bytes()[:700])
    with serving(mock) as url, visit(url) as page:
        page.downloads(tmp_path)
        page.drop(paths[:1])
        page.drop(paths[1:])
        settle(page, 3)
        page.click("#save")
        said = [told(url, path) for path in paths]
    rows = [Row(path.name, *(one.get(k) for k in ("label", "probability", "probabilities", "answer")), None)
            for path, one in zip(paths, said, strict=True)]  # fmt: skip
    rows[2] = Row(paths[2].name, None, None, None, None, {"code": said[2]["code"], "message": said[2]["detail"]})
    expected = tmp_path / "expected.csv"
    with expected.open("w", newline="", encoding="utf-8") as file:
        to_csv(rows, file)
    assert arrived(tmp_path / "answers.csv") == expected.read_bytes()


def arrived(path: Path) -> bytes:
    """A download, as soon as it is whole."""
    end = time.monotonic() + 10
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < end, f"{path.name} did not come"
        time.sleep(0.02)
    return path.read_bytes()


@pytest.mark.parametrize(
    "x", [1.0, 0.0, 0.5, 1e-4, 9.9e-5, 1.2345e-5, 3e-7, 1.5e-12, 0.1 + 0.2, 1 / 3, 0.9999999403953552, 5e-324]
)
def test_numbers_are_written_as_python_writes_them(visit: Visit, address: str, x: float) -> None:
    with visit(address) as page:
        assert page.js(f"number({x!r})") == repr(x)


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
        page.wait("document.querySelector('.large').getAttribute('aria-label').includes('for dog')")
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


def test_answers_are_told_to_screen_readers_and_every_control_has_a_name(
    visit: Visit, address: str, photo: Any
) -> None:
    with visit(address) as page:
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


@pytest.mark.parametrize("name", [f"{HOSTILE}.jpg".replace("/", ""), "'\"--><b>b.jpg", "&lt;é\u202e.jpg"])
def test_a_hostile_file_name_stays_text(visit: Visit, address: str, photo: Any, name: str) -> None:
    with visit(address) as page:
        page.drop([photo(name, RED)])
        settle(page, 1)
        page.wait(EXPLAINED)
        assert page.text(".name") == name
        assert page.js("document.querySelectorAll('#photos img, #photos b').length") == 0


def test_hostile_class_names_stay_text(visit: Visit, photo: Any) -> None:
    classes = (HOSTILE, "<script>alert(1)</script>", "__proto__", "constructor", "a" * 300, "&amp;", "7")
    with serving(Mock(classes=classes, name=HOSTILE)) as url, visit(url, width=390) as page:
        page.drop([photo("a.jpg", RED)])
        page.wait(EXPLAINED)
        assert page.text("#model b") == HOSTILE
        assert page.text(".word") == HOSTILE
        assert sorted(page.js("[...document.querySelectorAll('.bars .class')].map(e => e.textContent)")) == sorted(
            classes[:5]
        )
        assert page.text(".more").startswith("and 2 more, ")
        assert page.js("document.querySelectorAll('img, main b').length") == 0
        assert page.js("document.documentElement.scrollWidth") <= 390


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


def beyond(page: Page) -> list[str]:
    """What sticks out to the right of the screen."""
    return list(
        page.js("""[...document.body.querySelectorAll('*:not(.unseen)')].filter(e =>
          e.getBoundingClientRect().right > document.documentElement.clientWidth + 1 && !e.closest('svg, #over'))
          .map(e => e.tagName + '.' + e.className)""")
    )


def test_nothing_moves_when_answers_come(visit: Visit, photo: Any) -> None:
    watch = """window.moved = 0; new PerformanceObserver(list => list.getEntries().forEach(e => moved += e.value))
      .observe({type: 'layout-shift', buffered: false})"""
    with serving(Mock(delay=0.7)) as url, visit(url) as page:
        page.drop([photo("a.jpg", RED)])
        page.wait("document.querySelector('.photo')")
        time.sleep(0.2)
        page.js(watch)
        page.wait(EXPLAINED)
        assert page.js("moved") < 0.01
        page.drop([photo(f"{i}.jpg", GREY) for i in range(3)])
        time.sleep(0.3)
        page.js("moved = 0")
        settle(page, 4)
        time.sleep(0.1)
        assert page.js("moved") < 0.01


def test_a_full_queue_is_tried_again_after_the_time_it_says(visit: Visit, photo: Any) -> None:
    mock = Mock(busy=2, retry_after="1")
    with serving(mock) as url, visit(url) as page:
        page.drop([photo("a.jpg", RED), photo("b.jpg", BLUE)])
        page.wait("document.querySelector('.sentence').innerText.includes('tried again in 1 second.')")
        settle(page, 2)
        assert page.text("#counts") == "2 photos: 1 cat, 1 dog"
        assert len([kind for kind, _ in mock.asked if kind == "POST"]) == 4
        mock.busy, mock.retry_after = 6, "0"
        page.drop([photo("c.jpg", RED)])
        settle(page, 3)
        assert page.text(".sentence") == "64 photos wait already."
        page.click(".redo")
        page.wait("document.querySelector('.photo').dataset.state == 'sure'")


def test_a_token_is_asked_for_and_kept_in_memory_only(visit: Visit, photo: Any) -> None:
    with serving(Mock(token="open sesame")) as url, visit(url, ready=False) as page:
        page.wait("$('door').open")
        assert page.text("#door-said") == "This server wants a token."
        page.type("wrong")
        page.press("Enter")
        page.wait("$('door').open && $('door-said').textContent == 'This is not the token of this server.'")
        page.type("open sesame")
        page.press("Enter")
        page.wait("model")
        page.drop([photo("a.jpg", RED)])
        settle(page, 1)
        assert page.text(".word") == "cat"
        assert page.js("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        page.js("token = 'changed'")
        page.drop([photo("b.jpg", RED), photo("c.jpg", RED)])
        page.wait("$('door').open")
        page.press("Escape")
        settle(page, 3)
        assert page.text(".sentence") == "This server answers only with its token."
        page.click("#retry")
        page.wait("$('door').open")
        page.type("open sesame")
        page.press("Enter")
        page.wait("$('counts').textContent == '3 photos: 3 cat'")


def test_photos_wait_for_a_server_that_is_silent_and_none_is_lost(visit: Visit, photo: Any) -> None:
    with serving(Mock()) as url:
        port = int(url.rpartition(":")[2])
        page_of = visit(url)
        page = page_of.__enter__()
    page.drop([photo("a.jpg", RED), photo("b.jpg", BLUE)])
    page.wait("!$('trouble').hidden")
    assert page.text("#trouble p") == "The server does not answer; is plusx serve still running?"
    assert page.texts(".word") == ["Waiting", "Waiting"]
    with serving(Mock(), port):
        page.click("#again")
        settle(page, 2)
        assert page.js("$('trouble').hidden")
    page_of.__exit__(None, None, None)


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
        assert page.text(".word") == "cat"


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


def test_a_camera_that_is_refused_says_so(visit: Visit, address: str) -> None:
    with visit(address) as page:
        page.allow()
        page.click("#camera")
        page.wait("$('lens-said').textContent.startsWith('The camera was refused. Allow it in the settings')")
        page.press("Escape")
        assert page.js("!$('lens').open")


def test_a_model_that_cannot_be_explained_shows_its_photos_large(visit: Visit, photo: Any) -> None:
    mock = Mock(explains=None)
    with serving(mock) as url, visit(url) as page:
        page.drop([photo("a.jpg", RED)])
        settle(page, 1)
        assert page.js("document.querySelector('.tools').hidden")
        assert page.js("document.querySelector('.large').width") == 960
        assert [path for kind, path in mock.asked if kind == "POST"] == ["/v1/predict"]


def test_clearing_stops_what_is_under_way(visit: Visit, photo: Any) -> None:
    mock = Mock(delay=0.2)
    with serving(mock) as url, visit(url) as page:
        page.drop([photo(f"{i}.jpg", RED) for i in range(12)])
        page.wait("document.querySelectorAll('.photo').length == 12")
        page.click("#clear")
        page.drop([photo("b.jpg", BLUE)])
        page.wait(EXPLAINED)
        assert page.text("#counts") == "1 photo: 1 dog"
        assert len([path for _, path in mock.asked if path == "/v1/predict"]) <= 4


def test_the_tests_see_complaints_and_requests_to_elsewhere(visit: Visit, address: str) -> None:
    with pytest.raises(AssertionError, match="style-src"), visit(address) as page:
        page.js("document.body.setAttribute('style', 'color: red')")
        page.wait("true")
        time.sleep(0.1)
    with pytest.raises(AssertionError, match="connect-src"), visit(address) as page:
        page.js("fetch('https://example.invalid/').catch(() => 0)")
        time.sleep(0.1)
