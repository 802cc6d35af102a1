"""`plusx watch`: the server as it is started, and its page in a browser."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from plusx.cli.run import run as run_cli
from tests.serve.browser import ABSENT, CHROMIUM, Browser
from tests.serve.growing import Growing, answers_of, photos_of, tree

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-more-than-22-characters"
HOSTILE = '<img src=x onerror="document.title=1">&amp;\u202e"\'</script><script>document.title=2</script>'

pytest.importorskip("uvicorn")


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """`plusx watch` on a free port; a context manager that stops it with SIGTERM and keeps its exit code."""

    def __init__(self, run: Path, *flags: str) -> None:
        command = [sys.executable, "-m", "plusx", "watch", str(run), "--port", "0", "--quiet", *flags]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=run.parent, env=environment, **pipes)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.url = self.line.strip().rpartition(" ")[2]
        self.code: int | None = None
        self.complaints = ""

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        _, self.complaints = self.process.communicate(timeout=30)
        self.code = self.process.returncode

    def get(self, path: str, **headers: str) -> Reply:
        """The reply to a GET; `None_Match="x"` is the header None-Match."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=named), timeout=20) as reply:
                return Reply(reply.status, reply.headers, reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read())

    def run(self) -> Any:
        """The run as it is now, its photos included."""
        end = time.monotonic() + 60
        while not (said := self.get("/v1/run").json)["images"]["key"] and said["images"]["told"]:
            assert time.monotonic() < end, said
            time.sleep(0.05)
        return said


@pytest.fixture
def run(tmp_path: Path) -> Growing:
    """A run with photos that has come to step 100."""
    run = Growing(tmp_path / "run")
    rows = photos_of(run, tmp_path / "data")
    for step in (1, *range(10, 110, 10)):
        run.step(step, 0.7 - step / 1000)
    run.validation(100, 0.8)
    assert rows
    return run


def test_a_run_is_shown_while_it_trains_and_nothing_is_written_to_it(run: Growing) -> None:
    before = tree(run.path)
    with Server(run.path) as server, run.trained():
        assert server.line == f"watching {run.path} on {server.url}\n"
        assert server.get("/healthz").json == {"status": "ok"}
        assert server.get("/readyz").json == {"status": "ready"}
        said = server.run()
        assert (said["name"], said["state"], said["step"], said["steps"], said["size"]) == (
            "run",
            "running",
            100,
            1000,
            32,
        )
        assert said["best"] == [100, 0.8]
        assert 0 <= said["age"] < 60
        assert [len(said["series"][name]) for name in ("loss", "rate", "val_accuracy", "speed")] == [11, 11, 1, 11]
        assert tree(run.path) == before
        run.step(110)
        assert server.get("/v1/run").json["step"] == 110
    assert (server.code, server.complaints) == (0, "")


def test_what_is_known_already_is_not_sent_again(run: Growing) -> None:
    with Server(run.path) as server, run.trained():
        server.run()
        tag = server.get("/v1/run").headers["ETag"]
        again = server.get("/v1/run", If_None_Match=f'"other", {tag}')
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
        time.sleep(1.1)  # the run is older by a second, and that alone is no news
        assert server.get("/v1/run", If_None_Match=tag).status == 304
        run.step(110)
        news = server.get("/v1/run", If_None_Match=tag)
        assert (news.status, news.json["step"]) == (200, 110)
        assert news.headers["ETag"] != tag


def test_photos_have_addresses_and_what_is_none_is_refused_with_a_sentence(run: Growing) -> None:
    with Server(run.path) as server:
        photos = server.run()["images"]["photos"]
        assert len(photos) == 8
        replies = [server.get(f"/v1/run/images/{i}") for i in range(8)]
        assert {(r.status, r.headers["Content-Type"], r.body[1:4]) for r in replies} == {(200, "image/png", b"PNG")}
        for number in ("8", "-1", "999999999999999999999"):
            reply = server.get(f"/v1/run/images/{number}")
            assert (reply.status, reply.headers["Content-Type"]) == (404, "application/problem+json")
            assert reply.json["detail"] == f"There is no photo {number}; the run shows 8 at the moment."
        assert server.get("/v1/run/images/..%2f..%2fconfig.yaml").status in (400, 404)
        assert server.get("/config.yaml").status == 404


