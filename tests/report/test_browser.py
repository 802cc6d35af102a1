"""Pages in a real browser: nothing wider than the screen, every section there, no request, no complaint."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plusx.images.preprocess import Preprocess
from plusx.images.source import Source
from plusx.lab.catalogue import EXPERIMENTS
from plusx.metrics import interval95
from plusx.model_file import Header
from plusx.report.advice import RULES, Advice
from plusx.report.comparison import Comparison, Contender, Group, Verdict, comparison_page
from plusx.report.lab_page import Shown, lab_page
from plusx.report.run_page import run_page
from plusx.report.standalone import lively
from plusx.report.story import Course, Speed, Story
from plusx.report.tour_page import SECTIONS as STORY
from plusx.report.tour_page import Chapter, tour_page
from plusx.verbs.answers import Answered
from plusx.verbs.measured import Album, measured
from tests.report.labmock import result
from tests.verbs.conftest import draw

BROWSERS = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
CHROMIUM = next(filter(None, BROWSERS), None)
WIDTHS = (390, 1200)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions", "--mute-audio"),
)
SECTIONS = ("advice", "accuracy", "curves", "trust", "photos", "unreadable", "facts")

# the frame has the width of a screen; it may be read from outside, since both are of one origin
MEASURE = """<!doctype html><title>measure</title><body>{frames}<script>
const beyond = e => {{
  const [text, box] = [e, e.closest("svg")].map(x => x.getBoundingClientRect());
  return text.right > box.right + 2 || text.left < box.left - 2 || text.top < box.top - 2;
}};
onload = () => {{
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument, sheet = page.documentElement, said = document.createElement("pre");
    const of = e => `${{e.tagName}}.${{e.closest("svg") ? e.textContent : e.className}}`;
    const out = [...page.body.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > sheet.clientWidth + 1
      && !e.closest(".scroll") || e.tagName == "text" && beyond(e)).map(of);
    const ids = [...page.querySelectorAll("section")].filter(e => e.offsetHeight > 20).map(e => e.id);
    const asked = frame.contentWindow.performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:"));
    const broken = [...page.images].filter(e => !e.complete || !e.naturalWidth).length;
    const measured = [frame.clientWidth, sheet.scrollWidth, out, ids, asked.length, broken];
    {more}
    said.textContent = "MEASURED " + JSON.stringify(measured);
    document.body.append(said);
  }}
}};
</script>"""


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., list[list]]:
    """What a browser measures of a page at every width: [width, scroll width, too wide, sections, requests, broken].

    `more` is JavaScript that adds to `measured`.
    """
    if CHROMIUM is None:
        pytest.skip("no chromium here: install the package chromium to look at pages in a browser")

    def measure(page: str, more: str = "") -> list[list]:
        frames = "".join(
            f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(page)}"></iframe>'
            for width in WIDTHS
        )
        (tmp_path / "measure.html").write_text(MEASURE.format(frames=frames, more=more))
        command = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr"]
        command += [
            "--virtual-time-budget=3000",
            "--window-size=1400,1000",
            "--dump-dom",
            f"file://{tmp_path}/measure.html",
        ]
        seen = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert "CONSOLE" not in seen.stderr, [line for line in seen.stderr.splitlines() if "CONSOLE" in line]
        return [json.loads(html.unescape(found)) for found in re.findall(r"MEASURED (\[.*?\])</pre>", seen.stdout)]

    return measure


def test_the_report_fits_every_screen_and_asks_for_nothing(browse: Callable[[str], list[list]], tmp_path: Path) -> None:
    measured_at = browse(run_page(long_story(tmp_path)))
    assert [row[0] for row in measured_at] == list(WIDTHS)
    for width, scrolled, too_wide, sections, requests, broken in measured_at:
        assert scrolled <= width
        assert too_wide == []
        assert set(sections) == set(SECTIONS)
        assert (requests, broken) == (0, 0)


def test_a_comparison_fits_every_screen(browse: Callable[[str], list[list]]) -> None:
    for width, scrolled, too_wide, sections, requests, _ in browse(comparison_page(wide_comparison())):
        assert scrolled <= width
        assert too_wide == []
        assert sections == ["verdicts", "runs", "settings", "curves"]
        assert requests == 0


def test_the_page_of_an_experiment_fits_every_screen(browse: Callable[[str], list[list]]) -> None:
    for width, scrolled, too_wide, sections, requests, _ in browse(lab_page(result(), {"Machine": "m" * 90})):
        assert scrolled <= width
        assert too_wide == []
        assert sections == ["found", "figures", "tables", "facts"]
        assert requests == 0


def test_the_tour_fits_every_screen_and_asks_for_nothing(browse: Callable[[str], list[list]]) -> None:
    for width, scrolled, too_wide, sections, requests, _ in browse(tour_page(chapters(), "m" * 90)):
        assert scrolled <= width
        assert too_wide == []
        assert sections == ["glance", *list(STORY)[:-1], "numbers", "sources"]
        assert requests == 0


def test_the_keyboard_turns_a_surface_reads_a_dial_and_singles_out_a_line(browse: Callable[..., list[list]]) -> None:
    looks = (
        (".z1", ".v1", "visibility", "hidden", "visible"),
        (".z1", ".rest", "visibility", "visible", "hidden"),
        (".step:nth-of-type(4) .zone", ".step:nth-of-type(4) .told", "visibility", "hidden", "visible"),
        (".series:nth-of-type(2)", ".series:nth-of-type(3)", "opacity", "1", "0.16"),
    )
    page = lab_page(result("x", "curves", "turning", "dial"))
    for measured_at in browse(page, FOCUS.replace("LOOKS", json.dumps(looks))):
        assert measured_at[6:] == [list(look[3:]) for look in looks]


# what a style computes to before and after the keyboard reaches an element
FOCUS = """const still = page.createElement("style"); still.textContent = "* { transition: none !important; }";
page.head.append(still);
for (const [reached, seen, what] of LOOKS) {
  const of = () => frame.contentWindow.getComputedStyle(page.querySelector(seen))[what], before = of();
  page.querySelector(reached).focus({focusVisible: true});
  measured.push([before, of()]);
  page.activeElement.blur();
}"""


def test_the_measuring_sees_what_is_too_wide_and_what_is_asked_for(browse: Callable[[str], list[list]]) -> None:
    page = run_page(Story("t", "l", None)).replace("<main>", '<main><section id="x" style="width:800px">x</section>')
    narrow, wide = browse(page)
    assert narrow[1] > narrow[0]
    assert narrow[2] == ["SECTION."]
    assert wide[2] == []
    with pytest.raises(AssertionError, match="violates the following Content Security Policy"):
        browse(page.replace("<main>", '<main><img src="https://example.invalid/x.png">'))


def long_story(folder: Path) -> Story:
    """A story with everything in it, long names, and more classes than fit side by side."""
    classes = tuple(f"a-class-with-a-rather-long-name-{i}" for i in range(9))
    random = np.random.default_rng(0)
    p = random.dirichlet([0.15] * 9, 300).astype(np.float32)
    labels = np.where(random.random(300) < 0.8, p.argmax(1), random.integers(0, 9, 300))
    names = [f"a/very/long/path/without/any/space/{'x' * 60}/{i}.jpg" for i in range(300)]
    draw(0, 0).save(folder / "one.jpg")
    sources = {name: Source(str(folder / "one.jpg")) for name in names}
    thresholds = {
        **{"risk": 0.01, "confidence": 0.95, "n": 150, "coverage": 0.7, "note": "Too few photos of one class."},
        "classes": [{"name": n, "threshold": 0.9, "n": 30, "answered": 20, "errors": 1} for n in classes],
    }
    calibration = {"temperature": 0.8, "n": 150, "measured_n": 150, "log_loss_before": 0.5, "log_loss_after": 0.4}
    calibration |= {"ece_before": 0.08, "ece_after": 0.02}
    novelty = {"score": "discriminant", "threshold": 2.5, "refused": 0.04, "n": 100, "note": None}
    header = Header(
        *(classes, Preprocess(64, 64), {"name": "resnet10"}),
        calibration=calibration,
        thresholds=thresholds,
        novelty=novelty,
    )
    answered = Answered.of(classes, [(name, str(i)) for i, name in enumerate(names)], labels, p)
    answered = answered.decided(header, random.normal(size=300) + 1)
    album = Album(sources, header.preprocess, lambda pixels, _: _png(Image.fromarray(pixels)))
    facts = (("where", "/a/very/long/path/" + "y" * 200), ("fingerprint", "0" * 64))
    curve = tuple((i / 3, 1 / (i + 1)) for i in range(60))
    return Story(
        title="Report of a-run-with-a-rather-long-name-that-somebody-gave-it",
        lead="A long story.",
        main=measured("validation", "Measured on validation.", answered, header, album),
        other=measured("test", "", answered, header, Album({}, header.preprocess)),
        data=facts,
        model=facts,
        training=facts,
        machine=facts,
        course=Course(curve, curve, curve, curve[::6], curve[::6], 150, ((0.0, 48), (10.0, 64))),
        speeds=(Speed(48, 2500.0, 7), Speed(64, 1800.0, 5)),
        calibration=calibration,
        thresholds=thresholds,
        novelty=novelty,
        skipped=tuple((name, "the content looks like text") for name in names[:30]),
        advice=tuple(Advice("A title", "Something is said. " * 9, "A rule.", "A remedy.") for _ in RULES),
        notes=("A note.",),
    )


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def wide_comparison() -> Comparison:
    """Eight runs with long names and many settings that differ."""
    curve = tuple((i / 3, 1 / (i + 1)) for i in range(20))
    runs = tuple(
        Contender(
            name=f"runs/a-rather-long-name-of-a-run-{i}",
            seed=i,
            n=1000,
            accuracy=0.9,
            accuracy_ci95=interval95(900, 1000),
            log_loss=0.3,
            ece=0.02,
            epochs=10.0,
            images_per_second=1234.5,
            seconds=600.0,
            parameters=11_000_000,
            settings={f"a_setting_{k}": "value" * (k + 1) for k in range(6)},
            course=Course(validation_loss=curve, validation_accuracy=curve),
        )
        for i in range(8)
    )
    verdict = Verdict(runs[0].name, runs[1].name, 0.01, 0.5, "McNemar's test on 1,000 common photos", False)
    return Comparison("A basis.", runs, (Group("g", tuple(r.name for r in runs), 0.9, 0.01),), (verdict,))


def chapters() -> dict[str, Chapter]:
    """All but two experiments, with every kind of figure."""
    found = result()
    figures = tuple(Shown(lively(figure.svg), figure.caption) for figure in found.figures)
    command = f"plusx lab NAME {'a/rather/long/path/' * 6}cifar10.tar --out lab"
    missing = ("identity", "family")
    return {name: Chapter(command, None if name in missing else found, figures) for name in EXPERIMENTS}
