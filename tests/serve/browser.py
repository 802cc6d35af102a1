"""A tiny client of the Chrome DevTools Protocol, over two pipes: messages are JSON and end in NUL.

`--remote-debugging-pipe` reads commands from file descriptor 3 and answers on 4, so no port is opened and no package is
needed. Protocol: chromedevtools.github.io/devtools-protocol.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Message = dict[str, Any]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ABSENT = "no chromium here: install the package chromium to look at pages in a browser"
PATIENCE = 20.0  # s
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions", "--mute-audio"),
    *("--disable-dev-shm-usage", "--use-fake-device-for-media-stream", "--hide-scrollbars"),
    *("--remote-debugging-pipe", "--force-color-profile=srgb"),
)
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
KEYS |= {"ArrowUp": 38, "ArrowDown": 40}
TYPED = {"Enter": "\r", " ": " "}
# the descriptors that the browser reads from and writes to have to be 3 and 4
LAUNCH = """import os, sys
ends = sys.argv[1:3]
for number, end in zip((3, 4), ends):
    os.dup2(int(end), number)
os.execv(sys.argv[3], sys.argv[3:])"""
WATCH = "addEventListener('securitypolicyviolation', e => console.error('CSP ' + e.violatedDirective + e.blockedURI));"


class Browser:
    """A Chromium without a window. `with Browser(profile) as browser` ends it in the end."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None, ABSENT
        (theirs_in, ours_out), (ours_in, theirs_out) = _pipe(), _pipe()
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        ends = (theirs_in, theirs_out)
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        launch = [sys.executable, "-c", LAUNCH, *map(str, ends), *command]
        self._process = subprocess.Popen(launch, pass_fds=ends, **quiet)
        os.close(theirs_in)
        os.close(theirs_out)
        self._out, self._in = os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb")
        self._answers: dict[int, queue.Queue[Message]] = {}
        self._pages: dict[str, Page] = {}
        self._lock, self._number = threading.Lock(), 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(AssertionError, OSError):
            self.call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(BrokenPipeError):  # what was not written, if it has crashed, is still in its buffer
            self._out.close()
        self._reader.join(5)
        self._in.close()

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Message:
        """The result of one command. Raises AssertionError where the browser refuses it or says nothing."""
        with self._lock:
            self._number += 1
            number, answer = self._number, queue.Queue[Message](1)
            self._answers[number] = answer
            message = {"id": number, "method": method, "params": parameters}
            self._out.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
            self._out.flush()
        try:
            said = answer.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"the browser did not answer to {method}") from None
        assert "error" not in said, f"{method}: {said['error']}"
        return dict(said["result"])

    @contextlib.contextmanager
    def page(self, width: int = 1200, height: int = 900, *, dark: bool = False) -> Iterator[Page]:
        """A blank page with cookies and storage of its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, context)
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            page.call(f"{domain}.enable")
        page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        page.look(width, height, dark=dark)
        try:
            yield page
        finally:
            del self._pages[session]
            self.call("Target.disposeBrowserContext", browserContextId=context)

    def _read(self) -> None:
        """Hand every message to who waits for it: an answer by its number, an event by its session."""
        rest = b""
        with contextlib.suppress(OSError, ValueError):
            while chunk := self._in.read1(1 << 16):
                *whole, rest = (rest + chunk).split(b"\0")
                for message in map(json.loads, whole):
                    if "id" in message:
                        self._answers.pop(message["id"]).put(message)
                    elif (page := self._pages.get(message.get("sessionId", ""))) is not None:
                        page.hear(message["method"], message["params"])


class Page:
    """One page. `problems` are errors of its console and of its policy, `requests` are the addresses it asked for.

    `failures` are the browser's own lines about answers that are errors, such as a 422.
    """

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser, self._session, self._context = browser, session, context
        self.problems: list[str] = []
        self.failures: list[str] = []
        self.requests: list[str] = []
        self._chooser = threading.Event()
        self._chosen: int | None = None

    def call(self, method: str, **parameters: Any) -> Message:
        """The result of one command of this page."""
        return self._browser.call(method, self._session, **parameters)

    def hear(self, method: str, said: Message) -> None:
        """Remember what an event says."""
        if method == "Runtime.exceptionThrown":
            self.problems.append(str(said["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.problems.append(" ".join(str(one.get("value", one.get("description"))) for one in said["args"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            entry = said["entry"]
            (self.failures if entry["source"] == "network" else self.problems).append(entry["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Page.fileChooserOpened":
            self._chosen = said["backendNodeId"]
            self._chooser.set()

    def look(self, width: int, height: int, *, dark: bool = False, still: bool = True) -> None:
        """Set the screen in px, a phone below 600; the colour scheme; whether the person wants less motion."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.call("Emulation.setTouchEmulationEnabled", enabled=width < 600)
        features = {"prefers-color-scheme": "dark" if dark else "light"}
        features |= {"prefers-reduced-motion": "reduce" if still else "no-preference"}
        self.call("Emulation.setEmulatedMedia", features=[{"name": k, "value": v} for k, v in features.items()])

    def goto(self, url: str) -> None:
        """Open an address and wait until it is loaded."""
        self.call("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({json.dumps(url)}) && document.readyState == 'complete'")

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression; of a promise, what it becomes."""
        said = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def wait(self, expression: str, seconds: float = PATIENCE) -> None:
        """Wait until an expression is true. Raises AssertionError where it does not become so."""
        end = time.monotonic() + seconds
        while not self.js(f"(() => {{ try {{ return !!({expression}); }} catch {{ return false; }} }})()"):
            assert time.monotonic() < end, f"never true: {expression}; the page says: {self.text('body')[:2000]}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """What a person reads in the first element of a selector; nothing where there is none."""
        return str(self.js(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def texts(self, selector: str) -> list[str]:
        """What a person reads in every element of a selector."""
        return list(self.js(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText)"))

    def click(self, selector: str) -> None:
        """Click on the middle of an element, with the mouse."""
        found = json.dumps(selector)
        box = self.js(
            f"(e => {{ e.scrollIntoView({{block: 'center', behavior: 'instant'}}); const b = e.getBoundingClientRect();"
            f" return [b.x + b.width / 2, b.y + b.height / 2] }})(document.querySelector({found}))"
        )
        at = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **at)

    def files(self, selector: str, paths: Sequence[Path]) -> None:
        """Choose files in a file input, as its dialog does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path) for path in paths], nodeId=node)

    def choose(self, key: str, paths: Sequence[Path]) -> None:
        """Press a key that opens the dialog for files, and choose some in it."""
        self.call("Page.setInterceptFileChooserDialog", enabled=True)
        self._chooser.clear()
        self.press(key)
        assert self._chooser.wait(PATIENCE), f"no dialog for files opened at {key}"
        self.call("DOM.setFileInputFiles", files=[str(path) for path in paths], backendNodeId=self._chosen)

    def drop(self, paths: Sequence[Path], x: int = 200, y: int = 500) -> None:
        """Drag files over the page and drop them at a place of it."""
        self.drag(paths, x, y)
        self._drag("drop", paths, x, y)

    def drag(self, paths: Sequence[Path], x: int = 200, y: int = 500) -> None:
        """Drag files over the page and hold them there."""
        for kind in ("dragEnter", "dragOver"):
            self._drag(kind, paths, x, y)

    def _drag(self, kind: str, paths: Sequence[Path], x: int, y: int) -> None:
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def press(self, *names: str) -> None:
        """Press keys, one after the other; Shift+Tab is one."""
        for name in names:
            shift, key = name.startswith("Shift+"), name.removeprefix("Shift+")
            code = KEYS.get(key, ord(key[0].upper()))
            common = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
            common |= {"modifiers": 8 if shift else 0}
            typed = TYPED.get(key, key if len(key) == 1 else "")
            down = {"type": "keyDown", "text": typed} if typed else {"type": "rawKeyDown"}
            self.call("Input.dispatchKeyEvent", **down, **common)
            self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """Type text into what has the focus."""
        self.call("Input.insertText", text=text)

    def reach(self, selector: str, most: int = 60) -> None:
        """Press Tab until an element has the focus."""
        for _ in range(most):
            if self.js(f"document.activeElement.matches({json.dumps(selector)})"):
                return
            self.press("Tab")
        raise AssertionError(f"{selector} is not reached by {most} times Tab")

    def allow(self, *permissions: str) -> None:
        """Grant permissions, videoCapture for one, to every address."""
        self._browser.call("Browser.grantPermissions", permissions=permissions, browserContextId=self._context)

    def downloads(self, folder: Path) -> None:
        """Let downloads of this page go to a folder."""
        self._browser.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), browserContextId=self._context
        )

    def shot(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of what is on the screen, or of the `whole` page."""
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(picture))


def _pipe() -> tuple[int, int]:
    """Both ends of a pipe, with numbers that leave 3 and 4 free."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
