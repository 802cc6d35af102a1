"""Near-duplicates lie on one side of every split, whatever the seed; and a run keeps the split it has."""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plusx.config import Config
from plusx.data.entries import cache_entries
from plusx.data.split import folds, read_split_csv
from plusx.errors import DataError
from plusx.training.events import Notice, StepDone
from plusx.verbs import decoding, labelled
from plusx.verbs.labelled import LabelledPhotos
from plusx.verbs.session import Session, prepared_device
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.verbs.conftest import QUICK, SETS, fill

PAIRS = 20


@pytest.fixture
def doubled(tmp_path: Path) -> Path:
    """Noise of two kinds: eighty photos, and near-copies of the first ten of each class saved smaller and coarser."""
    folder, random = tmp_path / "doubled", np.random.default_rng(0)
    for label in ("fine", "rough"):
        (folder / label).mkdir(parents=True)
        for number in range(40):
            coarse = random.integers(0, 255, (6, 6, 3) if label == "rough" else (12, 12, 3)).astype(np.uint8)
            photo = Image.fromarray(coarse).resize((90, 90), Image.Resampling.BICUBIC)
            photo.save(folder / label / f"{number}.jpg", quality=92)
            if number < PAIRS // 2:
                photo.resize((70, 70)).save(folder / label / f"{number} again.jpg", quality=60)
    return folder


def config_of(**settings: Any) -> Config:
    return Config(size=48, crop_scale=(0.5, 1.0), workers=0, device="cpu", **settings)


def sides(photos: LabelledPhotos) -> dict[str, set[str]]:
    """The splits in which each photo and its near-copy lie."""
    found: dict[str, set[str]] = defaultdict(set)
    for photo, side in zip(photos.listing.photos, photos.splits, strict=True):
        found[photo.name.replace(" again", "")].add(side)
    return found


def session_of(data: Path, config: Config, events: list[Any] | None = None) -> Session:
    return Session((str(data),), config, prepared_device(config), 0.0, ([] if events is None else events).append)


def split_of(data: Path, config: Config, events: list[Any] | None = None) -> LabelledPhotos:
    session = session_of(data, config, events)
    photos = labelled.look(session.data, config)
    return decoding.kept_together(session, photos, decoding.decode(session, photos, "", None))


def test_near_copies_never_lie_on_two_sides_and_without_grouping_they_do(doubled: Path) -> None:
    apart = 0
    for seed in range(8):
        config = config_of(seed=seed, split="60/20/20")
        photos = split_of(doubled, config)
        assert all(len(where) == 1 for where in sides(photos).values())
        assert set(photos.splits) == {"train", "val", "test"}
        apart += sum(len(where) > 1 for where in sides(labelled.look([str(doubled)], config)).values())
    assert apart > 30, "the control: hashes alone part them"
    assert len(cache_entries()) == 1, "all seeds and splits share what was decoded"


def test_near_copies_are_told_and_lie_in_one_half_of_validation_and_in_one_fold(doubled: Path) -> None:
    events: list[Any] = []
    photos = split_of(doubled, config_of(split="20/70/10"), events)
    assert [event.text for event in events if isinstance(event, Notice)] == [
        f"Near-duplicates: {2 * PAIRS} photos in {PAIRS} groups, each on one side of the split."
    ]
    rows = photos.rows("val")
    halves: dict[str, set[bool]] = defaultdict(set)
    for row, chooses in zip(rows, photos.chooses(rows, 0), strict=True):
        halves[photos.listing.photos[row].name.replace(" again", "")].add(bool(chooses))
    assert len(rows) > len(halves)
    assert all(len(half) == 1 for half in halves.values())
    dealt = folds(photos.labels(photos.every).tolist(), photos.keys, 5, seed=0)
    where: dict[str, set[int]] = defaultdict(set)
    for photo, fold in zip(photos.listing.photos, dealt, strict=True):
        where[photo.name.replace(" again", "")].add(int(fold))
    assert all(len(numbers) == 1 for numbers in where.values())
    by_class = [np.bincount(dealt[photos.labels(photos.every) == label], minlength=5) for label in (0, 1)]
    assert min(map(min, by_class)) >= 8


