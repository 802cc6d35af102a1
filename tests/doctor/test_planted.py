"""One of each fault in a folder of drawn pictures: each is found, none is invented, and nothing is touched."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plusx.data.drawn import draw, write_set
from plusx.doctor.folder import Findings, check, examine
from plusx.doctor.quarantine import quarantine
from plusx.doctor.report import KINDS


def tree(root: Path) -> dict[str, tuple[str, int]]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(p.relative_to(root)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("doctor") / "pets"
    write_set(root, {"train": 60, "val": 5, "test": 10}, seed=3)
    return root


def saved_anew(source: Path, target: Path) -> None:
    with Image.open(source) as picture:
        picture.resize((72, 72), Image.Resampling.LANCZOS).save(target, quality=60)


def copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def plant(root: Path) -> None:
    """One of each, named by its fault; pictures of their own have numbers that the set does not use."""
    cat, dog, test = root / "train" / "cat", root / "train" / "dog", root / "test" / "cat"
    copy(cat / "0000.jpg", test / "leak.jpg")
    saved_anew(cat / "0001.jpg", test / "near-leak.jpg")
    copy(cat / "0002.jpg", dog / "torn.jpg")
    saved_anew(cat / "0003.jpg", dog / "near-torn.jpg")
    copy(dog / "0004.jpg", dog / "twice.jpg")
    saved_anew(dog / "0005.jpg", dog / "near-twice.jpg")
    (cat / "cut.jpg").write_bytes((cat / "0006.jpg").read_bytes()[:-300])
    (cat / "empty.jpg").write_bytes(b"")
    Image.new("RGB", (96, 96), (7, 90, 200)).save(cat / "blank.jpg")
    draw(9, 900, 0).resize((20, 20)).save(cat / "tiny.png")
    draw(9, 901, 0).resize((400, 96)).save(cat / "long.png")
    other = [draw(9, 902, 0), draw(9, 903, 0)]
    other[0].save(cat / "animated.gif", save_all=True, append_images=other[1:])
    with Image.open(dog / "0007.jpg") as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(dog / "mirrored.jpg", quality=90)
    draw(9, 904, 1).save(dog / "misnamed.png", "JPEG")
    draw(9, 905, 1).convert("CMYK").save(dog / "print.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(9, 906, 1).save(dog / "turned.jpg", exif=exif)
    (dog / "Thumbs.db").write_bytes(b"x")


@pytest.fixture(scope="module")
def planted(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Findings]:
    root = tmp_path_factory.mktemp("planted") / "pets"
    write_set(root, {"train": 60, "val": 5, "test": 10}, seed=3)
    plant(root)
    before = tree(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root.parent / "cache"))
        yield examine(root, workers=2)
    assert tree(root) == before, "check touched DATA"


def test_each_planted_fault_is_found_and_no_other(planted: Findings) -> None:
    """D06, D09, D10, D11, D22: noted, each by its own finding."""
    report = planted.report
    assert [bad.name for bad in report.unreadable] == ["train/cat/cut.jpg", "train/cat/empty.jpg"]
    assert report.across_splits == (("test/cat/leak.jpg", "train/cat/0000.jpg"),)
    assert report.near_across_splits == (("test/cat/near-leak.jpg", "train/cat/0001.jpg"),)
    assert report.conflicts == (("train/cat/0002.jpg", "train/dog/torn.jpg"),)
    assert report.near_conflicts == (("train/cat/0003.jpg", "train/dog/near-torn.jpg"),)
    assert report.duplicates == (("train/dog/0004.jpg", "train/dog/twice.jpg"),)
    assert report.near_duplicates == (("train/dog/0005.jpg", "train/dog/near-twice.jpg"),)
    assert report.mirrored == (("train/dog/0007.jpg", "train/dog/mirrored.jpg"),)
    assert report.junk == ("train/dog/Thumbs.db",)
    notes = {field: [(n.name, n.note) for n in getattr(report, field)] for field in ("blank", "tiny", "stretched")}
    assert notes == {
        "blank": [("train/cat/blank.jpg", "all one colour")],
        "tiny": [("train/cat/tiny.png", "20 x 20 pixels")],
        "stretched": [("train/cat/long.png", "400 x 96 pixels")],
    }
    assert [(n.name, n.note) for n in report.turned] == [("train/dog/turned.jpg", "EXIF orientation 6")]
    assert [(n.name, n.note) for n in report.animated] == [("train/cat/animated.gif", "2 frames")]
    assert [(n.name, n.note) for n in report.misnamed] == [("train/dog/misnamed.png", "is JPEG")]
    odd = {n.name: n.note for n in report.odd_modes}
    assert odd.pop("train/dog/print.jpg") == "colours of print (CMYK)"
    assert set(odd) <= {"train/cat/animated.gif"}  # a palette, as GIFs have
    assert report.look_alike == ()


def test_problems_come_in_the_order_of_what_they_cost(planted: Findings) -> None:
    assert planted.report.problems == (
        "2 photos cannot be read: mend or remove them, or train with --skip-bad.",
        "1 group of equal photos lie on two sides of the split: remove them from one, else the test is too kind.",
        "1 group of photos of one picture lie on two sides of the split: remove them from one, else the test is too "
        "kind.",
        "1 group of equal photos have different labels: keep the right one of each.",
        "1 group of photos of one picture have different labels: keep the right one of each.",
        "1 blank photo to remove: nothing can be learned from one colour.",
    )
    assert planted.report.exit_code == 1
    text = "\n".join(planted.report.lines())
    titles = [kind.title for kind in KINDS if getattr(planted.report, kind.field)]
    places = [text.index(f"{title}: ") for title in titles]
    assert places == sorted(places)


def test_the_quarantine_says_what_to_do_with_each_photo(planted: Findings) -> None:
    rows = list(quarantine(planted))
    assert all(row.suggested == row.decision for row in rows)
    decisions = {row.path: row.decision for row in rows}
    assert decisions == {
        "test/cat/leak.jpg": "keep",
        "test/cat/near-leak.jpg": "keep",
        "train/cat/0000.jpg": "drop",
        "train/cat/0001.jpg": "drop",
        "train/cat/0002.jpg": "",
        "train/cat/0003.jpg": "",
        "train/cat/blank.jpg": "drop",
        "train/cat/cut.jpg": "drop",
        "train/cat/empty.jpg": "drop",
        "train/dog/0004.jpg": "keep",
        "train/dog/0005.jpg": "keep",
        "train/dog/near-torn.jpg": "",
        "train/dog/near-twice.jpg": "drop",  # the smaller one
        "train/dog/torn.jpg": "",
        "train/dog/twice.jpg": "drop",
    }
    (leak,) = (row for row in rows if row.path == "train/cat/0000.jpg")
    data = Path(planted.report.data, "train/cat/0000.jpg").read_bytes()
    told = (hashlib.sha256(data).hexdigest(), "cat", "equal photos across splits")
    assert (leak.sha256, leak.label, leak.reason) == told


def test_a_clean_folder_has_no_findings(clean: Path) -> None:
    report = check(clean, workers=2)
    assert not [kind.field for kind in KINDS if getattr(report, kind.field)]
    assert report.problems == report.advice == ()


def test_uneven_and_small_classes_get_advice_and_are_no_fault(tmp_path: Path) -> None:
    for label, count in (("cat", 12), ("dog", 4)):
        (tmp_path / label).mkdir()
        for i in range(count):
            draw(4, i, label == "dog", 48).save(tmp_path / label / f"{i}.png")
    report = check(tmp_path, workers=0)
    assert report.exit_code == 0
    assert report.advice == (
        "cat has 3.0 times as many photos as dog: train with --set sampling=balanced.",
        "cat, dog: fewer than 50 photos; start from weights (--weights), or add photos.",
    )
    assert json.loads(json.dumps(report.to_json()))["advice"] == list(report.advice)


def test_two_blank_photos_of_different_files_are_no_copies(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for i in range(2):
            draw(4, i, label == "dog", 48).save(tmp_path / label / f"{i}.png")
        Image.new("RGB", (50, 50 + len(list(tmp_path.iterdir()))), "white").save(tmp_path / label / "white.png")
    report = check(tmp_path, workers=0)
    assert len(report.blank) == 2
    assert report.conflicts == report.near_conflicts == report.near_duplicates == ()


def test_a_white_page_with_a_small_drawing_is_not_blank(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for i in range(2):
            draw(4, i, label == "dog", 48).save(tmp_path / label / f"{i}.png")
    page = np.full((600, 600, 3), 255, np.uint8)
    page[500:512, 20:32] = 0
    Image.fromarray(page).save(tmp_path / "cat" / "page.png")
    assert check(tmp_path, workers=0).blank == ()


def test_a_tar_is_checked_as_its_folder_is(planted: Findings, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        archive.add(planted.report.data, ".")
    report = check(tmp_path / "pets.tar", workers=2)
    assert report.near_conflicts == (("pets.tar!/train/cat/0003.jpg", "pets.tar!/train/dog/near-torn.jpg"),)
    counts = {kind.field: len(getattr(report, kind.field)) for kind in KINDS}
    assert counts == {kind.field: len(getattr(planted.report, kind.field)) for kind in KINDS}


def test_real_photos_at_full_size_have_no_findings(photos: Path) -> None:
    report = check(photos / "photos-full-size.tar", workers=2)
    assert not [kind.field for kind in KINDS if getattr(report, kind.field)]


def test_of_a_picture_in_three_splits_only_the_last_one_stays(tmp_path: Path) -> None:
    data = tmp_path / "pets"
    write_set(data, {"train": 3, "val": 3, "test": 3}, seed=3)
    leaking = min((data / "test" / "cat").iterdir())
    for split in ("train", "val"):
        (data / split / "cat" / "leak.jpg").write_bytes(leaking.read_bytes())
    decided = {row.path: row.decision for row in quarantine(examine(data, workers=0))}
    assert decided == {"train/cat/leak.jpg": "drop", "val/cat/leak.jpg": "drop", f"test/cat/{leaking.name}": "keep"}
