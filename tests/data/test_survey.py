"""The survey: one decoding of each photo, remembered by content, and a cache that may be gone or damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plusx.data import survey as module
from plusx.data.entries import cache_entries, cache_folder, clear
from plusx.data.near_duplicates import thumbnails
from plusx.data.source import Photo, content_hashes, scan
from plusx.data.survey import FORMATS, LOOK, Survey, survey


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    rng = np.random.default_rng(0)
    for i in range(8):
        path = tmp_path / "data" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30 + i, 40, 3), dtype=np.uint8)).save(path)
    (tmp_path / "data" / "cat" / "bad.png").write_bytes(b"")
    return list(scan(tmp_path / "data").photos)


def look(photos: list[Photo], workers: int = 0) -> Survey:
    return survey(photos, content_hashes(photos), workers=workers)


def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from plusx.images import pool

    seen: list[str] = []
    real = pool.read
    monkeypatch.setattr(pool, "read", lambda source: (seen.append(source.file), real(source))[1])
    return seen


@pytest.mark.parametrize("workers", [0, 2])
def test_a_row_holds_facts_and_the_thumbnail(photos: list[Photo], workers: int) -> None:
    found = look(photos, workers)
    assert {photos[i].name for i in found.bad} == {"cat/bad.png"}
    assert not found.rows[next(iter(found.bad))]["thumbnail"].any()
    for i in found.good:
        row, data = found.rows[i], Path(photos[i].source.file).read_bytes()
        number = int(Path(photos[i].name).stem)
        assert (row["width"], row["height"], row["frames"], row["orientation"]) == (40, 30 + number, 1, 1)
        assert (FORMATS[row["format"]], row["mode"].decode(), bool(row["alpha"])) == ("PNG", "RGB", False)
        assert np.array_equal(row["thumbnail"], thumbnails(LOOK.from_bytes(data)[None])[0])


def test_a_photo_is_decoded_once_whatever_it_is_called(photos: list[Photo], monkeypatch: pytest.MonkeyPatch) -> None:
    first = look(photos)
    seen = decodings(monkeypatch)
    again = look(photos[::-1])
    assert [Path(file).name for file in seen] == ["bad.png"]  # what cannot be read is tried anew
    assert np.array_equal(again.rows[::-1], first.rows)
    new = Path(photos[0].source.file).with_name("new.png")
    Image.new("RGB", (9, 9), "red").save(new)
    seen.clear()
    look([*photos[3:], Photo("new.png", type(photos[0].source)(str(new)))])
    assert [Path(file).name for file in seen if "bad" not in file] == ["new.png"]


def test_another_decoder_does_not_believe_what_one_saw(photos: list[Photo], monkeypatch: pytest.MonkeyPatch) -> None:
    look(photos)
    seen = decodings(monkeypatch)
    monkeypatch.setattr(type(LOOK), "key", lambda _: "another")
    look(photos)
    assert len(seen) == len(photos)


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_table_is_made_anew(
    photos: list[Photo], damage: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = look(photos)
    path = module._table()
    path.write_bytes(path.read_bytes()[:-5] if damage is None else damage)
    assert np.array_equal(look(photos).rows, whole.rows)
    seen = decodings(monkeypatch)
    look(photos)
    assert len(seen) == 1


def test_a_cache_that_cannot_be_written_costs_time_alone(
    photos: list[Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(look(photos).good) == 8


def test_the_table_is_an_entry_of_the_cache(photos: list[Photo]) -> None:
    look(photos)
    (entry,) = cache_entries()
    assert entry.size == module._table().stat().st_size
    assert clear() == entry.size
    assert not module._table().exists()
    assert not list(cache_folder().glob("tmp-*"))


def test_a_bound_of_nothing_keeps_nothing(photos: list[Photo], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUSX_CACHE_GB", "0")
    look(photos)
    assert cache_entries() == []


def test_progress_counts_photos_that_are_known(photos: list[Photo]) -> None:
    look(photos[:5])
    heard: list[tuple[int, int]] = []
    survey(photos, content_hashes(photos), workers=0, on_progress=lambda *a: heard.append(a))
    assert heard[-1] == (9, 9)
    assert heard[0][0] >= 4