def test_streamed_photos_are_grouped_like_cached_ones(doubled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = split_of(doubled, config_of())
    monkeypatch.setattr("plusx.data.cache._no_room", lambda *_: "The cache has no room, so photos are streamed.")
    monkeypatch.setenv("XDG_CACHE_HOME", str(doubled.parent / "empty"))
    streamed = split_of(doubled, config_of())
    assert not cache_entries()
    assert (streamed.keys, streamed.splits) == (cached.keys, cached.splits)


def test_photos_that_cannot_be_read_are_near_nothing(doubled: Path) -> None:
    for number in range(3):
        (doubled / "fine" / f"bad{number}.jpg").write_text(f"no photo {number}")
    photos = split_of(doubled, config_of(skip_bad=True))
    keys = [key for photo, key in zip(photos.listing.photos, photos.keys, strict=True) if "bad" in photo.name]
    assert len(set(keys)) == 3


def test_the_splits_that_data_brings_stay_and_what_they_part_is_told(doubled: Path, tmp_path: Path) -> None:
    for label in ("fine", "rough"):
        for name in ("train", "test"):
            (tmp_path / "own" / name / label).mkdir(parents=True)
        for path in (doubled / label).iterdir():
            path.rename(tmp_path / "own" / ("test" if "again" in path.name else "train") / label / path.name)
    events: list[Any] = []
    photos = split_of(tmp_path / "own", config_of(validation=False), events)
    assert all(side == photo.split for photo, side in zip(photos.listing.photos, photos.splits, strict=True))
    assert events[-1].text == (
        f"Near-duplicates: {2 * PAIRS} photos in {PAIRS} groups, each on one side of the split; "
        f"DATA itself parts {PAIRS} of them, and `plusx check` names these."
    )


def test_validation_is_decoded_anew_only_where_it_is_tested_at_another_size(doubled: Path) -> None:
    for test_size, sizes in ((None, {64}), (60, {64, 80})):
        config = config_of(test_size=test_size)
        session = session_of(doubled, config)
        photos = labelled.look(session.data, config)
        pixels = decoding.decode(session, photos, "", None)
        decoded = decoding.parted(session, photos, pixels)
        assert decoded.validation is not None
        assert {decoded.training.store.size, decoded.validation.store.size} == sizes
        assert decoded.validation.rows.tolist() == photos.rows("val").tolist()
        read = decoded.validation.store.read(decoded.validation.store_rows)
        assert len(read) == len(photos.rows("val"))
        assert read.any(axis=(1, 2, 3)).all()


def cut_short(event: Any) -> None:
    if isinstance(event, StepDone) and event.step == 5:
        raise MemoryError("power cut")


def test_a_resumed_run_reads_its_split_and_does_not_group_again(
    doubled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = QUICK | {"split": "40/50/10"}
    whole = train([str(doubled)], Wish(flags, SETS, out=tmp_path / "whole"))
    with pytest.raises(MemoryError):
        train([str(doubled)], Wish(flags, SETS, out=tmp_path / "cut"), on_event=cut_short)
    rows = {row.path: row for row in read_split_csv(tmp_path / "cut" / "split.csv")}
    assert sum(bool(row.group) for row in rows.values()) == PAIRS, "of every pair, one has the other's hash as its key"
    monkeypatch.setattr("plusx.verbs.labelled.near_groups", lambda thumbs: np.zeros(len(thumbs), np.int64))
    resumed = train([], Wish(out=tmp_path / "cut", resume=True))
    digests = [hashlib.sha256(done.model.read_bytes()).hexdigest() for done in (whole, resumed)]
    assert digests[0] == digests[1]
    histories = [(done.run / "history.jsonl").read_text() for done in (whole, resumed)]
    assert histories[0] == histories[1], "the half of validation that chooses is the same"


def test_a_run_from_before_near_duplicates_were_known_resumes(doubled: Path, tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        train([str(doubled)], Wish(QUICK, SETS, out=tmp_path / "cut"), on_event=cut_short)
    path = tmp_path / "cut" / "split.csv"
    lines = list(csv.reader(path.read_text().splitlines()))
    path.write_text("\n".join(",".join(line[:4]) for line in lines) + "\n")
    trained = train([], Wish(out=tmp_path / "cut", resume=True))
    assert trained.metrics["steps"] > 5


def test_other_photos_than_recorded_stop_a_resume(doubled: Path, tmp_path: Path) -> None:
    wish = Wish(QUICK, SETS, out=tmp_path / "cut")
    with pytest.raises(MemoryError):
        train([str(doubled)], wish, on_event=cut_short)
    fill(tmp_path / "new", {"fine": 1, "rough": 0}, first=900)
    (tmp_path / "new" / "fine" / "900.jpg").rename(doubled / "fine" / "900.jpg")
    with pytest.raises(DataError, match=r"Photos added: 1 \(fine/900\.jpg\)\. Bring the old photos back"):
        train([], replace(wish, flags={}, sets=(), resume=True))
