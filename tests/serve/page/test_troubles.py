"""What the page says when something is wrong, and what a hostile name does to it: nothing."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.serve.mock import Mock, serving
from tests.serve.page.steps import BLUE, EXPLAINED, RED, Visit, settle, told, worded

HOSTILE = "<img src=x onerror=alert(1)>"


def test_a_damaged_photo_says_in_words_what_is_wrong(visit: Visit, address: str, photo: Any) -> None:
    whole, cut = photo("whole.jpg", RED), photo("cut.jpg", BLUE)
    cut.write_bytes(cut.read_bytes()[:700])
    with visit(address) as page:
        page.drop([cut, whole])
        settle(page, 2)
        assert page.texts(".word") == ["No answer", worded(told(address, whole))]
        assert page.texts(".sentence")[0].rstrip(".").lower() == told(address, cut)["detail"].rstrip(".").lower()
        assert page.text("#counts").endswith(", 1 without an answer")
        assert page.js("document.querySelector('.photo .redo').hidden"), "trying again would not help"


def test_a_photo_over_the_limit_is_refused_in_words_and_never_sent(visit: Visit, photo: Any) -> None:
    mock = Mock(megabytes=0.01)
    with serving(mock) as url, visit(url) as page:
        assert "each up to 0.01 MB and 25 megapixels" in page.text("#limits")
        page.drop([photo("a.bmp", RED)])
        settle(page, 1)
        assert page.text(".sentence") == "This photo has 0.033 MB and at most 0.01 MB are taken; save it smaller."
        assert [path for kind, path in mock.asked if kind == "POST"] == []


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
    mock = Mock()
    with serving(mock) as url, visit(url) as page:
        mock.ended = True
        page.drop([photo("a.jpg", RED), photo("b.jpg", BLUE)])
        page.wait("!$('trouble').hidden")
        assert page.text("#trouble p") == "The server does not answer; is plusx serve still running?"
        assert page.texts(".word") == ["Waiting", "Waiting"]
        mock.ended = False
        page.click("#again")
        settle(page, 2)
        assert page.js("$('trouble').hidden")


def test_a_camera_that_is_refused_says_so(visit: Visit, address: str) -> None:
    with visit(address) as page:
        page.allow()
        page.click("#camera")
        page.wait("$('lens-said').textContent.startsWith('The camera was refused. Allow it in the settings')")
        page.press("Escape")
        assert page.js("!$('lens').open")


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


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("document.body.setAttribute('style', 'color: red')", "style-src"),
        ("fetch('https://example.invalid/').catch(() => 0)", "connect-src"),
        ("document.body.append(document.createRange().createContextualFragment('<script>1</script>'))", "script-src"),
        ("setTimeout(() => missing())", "missing is not defined"),
    ],
)
def test_the_tests_see_what_goes_wrong_in_a_page(visit: Visit, address: str, wrong: str, said: str) -> None:
    def spoil() -> None:
        with visit(address) as page:
            page.js(f"void ({wrong})")
            time.sleep(0.1)

    with pytest.raises(AssertionError, match=said):
        spoil()