def test_every_reply_is_guarded_and_the_page_may_run_only_its_own_script(run: Growing) -> None:
    with Server(run.path) as server:
        page = server.get("/")
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy
        text = page.body.decode()
        assert text.count("<script") == text.count("<style") == 1
        assert " style=" not in text
        assert " onclick" not in text.lower()
        for path in ("/", "/v1/run", "/v1/run/images/0", "/nowhere"):
            reply = server.get(path)
            assert (reply.headers["Cache-Control"], reply.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
        assert server.get("/v1/run", Host="evil.example").status == 403
        assert server.get("/v1/run", Origin="http://evil.example").status == 403


def test_with_a_token_the_run_is_shown_to_those_who_know_it(run: Growing, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with Server(run.path, "--token-file", str(tmp_path / "token")) as server:
        assert [server.get(path).status for path in ("/", "/healthz", "/readyz")] == [200] * 3
        for path in ("/v1/run", "/v1/run/images/0"):
            assert server.get(path).json["code"] == "no-token"
            assert server.get(path, Authorization=f"Bearer {TOKEN[::-1]}").json["code"] == "wrong-token"
        assert server.get("/v1/run", Authorization=f"Bearer {TOKEN}").json["name"] == "run"


def test_a_run_that_vanishes_and_one_that_finishes_are_told(run: Growing, tmp_path: Path) -> None:
    with Server(run.path) as server:
        server.run()
        run.path.rename(tmp_path / "elsewhere")
        assert server.get("/v1/run").json["words"] == "The folder holds no run at the moment."
        (tmp_path / "elsewhere").rename(run.path)
        run.finish()
        said = server.get("/v1/run").json
        assert (said["state"], said["next"]) == ("finished", f"plusx evaluate {run.path}")


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = run_cli(["watch", *arguments])
    said = capsys.readouterr()
    assert said.out == ""
    return code, said.err.replace(str(tmp_path), "TMP")


def test_what_is_no_run_is_refused_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    not_yet = (
        "plusx: TMP/{} holds no run yet: `plusx train` makes its folder once the photos are decoded; name a run "
        "folder, or start this again when the training tells its own.\n"
    )
    for name in ("nowhere", "empty"):
        assert refused(tmp_path, capsys, str(tmp_path / name)) == (4, not_yet.format(name))
    assert refused(tmp_path, capsys, str(tmp_path / "other")) == (
        4,
        "plusx: TMP/other is not a run folder of plusx; expected one that `plusx train` made.\n",
    )


def test_of_several_seeds_one_has_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        Growing(tmp_path / f"seed-{seed}")
    (tmp_path / "seeds.json").write_text("{}")
    assert refused(tmp_path, capsys, str(tmp_path)) == (
        4,
        "plusx: TMP holds 2 runs, one per seed; watch one of them: TMP/seed-0 or TMP/seed-1.\n",
    )


def test_others_are_let_in_only_with_a_token(run: Growing, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(run.path, capsys, str(run.path), "--host", "0.0.0.0")
    assert code == 2
    assert "token" in said


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a page of a browser, of a width and a colour scheme."""
    if CHROMIUM is None:
        pytest.skip(ABSENT)
    with Browser(tmp_path / "profile") as browser:
        yield browser.page


@contextlib.contextmanager
def looking_at(browse: Callable[..., Any], server: Server, width: int = 1200, **how: bool) -> Iterator[Any]:
    with browse(width, 900, **how) as page:
        page.goto(f"{server.url}/")
        yield page
        assert page.problems == []
        assert all(address.startswith((server.url, "data:", "blob:")) for address in page.requests)


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1200, False)])
def test_the_page_shows_the_run_on_every_screen_and_follows_it(
    run: Growing, browse: Callable[..., Any], width: int, dark: bool
) -> None:
    with Server(run.path) as server, run.trained(), looking_at(browse, server, width, dark=dark) as page:
        page.wait("document.title == '10 % · run'")
        page.wait("document.images.length == 8 && [...document.images].every(i => i.naturalWidth == 32)")
        assert page.js("document.documentElement.scrollWidth") <= width
        assert page.text("#words") == "Training on photos of 32 × 32 pixels."
        assert [text.split("\n")[0] for text in page.texts(".chart h2")] == [
            *("Loss", "Accuracy", "Learning rate", "Speed"),
        ]
        assert page.js("document.querySelectorAll('svg .line').length") == 6
        assert "80.00 %" in page.text("#tiles")
        run.step(600)
        page.wait("document.title == '60 % · run'")
        page.wait("[...document.images].every(i => i.naturalWidth == 48)")
        run.finish()
        page.wait("document.title == 'done · run'")
        assert page.text("#next") == f"Next: plusx evaluate {run.path}"
        assert "90.00 % of 100 photos" in page.text("#measured")


def test_values_are_read_with_the_keyboard_and_with_the_pointer(run: Growing, browse: Callable[..., Any]) -> None:
    with Server(run.path) as server, run.trained(), looking_at(browse, server) as page:
        page.wait("document.title == '10 % · run'")
        page.js("document.querySelector('.chart svg').focus()")
        page.press("ArrowLeft")
        page.press("ArrowLeft")
        assert page.text(".chart h2").endswith("at step 90, epoch 0.9")
        assert page.text("#announced").startswith("Loss at step 90, epoch 0.9: training 0.6")
        assert page.js("document.querySelectorAll('svg .cursor').length") == 4
        page.press("Home")
        assert "at step 1," in page.text(".chart h2")
        page.press("Escape")
        assert page.text(".chart h2") == "Loss"
        page.js(
            "(() => { const s = document.querySelectorAll('.chart svg')[1], b = s.getBoundingClientRect();"
            "s.dispatchEvent(new PointerEvent('pointermove', {clientX: b.right - 12, clientY: b.top + 50})); })()"
        )
        assert page.texts(".chart h2")[1].endswith("at step 100, epoch 1.0")


def test_hostile_names_stay_text(tmp_path: Path, browse: Callable[..., Any]) -> None:
    run, labels = Growing(tmp_path / "<b>run"), ("<img src=x onerror=alert(1)>", "<svg onload=alert(1)>\udcff")
    answers_of(run, photos_of(run, tmp_path / "data", labels=labels), 4, labels)
    run.step(10)
    run.write("environment", {"device": HOSTILE, "threads": [HOSTILE], "torch": {"a": 1}})
    (run.path / "skipped.csv").write_text(f"path,code,reason\na,x,{HOSTILE.replace(',', ' ')}\n")
    run.finish()
    with Server(run.path) as server, looking_at(browse, server) as page:
        page.wait("document.title == 'done · <b>run'")
        page.wait("document.images.length == 4")
        assert page.texts("#photos-shown figcaption")[0].startswith("<svg onload=alert(1)>\udcff, 90.0 %")
        assert page.js("document.getElementById('machine').textContent").count(HOSTILE) == 2
        assert HOSTILE in page.js("document.getElementById('skipped-list').textContent")
        assert page.js("document.querySelectorAll('script').length") == 1
        assert page.js("document.querySelectorAll('b b, img[src=x], h1 b').length") == 0
        assert page.text("#name") == "<b>run"


def test_a_server_that_is_gone_is_said_to_be_and_asked_again(run: Growing, browse: Callable[..., Any]) -> None:
    with run.trained(), Server(run.path) as server, looking_at(browse, server) as page:
        page.wait("document.title == '10 % · run'")
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        page.wait("!document.getElementById('trouble').hidden")
        assert page.text("#trouble").startswith("The server does not answer. What is shown is what it said last;")
        assert page.text("#percent") == "10 %"
        page.failures.clear()


def test_the_token_is_asked_for_and_kept_out_of_the_address(
    run: Growing, tmp_path: Path, browse: Callable[..., Any]
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with (
        Server(run.path, "--token-file", str(tmp_path / "token")) as server,
        run.trained(),
        looking_at(browse, server) as page,
    ):
        page.wait("!document.getElementById('door').hidden")
        page.type("not-the-right-token-at-all")
        page.press("Enter")
        page.wait("document.getElementById('words').textContent.startsWith('That token is not')")
        page.type(TOKEN)
        page.press("Enter")
        page.wait("document.title == '10 % · run'")
        page.wait("document.images.length == 8")
        assert not any(TOKEN in address for address in page.requests)
        assert page.js("document.getElementById('door').hidden")


def test_photos_that_have_moved_leave_the_curves(run: Growing, tmp_path: Path, browse: Callable[..., Any]) -> None:
    shutil.rmtree(tmp_path / "data")
    with Server(run.path) as server, run.trained(), looking_at(browse, server) as page:
        page.wait("document.getElementById('photos-told').textContent.startsWith('The photos have moved')")
        assert page.js("document.querySelectorAll('.chart:not([hidden])').length") == 4
