"""What the page shows of an answer, on the screen and as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plusx.explain.overlay import overlay
from plusx.verbs.predict import Row, to_csv
from tests.serve.mock import Mock, serving
from tests.serve.page.steps import (
    BLUE,
    EXPLAINED,
    GREEN,
    GREY,
    RED,
    WEIGH,
    Visit,
    arrived,
    pixels,
    settle,
    told,
    worded,
)


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
        assert page.text(".word") == worded(said)
        first = max(said["probabilities"], key=lambda name: said["probabilities"][name])
        assert page.texts(".bars .class")[0] == first
        shown = float(page.texts(".bars .share")[0].rstrip("\u00a0%").lstrip("> "))
        assert shown == pytest.approx(100 * said["probability"], abs=0.5)
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
        page.js(f"({WEIGH})(0)")
        bare = np.asarray(plain.resize((960, 600), Image.Resampling.BICUBIC), dtype=float)
        assert np.abs(pixels(page) - bare).mean() < 6
        assert np.abs(found - bare).mean() > 30


def test_a_photo_that_its_file_says_to_turn_stands_upright(visit: Visit, address: str, tmp_path: Path) -> None:
    turned, path = Image.Exif(), tmp_path / "a.jpg"
    turned[0x0112] = 6
    halves = np.full((80, 120, 3), RED, np.uint8)
    halves[:, 60:] = BLUE
    Image.fromarray(halves).save(path, exif=turned)
    with visit(address) as page:
        page.drop([path])
        page.wait(EXPLAINED)
        page.js(f"({WEIGH})(0)")
        shown = pixels(page)
        assert shown.shape == (960, 640, 3)
        assert np.abs(shown[100] - RED).max() < 10
        assert np.abs(shown[-100] - BLUE).max() < 10
        assert "80 × 120 px" in page.text(".figures")


def test_another_class_can_be_explained(visit: Visit, photo: Any) -> None:
    mock = Mock()
    with serving(mock) as url, visit(url) as page:
        page.drop([photo("a.jpg", RED)])
        page.wait(EXPLAINED)
        assert [option.partition(",")[0] for option in page.texts(".open option")] == ["cat", "dog"]
        page.js("(e => { e.value = 'dog'; e.dispatchEvent(new Event('change')) })(document.querySelector('select'))")
        page.wait("document.querySelector('.large').getAttribute('aria-label').includes('what speaks for dog')")
        page.js(f"({WEIGH})(0)")
        assert np.abs(pixels(page) - RED).mean() < 20, "the photo is under it, not the photo with the map before"
        assert mock.asked[-2:] == [("POST", "/v1/explain?class=cat"), ("POST", "/v1/explain?class=dog")]


def test_several_photos_are_counted_and_each_waits_to_be_explained(visit: Visit, photo: Any) -> None:
    paths = [photo(f"{i}.jpg", colour) for i, colour in enumerate((RED, RED, BLUE))]
    with serving(Mock()) as url, visit(url) as page:
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


def test_a_photo_that_the_browser_cannot_show_is_answered_all_the_same(visit: Visit, address: str, photo: Any) -> None:
    with visit(address) as page:
        path = photo("a.tiff", RED)
        page.drop([path])
        page.wait(EXPLAINED)
        assert page.text(".word") == worded(told(address, path))
        assert page.text(".words").endswith("The photo itself is not shown.")
        width, height = page.js("[document.querySelector('.large').width, document.querySelector('.large').height]")
        assert width / height == pytest.approx(120 / 90, abs=0.01), "the box of the map tells the shape of the photo"
        page.click(".why")
        assert page.text(".kind") == "TIFF"


def test_a_model_that_cannot_be_explained_shows_its_photos_large(visit: Visit, photo: Any) -> None:
    mock = Mock(explains=None)
    with serving(mock) as url, visit(url) as page:
        page.drop([photo("a.jpg", RED)])
        settle(page, 1)
        assert page.js("document.querySelector('.tools').hidden")
        assert page.js("document.querySelector('.large').width") == 960
        assert [path for kind, path in mock.asked if kind == "POST"] == ["/v1/predict"]


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
        saved = arrived(tmp_path / "answers.csv")  # a page that is closed takes its download with it
        said = [told(url, path) for path in paths]
    rows = [Row(path.name, *(one.get(k) for k in ("label", "probability", "probabilities", "answer")), None)
            for path, one in zip(paths, said, strict=True)]  # fmt: skip
    rows[2] = Row(paths[2].name, None, None, None, None, {"code": said[2]["code"], "message": said[2]["detail"]})
    expected = tmp_path / "expected.csv"
    with expected.open("w", newline="", encoding="utf-8") as file:
        to_csv(rows, file)
    assert saved == expected.read_bytes()


def test_numbers_are_written_as_python_writes_them(visit: Visit) -> None:
    small = [1e-4, 9.9e-5, 1.2345e-5, 3e-7, 1.5e-12, 5e-324]
    numbers = [1.0, 0.0, 0.5, 0.1 + 0.2, 1 / 3, 0.9999999403953552, *small]
    with serving(Mock()) as url, visit(url) as page:
        assert page.js(f"{numbers}.map(number)") == list(map(repr, numbers))
