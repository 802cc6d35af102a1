"""What each protection of a decoding process is for: with it the promise holds, without it the same test breaks. The
part of rows T31 and D25 of the fault matrix that is about decoding, and D05: formats are read off one list alone.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plusx.errors import RunError
from plusx.images import decode as decoding
from plusx.images.decode import BadPhoto, Undecodable, decode
from plusx.images.pool import DecodePool, Source
from plusx.images.preprocess import Preprocess
from plusx.images.process import DecodingProcess, Limits
from plusx.images.sniff import IMAGES, sniff
from tests.images.bombs import picture, saved
from tests.images.hostile import HOSTILE, UNLIMITED, UNTIMED

RULE = Preprocess(24, 16)


def sources(folder: Path, bad: bytes) -> list[Source]:
    """Five photos, the third of which is `bad`."""
    for i in range(5):
        (folder / f"{i}.png").write_bytes(bad if i == 2 else saved(picture(30 + i, 30), "PNG"))
    return [Source(str(folder / f"{i}.png")) for i in range(5)]


def codes(pool: DecodePool, work: list[Source]) -> dict[int, str]:
    return {i: getattr(found, "code", "pixels") for i, found in pool.map(work)}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
@pytest.mark.parametrize(("command", "third"), [(HOSTILE, "too-large"), (UNLIMITED, "not-an-image")])
def test_the_limit_of_memory_is_what_refuses_a_photo_that_eats_it(
    command: tuple[str, ...], third: str, tmp_path: Path
) -> None:
    """5 GB are asked for: refused within the limit of 4 GiB; without it the photo is judged by its content."""
    with DecodePool(RULE, 1, command=command) as pool:
        found = codes(pool, sources(tmp_path, b"EAT and more words"))
    assert found == {0: "pixels", 1: "pixels", 2: third, 3: "pixels", 4: "pixels"}


@contextlib.contextmanager
def in_background(pool: DecodePool, work: list[Source]) -> Iterator[dict[int, str]]:
    """What has been answered so far; at the end, processes are killed and the pool comes to its end."""
    found: dict[int, str] = {}

    def run() -> None:
        with contextlib.suppress(RunError):  # its processes are killed in the end, again and again
            found.update((i, getattr(answer, "code", "pixels")) for i, answer in pool.map(work))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        while thread.is_alive():
            for member in list(pool._crew):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member._process.pid, signal.SIGKILL)
            thread.join(0.1)
        pool.close()


def test_the_limit_of_time_is_what_stops_a_photo_that_spins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One second: over in two; without anybody who looks at the clock, not over in three."""
    work = sources(tmp_path, b"SPIN")
    began = time.monotonic()
    with DecodePool(RULE, 1, seconds=1.0, command=HOSTILE) as pool:
        assert codes(pool, work)[2] == "timeout"
    assert time.monotonic() - began < 15
    monkeypatch.setattr(DecodingProcess, "is_late", lambda *_: False)
    with in_background(DecodePool(RULE, 1, seconds=1.0, command=UNTIMED), work) as found:
        time.sleep(4)
        assert 4 not in found


def test_a_worker_that_its_parent_forgot_ends_by_itself(tmp_path: Path) -> None:
    """The alarm is the worker's own: it is set for every photo, some seconds after the parent would have stopped it."""
    process = DecodingProcess((*HOSTILE[:3], HOSTILE[3].replace("worker.main()", "worker._GRACE = 0.5\nworker.main()"),
                               HOSTILE[-1]), RULE, Limits(seconds=0.5))  # fmt: skip
    try:
        process.send_bytes(0, b"SPIN", facts=False)
        deadline = time.monotonic() + 20
        while not process.gone() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process._process.returncode == -signal.SIGALRM
    finally:
        process.end()


def others() -> dict[str, bytes]:
    """Files of formats that Pillow reads and plusx does not, as many as can be written here."""
    Image.init()
    found = {}
    image = picture(64, 64)
    for format in sorted(set(Image.SAVE) & set(Image.OPEN) - {"EPS", "PDF", "MPO"}):
        for mode in ("RGB", "L", "1", "F"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, DeprecationWarning):
                data = saved(image.convert(mode), format)
                if sniff(data) not in IMAGES and opened(data) is not None:
                    found[format] = data
                    break
    return found


def opened(data: bytes) -> Image.Image | None:
    """The picture as Pillow reads it when it may read everything; None where it cannot."""
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Exception:
        return None
    return image


def test_formats_off_the_list_are_refused_whatever_pillow_can_do() -> None:
    """D05: Pillow 13 reads over forty formats, and the list is the defence against faults in most of them. The control
    is that Pillow does read each of these.
    """
    found = others()
    assert len(found) >= 10, sorted(found)
    for format, data in found.items():
        with pytest.raises(Undecodable) as caught:
            decode(data)
        assert caught.value.code in {"unreadable", "not-an-image"}, format


def test_a_file_is_opened_as_what_its_first_bytes_say_and_as_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """D05: a PNG's first bytes before a file of another format are a broken PNG; where nobody said as what to open it,
    the same bytes would be tried as everything.
    """
    asked: list[Any] = []
    real = Image.open

    def spying(file: Any, mode: str = "r", formats: Any = None) -> Any:
        asked.append(formats)
        return real(file, mode, formats)

    monkeypatch.setattr(Image, "open", spying)
    for format in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"):
        decode(saved(picture(), format))
    assert asked == [["JPEG"], ["PNG"], ["WEBP"], ["BMP"], ["GIF"], ["TIFF"]]
    with pytest.raises(Undecodable):
        decode(b"\x89PNG\r\n\x1a\n" + saved(picture(), "PPM"))


def test_without_the_list_another_format_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """D05, the control: the same file passes where the list holds it."""
    icon = others()["ICO"]
    monkeypatch.setattr(decoding, "IMAGES", IMAGES | {"an icon file"})
    monkeypatch.setattr(decoding, "_registered_format", lambda _: "ICO")
    assert np.asarray(decode(icon)).shape == (64, 64, 3)


def test_a_worker_that_dies_costs_one_photo_and_the_next_ones_are_read(tmp_path: Path) -> None:
    """T31: as a segfault in a library ends it."""
    with DecodePool(RULE, 1, command=HOSTILE) as pool:
        found = dict(pool.map(sources(tmp_path, b"SEGV")))
    assert isinstance(found[2], BadPhoto)
    assert found[2].code == "worker-died"
    assert all(isinstance(found[i], np.ndarray) for i in (0, 1, 3, 4))
