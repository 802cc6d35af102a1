"""What tests of the page do again and again."""

from __future__ import annotations

import base64
import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.serve.browser import Page

RED, BLUE, GREY, GREEN = (200, 40, 40), (40, 60, 210), (120, 118, 122), (30, 190, 60)
SETTLED = """document.querySelectorAll('.photo').length == COUNT && [...document.querySelectorAll('.photo')]
  .every(e => !['waiting', 'looking'].includes(e.dataset.state))"""
EXPLAINED = "document.querySelector('.open .words').innerText.includes('half')"
WEIGH = (
    "most => { const e = document.querySelector('.open input'); e.value = most; e.dispatchEvent(new Event('input')) }"
)

Visit = Callable[..., AbstractContextManager[Page]]


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


def worded(said: Any) -> str:
    """An answer of the service as the page words it."""
    return {"unsure": "Unsure", "none of these": "None of these"}.get(said["answer"], said["answer"])


def pixels(page: Page) -> Any:
    """The large picture of the open photo, [h, w, 3]."""
    picture = page.js("document.querySelector('.large').toDataURL('image/png')").partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"), dtype=float)


def arrived(path: Path) -> bytes:
    """A download, as soon as it is whole."""
    end = time.monotonic() + 60
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < end, f"{path.name} did not come"
        time.sleep(0.02)
    return path.read_bytes()


def beyond(page: Page) -> list[str]:
    """What sticks out to the right of the screen."""
    return list(
        page.js("""[...document.body.querySelectorAll('*:not(.unseen)')].filter(e =>
          e.getBoundingClientRect().right > document.documentElement.clientWidth + 1 && !e.closest('svg, #over'))
          .map(e => e.tagName + '.' + e.className)""")
    )
