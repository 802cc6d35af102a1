"""The photos beside the curves: which, from where, and what is said where they are gone."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from plusx.data.split import Row, write_split_csv
from plusx.run_folder import RunFolder
from plusx.serve.album import SHOWN, Album, Shown
from plusx.serve.watched import WatchedRun
from tests.serve.growing import Growing, answers_of, photos_of, tree


@pytest.fixture
def run(tmp_path: Path) -> Growing:
    """A run that has logged a step, on photos that are there."""
    run = Growing(tmp_path / "run")
    run.step(10)
    return run


@pytest.fixture
def rows(run: Growing, tmp_path: Path) -> list[Row]:
    """Its photos."""
    return photos_of(run, tmp_path / "data")


@pytest.fixture
def album(run: Growing) -> Iterator[Album]:
    """Its album."""
    with Album(RunFolder(run.path)) as album:
        yield album


def ready(album: Album, run: Growing, key: str) -> Shown:
    """The photos once their key begins with `key`."""
    view, end = WatchedRun(RunFolder(run.path)), time.monotonic() + 60
    while not (shown := album.of(view.look())).key.startswith(key) or not shown.key:
        assert time.monotonic() < end, shown
        time.sleep(0.02)
    return shown


def test_while_a_run_trains_some_of_its_photos_are_shown_at_the_size_it_trains_at(
    run: Growing, rows: list[Row], album: Album
) -> None:
    shown = ready(album, run, "training-32")
    assert shown.pixels == 32
    assert shown.told.startswith("At 32 × 32 pixels, a size at which this run trains.")
    trained = {row.path for row in rows if row.split == "train"}
    assert {photo.name for photo in shown.photos} == trained
    assert [photo.label for photo in shown.photos[:4]] == ["cat", "dog", "cat", "dog"]
    for photo, data in zip(shown.photos, shown.pictures, strict=True):
        with Image.open(io.BytesIO(data)) as picture:
            assert (picture.format, picture.size) == ("PNG", (32, 32))
            number = int(Path(photo.name).stem)
            assert picture.convert("RGB").getpixel((16, 16)) == (40 * number, 90 if photo.label == "cat" else 200, 120)
    run.step(600)
    larger = ready(album, run, "training-48")
    assert [photo.name for photo in larger.photos] == [photo.name for photo in shown.photos]


def test_until_photos_are_ready_a_sentence_says_that_they_are_looked_for(
    run: Growing, rows: list[Row], album: Album
) -> None:
    view = WatchedRun(RunFolder(run.path))
    assert album.of(view.look()).told == "Photos are being looked for."


def test_without_a_plan_no_photos_are_looked_for(run: Growing, album: Album) -> None:
    (run.path / "plan.json").unlink()
    assert album.of(WatchedRun(RunFolder(run.path)).look()) == Shown()


def test_photos_that_come_back_are_shown_again(
    run: Growing, rows: list[Row], album: Album, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plusx.serve.album.AGAIN", 0.0)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    ready(album, run, "gone")
    (tmp_path / "elsewhere").rename(tmp_path / "data")
    assert len(ready(album, run, "training-32").photos) == 8


def test_once_there_are_answers_the_surest_mistakes_are_shown(run: Growing, rows: list[Row], album: Album) -> None:
    answers_of(run, rows, wrong=2)
    shown = ready(album, run, "answers")
    assert shown.told == "2 of 4 validation photos (50.00 %) are answered wrong; these are the surest of them."
    assert [(p.name, p.label, p.answer) for p in shown.photos] == [
        ("cat/0.png", "cat", "dog"),
        ("cat/1.png", "cat", "dog"),
    ]
    assert shown.photos[0].probability == pytest.approx(0.9)
    with Image.open(io.BytesIO(shown.pictures[0])) as picture:
        assert (picture.format, picture.size) == ("JPEG", (192, 192))


def test_without_mistakes_the_least_certain_answers_are_shown(run: Growing, rows: list[Row], album: Album) -> None:
    answers_of(run, rows, wrong=0)
    shown = ready(album, run, "answers")
    assert shown.told == "All 4 validation photos are answered right; these are the least certain answers."
    assert [photo.name for photo in shown.photos] == ["dog/1.png", "dog/0.png", "cat/1.png", "cat/0.png"]


def test_photos_that_have_moved_leave_a_sentence(run: Growing, rows: list[Row], album: Album, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "data")
    shown = ready(album, run, "gone")
    assert shown.photos == ()
    assert shown.told == "The photos have moved or cannot be listed any more, so none are shown."


def test_a_photo_that_was_edited_or_is_damaged_is_not_shown(
    run: Growing, rows: list[Row], album: Album, tmp_path: Path
) -> None:
    answers_of(run, rows, wrong=4)
    with (tmp_path / "data" / "cat" / "0.png").open("ab") as file:
        file.write(b"more")
    shown = ready(album, run, "answers")
    assert [photo.name for photo in shown.photos] == ["cat/1.png", "dog/0.png", "dog/1.png"]
    assert shown.told.endswith("1 photo has moved or changed since the run began, and cannot be shown.")


def test_damaged_answers_or_a_damaged_split_leave_a_sentence(run: Growing, rows: list[Row], album: Album) -> None:
    (run.path / "split.csv").write_text("nonsense")
    assert ready(album, run, "gone").photos == ()
    (run.path / "validation.csv").write_text("path,sha256,label,answer,p:cat,novelty\na,b,c\n")
    assert ready(album, run, "gone").photos == ()


def test_of_many_classes_as_many_are_shown_as_there_is_room_for(run: Growing, album: Album, tmp_path: Path) -> None:
    rows = [row for row in photos_of(run, tmp_path / "data", 2) if row.split == "train"]
    more = [Row(f"class{i}/{i}.png", f"class{i}", "train", f"{i:064x}") for i in range(50)]
    write_split_csv(run.path / "split.csv", [*rows, *more])
    shown = ready(album, run, "training-32")
    assert len(shown.photos) <= SHOWN
    assert "photos have moved or changed" in shown.told


def test_looking_for_photos_writes_nothing_into_the_run_or_beside_the_photos(
    run: Growing, rows: list[Row], album: Album, tmp_path: Path
) -> None:
    answers_of(run, rows, wrong=1)
    before = tree(run.path), tree(tmp_path / "data")
    ready(album, run, "answers")
    assert (tree(run.path), tree(tmp_path / "data")) == before
