"""`check`: what it finds, in which order it says it, and that it touches nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plusx.doctor.folder import check
from plusx.errors import DataError


def draw(path: Path, number: int, size: tuple[int, int] = (20, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for i in range(3):
        draw(root / "cat" / f"{i}.png", i)
        draw(root / "dog" / f"{i}.png", 100 + i, (30 + 10 * i, 40))
    return root


def copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def test_good_data_has_no_problems(data: Path) -> None:
    done: list[tuple[int, int]] = []
    report = check(data, workers=0, on_progress=lambda *a: done.append(a))
    assert report.exit_code == 0
    assert report.counts == {"all": {"cat": 3, "dog": 3}}
    assert report.sizes is not None
    assert report.sizes.width == (20, 20, 50)
    assert report.sizes.height == (10, 10, 40)
    assert done[-1] == (6, 6)
    assert report.lines()[-1] == "No problems found."


def test_no_photo_is_opened_outside_the_decoding_processes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("a photo was opened in the process that checks")

    monkeypatch.setattr(Image, "open", opened)
    report = check(data, workers=1)
    assert report.sizes is not None
    assert report.sizes.height == (10, 10, 40)
    assert report.exit_code == 0


def test_sizes_are_of_readable_photos_alone(data: Path) -> None:
    draw(data / "cat" / "cut.png", 0, (500, 500))
    (data / "cat" / "cut.png").write_bytes((data / "cat" / "cut.png").read_bytes()[:-30])
    report = check(data, workers=0)
    assert report.sizes is not None
    assert report.sizes.width == (20, 20, 50)
    (data / "cat" / "1.png").write_bytes(b"")
    for path in data.rglob("*.png"):
        path.write_bytes(b"")
    assert check(data, workers=0).sizes is None


def test_photos_of_a_train_folder_are_counted_as_such(tmp_path: Path) -> None:
    for i in range(4):
        draw(tmp_path / "train" / ("cat", "dog")[i % 2] / f"{i}.png", i)
    assert check(tmp_path, workers=0).counts == {"train": {"cat": 2, "dog": 2}}


def test_names_that_are_no_utf8_survive_the_report(data: Path) -> None:
    try:
        (data / os.fsdecode(b"caf\xe9")).mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for name in (b"caf\xe9/\xff.jpg", b"caf\xe9/1.png"):
        (data / os.fsdecode(name)).write_bytes(b"")
    for name in (b"caf\xe9/2.png", b"dog/\xfe.png"):
        draw(data / os.fsdecode(name), 9)
    (data / os.fsdecode(b"caf\xe9/\xfd.txt")).write_bytes(b"")
    report = check(data, workers=1)
    document = json.loads(json.dumps(report.to_json()))
    assert os.fsencode(document["classes"][0]) == b"caf\xe9"
    assert document["counts"]["all"][os.fsdecode(b"caf\xe9")] == 3
    assert {os.fsencode(bad["name"]) for bad in document["unreadable"]} == {b"caf\xe9/\xff.jpg", b"caf\xe9/1.png"}
    assert [os.fsencode(name) for name in document["conflicts"][0]] == [b"caf\xe9/2.png", b"dog/\xfe.png"]
    assert os.fsencode(document["junk"][0]) == b"caf\xe9/\xfd.txt"
    assert b"caf\xe9/\xff.jpg" in os.fsencode("\n".join(report.lines()))


def test_unreadable_photos_are_named_with_their_reasons(data: Path) -> None:
    """D01, D04, D05, D16."""
    (data / "cat" / "text.jpg").write_text("hello, I am a text file\n")
    (data / "dog" / "empty.jpg").write_bytes(b"")
    (data / "dog" / "cut.png").write_bytes((data / "dog" / "0.png").read_bytes()[:60])
    (data / "dog" / "gone.jpg").symlink_to("nowhere.jpg")
    report = check(data, workers=1)
    assert {bad.name: bad.code for bad in report.unreadable} == {
        "cat/text.jpg": "not-an-image",
        "dog/empty.jpg": "empty",
        "dog/cut.png": "truncated",
        "dog/gone.jpg": "unreadable",
    }
    assert report.exit_code == 1
    assert "4 photos cannot be read: mend or remove them, or train with --skip-bad." in report.problems


def test_equal_photos_are_sorted_by_what_they_cost(tmp_path: Path) -> None:
    """D22."""
    for i, name in enumerate(["train/cat", "train/dog", "test/cat", "test/dog"]):
        for k in range(3):
            draw(tmp_path / name / f"{k}.png", 10 * i + k)
    copy(tmp_path / "train/cat/0.png", tmp_path / "train/cat/copy.png")
    copy(tmp_path / "train/cat/1.png", tmp_path / "test/cat/leak.png")
    copy(tmp_path / "train/cat/2.png", tmp_path / "train/dog/torn.png")
    report = check(tmp_path, workers=0)
    assert report.duplicates == (("train/cat/0.png", "train/cat/copy.png"),)
    assert report.across_splits == (("test/cat/leak.png", "train/cat/1.png"),)
    assert report.conflicts == (("train/cat/2.png", "train/dog/torn.png"),)
    assert [problem.split(" of ")[0] for problem in report.problems] == ["1 group", "1 group"]
    text = "\n".join(report.lines())
    assert text.index("across splits: 1") < text.index("different labels: 1") < text.index("within a split: 1")


def test_a_leak_with_another_label_counts_as_both(tmp_path: Path) -> None:
    """D22."""
    for i, name in enumerate(["train/cat", "train/dog", "test/cat"]):
        for k in range(2):
            draw(tmp_path / name / f"{k}.png", 10 * i + k)
    copy(tmp_path / "train/dog/0.png", tmp_path / "test/cat/both.png")
    report = check(tmp_path, workers=0)
    assert report.conflicts == report.across_splits == (("test/cat/both.png", "train/dog/0.png"),)


def test_empty_files_are_no_copies_of_each_other(data: Path) -> None:
    """D04, D22."""
    (data / "cat" / "a.jpg").write_bytes(b"")
    (data / "dog" / "b.jpg").write_bytes(b"")
    report = check(data, workers=0)
    assert report.conflicts == ()
    assert len(report.unreadable) == 2


def test_what_cannot_be_trained_on_is_reported_and_not_raised(data: Path) -> None:
    """D19."""
    (data / "bird").mkdir()
    report = check(data, workers=0)
    assert report.unusable is not None
    assert report.unusable.startswith("The folder bird in")
    assert report.problems[0] == report.unusable
    assert report.exit_code == 1


def test_no_photos_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no photos"):
        check(tmp_path, workers=0)


def test_junk_is_listed_and_is_no_problem(data: Path) -> None:
    """D19."""
    (data / "cat" / "Thumbs.db").write_bytes(b"x")
    report = check([data], workers=0)
    assert report.junk == ("cat/Thumbs.db",)
    assert report.exit_code == 0
    assert "left out (not photos): 1" in report.lines()


def test_the_report_is_json(data: Path) -> None:
    (data / "cat" / "text.jpg").write_text("hello")
    document = json.loads(json.dumps(check(data, workers=0).to_json()))
    assert document["photos"] == 7
    assert document["unreadable"][0]["name"] == "cat/text.jpg"
    assert len(document["problems"]) == 1


def test_nothing_is_written_into_the_data(data: Path) -> None:
    """D23."""
    before = {p: p.stat().st_mtime_ns for p in data.rglob("*")}
    check(data, workers=0)
    assert {p: p.stat().st_mtime_ns for p in data.rglob("*")} == before


def test_a_long_list_is_cut_with_its_count(data: Path) -> None:
    for i in range(30):
        (data / "cat" / f"bad-{i:02}.jpg").write_bytes(b"")
    lines = check(data, workers=0).lines()
    assert "cannot be read: 30" in lines
    assert "  and 10 more (--json lists them all)" in lines
