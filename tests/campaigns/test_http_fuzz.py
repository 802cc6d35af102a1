"""The fuzz campaign of the service in short (row S18), and whether it would notice what it is there to notice."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.service import running

CAMPAIGNS = Path(__file__).parents[2] / "campaigns"
FAULTY = """
from plusx.serve import problems

def unsaid(error, honest=problems.document):
    return honest(error).replace(b'"detail"', b'"details"')

problems.document = unsaid
"""


@pytest.fixture(scope="module")
def http_fuzz() -> Iterator[Any]:
    """The module, importable as it is when it runs as a script."""
    before = list(sys.path)
    sys.path.insert(0, str(CAMPAIGNS))
    try:
        import http_fuzz

        yield http_fuzz
    finally:
        sys.path[:] = before


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.export.test_onnx import exported, model

    return exported(model(), tmp_path_factory.mktemp("fuzzed"))


def test_damaged_requests_get_problems_and_harm_nothing(http_fuzz: Any, onnx: Path) -> None:
    totals = http_fuzz.campaign(onnx, seed=7, first=0, trials=700)
    assert totals.broken == {}
    assert totals.trials == 700
    assert totals.ending == "answers, and ends with 0"
    assert {"200", "400", "404", "408"} < set(totals.statuses)


def test_every_request_is_right_before_it_is_damaged(http_fuzz: Any, onnx: Path) -> None:
    with running(onnx) as service:
        for name, data in http_fuzz.requests().items():
            found = list(http_fuzz._read(service.raw(data)))
            assert found, name
            assert not [problem for _, problem in found if problem], name
            right = name.startswith(("get", "photo", "form", "chunked", "expects", "head"))
            assert found[-1][0] in ((200, 404) if right else range(200, 505)), (name, found)


def test_problems_that_say_little_are_noticed(http_fuzz: Any, onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_fuzz, "running", lambda model, **limits: running(model, first=FAULTY, **limits))
    totals = http_fuzz.campaign(onnx, seed=7, first=0, trials=40)
    assert list(totals.broken) == ["a problem that says little"]


@pytest.mark.parametrize(
    ("replies", "found"),
    [
        (b"nothing of HTTP", [(0, "no HTTP")]),
        (b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", [(500, "status 500")]),
        (b"HTTP/1.1 404 X\r\nContent-Length: 2\r\n\r\nno", [(404, "an error that is no problem document")]),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", [(100, ""), (200, "")]),
        (
            b"HTTP/1.1 404 X\r\nContent-Type: application/problem+json\r\nContent-Length: 2\r\n\r\n{]",
            [(404, "a problem that is no JSON")],
        ),
    ],
)
def test_what_is_no_good_reply_is_told(http_fuzz: Any, replies: bytes, found: list[tuple[int, str]]) -> None:
    assert list(http_fuzz._read(replies)) == found
