"""The page in a real browser; whatever a test does, it does not complain and asks nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.serve.browser import ABSENT, CHROMIUM, Browser, Page
from tests.serve.page.steps import Visit
from tests.serve.service import running as service


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests of the page."""
    if CHROMIUM is None:
        pytest.skip(ABSENT)
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="session")
def address(onnx: Path) -> Iterator[str]:
    """The service itself. What it says of a photo is asked of it; tests that need certain answers take a stand-in."""
    with service(onnx) as found:
        yield found.url


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
