"""The split: stratified, keyed by content, copies on one side, folders honoured."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from plusx.data.source import Listing, Photo
from plusx.data.split import (
    Row,
    assign,
    default_fractions,
    fingerprint,
    halves,
    parse_fractions,
    read_split_csv,
    write_split_csv,
)
from plusx.errors import DataError, UsageError
from plusx.images.pool import Source


def sha(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def listing_of(labels: list[int], splits: list[str | None] | None = None) -> Listing:
    given = splits or [None] * len(labels)
    photos = tuple(
        Photo(f"{label}/{i}.jpg", Source(""), label, s) for i, (label, s) in enumerate(zip(labels, given, strict=True))
    )
    return Listing("DATA", tuple("abc"[: max(labels) + 1]), photos, (), bool({"val", "test"} & set(given)))


def test_every_class_is_cut_at_the_fractions() -> None:
    labels = [0] * 100 + [1] * 200
    splits = assign(listing_of(labels), [sha(i) for i in range(300)], None, seed=0)
    assert Counter(zip(labels, splits, strict=True)) == {
        (0, "train"): 80,
        (0, "val"): 10,
        (0, "test"): 10,
        (1, "train"): 160,
        (1, "val"): 20,
        (1, "test"): 20,
    }


def test_the_split_depends_on_bytes_and_seed_and_not_on_the_order() -> None:
    labels = [0, 1] * 50
    hashes = [sha(i) for i in range(60)] + [sha(i) for i in range(1, 41)]  # forty with both labels
    first = dict(zip(hashes, assign(listing_of(labels), hashes, None, 0), strict=True))
    turned = dict(zip(hashes[::-1], assign(listing_of(labels[::-1]), hashes[::-1], None, 0), strict=True))
    assert first == turned
    assert first != dict(zip(hashes, assign(listing_of(labels), hashes, None, 1), strict=True))


def test_copies_lie_on_one_side_even_with_two_labels() -> None:
    labels = [0] * 60 + [1] * 60
    hashes = [sha(i % 30) for i in range(120)]
    splits = assign(listing_of(labels), hashes, None, 3)
    assert len(set(zip(hashes, splits, strict=True))) == 30
    assert set(splits) == {"train", "val", "test"}


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.1), (0.01, 0.98, 0.01), (0.01, 0.01, 0.98), (0.5, 0.0, 0.5)])
@pytest.mark.parametrize("count", [3, 4, 7])
def test_three_distinct_photos_suffice_for_one_in_each_split(fractions: tuple[float, float, float], count: int) -> None:
    splits = assign(listing_of([0] * count + [1] * count), [sha(i) for i in range(2 * count)], fractions, 0)
    wanted = {name for name, share in zip(("train", "val", "test"), fractions, strict=True) if share}
    assert set(splits[:count]) == set(splits[count:]) == wanted


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_still_train(count: int) -> None:
    for fractions in ((0.8, 0.1, 0.1), (0.02, 0.49, 0.49)):
        assert "train" in assign(listing_of([0] * count), [sha(i) for i in range(count)], fractions, 0)


def test_new_photos_move_few_others() -> None:
    hashes = [sha(i) for i in range(1100)]
    before = assign(listing_of([0] * 1000), hashes[:1000], (0.8, 0.1, 0.1), 0)
    after = assign(listing_of([0] * 1100), hashes, (0.8, 0.1, 0.1), 0)
    assert sum(a != b for a, b in zip(before, after[:1000], strict=True)) <= 30


def test_folders_that_are_there_are_kept() -> None:
    given: list[str | None] = ["train"] * 20 + ["val"] * 4 + ["test"] * 6
    assert assign(listing_of([0, 1] * 15, given), [sha(i) for i in range(30)], None, 0) == tuple(given)


def test_a_missing_val_is_carved_from_train_only() -> None:
    given: list[str | None] = ["train"] * 40 + ["test"] * 10
    hashes = [sha(i) for i in range(50)]
    splits = assign(listing_of([0, 1] * 25, given), hashes, None, 0)
    assert Counter(splits) == {"train": 36, "val": 4, "test": 10}
    assert splits[40:] == ("test",) * 10
    assert assign(listing_of([0, 1] * 25, given), hashes, None, 0, carve=False) == tuple(given)


def test_a_missing_test_is_carved_from_train_only() -> None:
    given: list[str | None] = ["train"] * 40 + ["val"] * 10
    splits = assign(listing_of([0, 1] * 25, given), [sha(i) for i in range(50)], None, 0)
    assert Counter(splits) == {"train": 36, "val": 10, "test": 4}


def test_val_and_test_are_carved_from_a_train_folder_alone() -> None:
    hashes = [sha(i) for i in range(100)]
    splits = assign(listing_of([0] * 100, ["train"] * 100), hashes, None, 0)
    assert splits == assign(listing_of([0] * 100), hashes, None, 0)
    assert Counter(splits) == {"train": 80, "val": 10, "test": 10}


def test_without_carving_nothing_leaves_a_train_folder() -> None:
    splits = assign(listing_of([0] * 100, ["train"] * 100), [sha(i) for i in range(100)], None, 0, carve=False)
    assert Counter(splits) == {"train": 100}


@pytest.mark.parametrize(("carve", "counts"), [(True, (50, 25, 25)), (False, (75, 0, 25))])
def test_fractions_that_are_asked_for_apply_to_a_train_folder_alone(carve: bool, counts: tuple[int, int, int]) -> None:
    listing, hashes = listing_of([0] * 100, ["train"] * 100), [sha(i) for i in range(100)]
    splits = assign(listing, hashes, (0.5, 0.25, 0.25), 0, carve=carve)
    assert tuple(splits.count(name) for name in ("train", "val", "test")) == counts


@pytest.mark.parametrize("given", [None, "train"])
def test_a_class_of_copies_keeps_a_training_photo(given: str | None) -> None:
    first = [sha(i) for i in range(100)]
    where = dict(zip(first, assign(listing_of([0] * 100), first, None, 0), strict=True))
    held_out = [h for h in first if where[h] != "train"][:3]  # without more thought, all of these would follow
    hashes, labels = first + held_out, [0] * 100 + [1] * 3
    splits = assign(listing_of(labels, [given] * 103), hashes, None, 0)
    assert Counter(splits[100:])["train"] == 1
    assert len(set(zip(hashes, splits, strict=True))) == 100
    assert sum(splits[i] != where[h] for i, h in enumerate(first)) == 1


def test_every_class_keeps_a_training_photo_however_photos_are_shared() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        labels = [0, 1, 2, *rng.integers(0, 3, 12).tolist()]
        hashes = [sha(i) for i in rng.integers(0, 6, 15)]
        splits = assign(listing_of(labels), hashes, (0.34, 0.33, 0.33), seed)
        assert {label for label, name in zip(labels, splits, strict=True) if name == "train"} == {0, 1, 2}
        assert len(set(zip(hashes, splits, strict=True))) == len(set(hashes))


def test_without_carving_nothing_goes_to_validation() -> None:
    splits = assign(listing_of([0] * 100), [sha(i) for i in range(100)], None, 0, carve=False)
    assert Counter(splits) == {"train": 90, "test": 10}


def test_fractions_for_data_with_splits_are_refused() -> None:
    given: list[str | None] = ["train", "train", "test"]
    with pytest.raises(UsageError, match="DATA has its own train/val/test, so --split cannot apply"):
        assign(listing_of([0, 1, 0], given), [sha(i) for i in range(3)], (0.8, 0.1, 0.1), 0)


def test_a_validation_share_alone_may_be_named_where_only_val_is_missing() -> None:
    given: list[str | None] = ["train"] * 40 + ["test"] * 10
    hashes = [sha(i) for i in range(50)]
    splits = assign(listing_of([0, 1] * 25, given), hashes, (0.8, 0.2, 0.0), 0)
    assert splits[40:] == ("test",) * 10
    assert Counter(splits[:40]) == {"train": 32, "val": 8}
    validated: list[str | None] = ["train"] * 40 + ["val"] * 10
    for fractions, where in (((0.8, 0.1, 0.1), given), ((0.8, 0.2, 0.0), validated)):
        with pytest.raises(UsageError, match="DATA has its own train/val/test, so --split cannot apply"):
            assign(listing_of([0, 1] * 25, where), hashes, fractions, 0)


def test_from_ten_thousand_photos_on_less_is_held_out() -> None:
    assert default_fractions(9_999) == (0.8, 0.1, 0.1)
    assert default_fractions(10_000) == (0.9, 0.05, 0.05)


def test_fractions_are_read_as_percentages() -> None:
    assert parse_fractions("80/10/10") == (0.8, 0.1, 0.1)
    assert parse_fractions(" 90/0/10 ") == (0.9, 0.0, 0.1)


@pytest.mark.parametrize("text", ["80/10", "80/10/20", "0/50/50", "a/b/c", "", "80-10-10", "110/-5/-5"])
def test_other_fractions_are_a_sentence(text: str) -> None:
    with pytest.raises(
        UsageError, match="expected three whole percentages for train/val/test that sum to 100"
    ) as caught:
        parse_fractions(text)
    assert caught.value.exit_code == 2


def test_validation_is_halved_with_copies_together() -> None:
    hashes = [sha(i % 40) for i in range(80)]
    chooses = halves(hashes, 0)
    assert chooses.dtype == np.bool_
    assert chooses.sum() == 40
    assert (chooses[:40] == chooses[40:]).all()
    assert (halves(hashes, 1) != chooses).any()
    assert halves([sha(0)], 0).tolist() == [True]
    assert halves([], 0).shape == (0,)


def test_the_fingerprint_knows_photos_and_labels_and_no_order() -> None:
    a, b = sha("a"), sha("b")
    assert fingerprint([a, b], [0, 1]) == fingerprint([b, a], [1, 0])
    assert len({fingerprint([a, b], [0, 1]), fingerprint([a, b], [1, 0]), fingerprint([a], [0])}) == 3


def test_any_file_name_survives_split_csv(tmp_path: Path) -> None:
    names = ["a.jpg", 'it "is", so.jpg', "new\nline\r.jpg", "😺.jpg", os.fsdecode(b"caf\xe9.jpg"), "-x.jpg", " .jpg"]
    classes = ["c\u00e4t", os.fsdecode(b"caf\xe9")]
    rows = [Row(name, classes[i % 2], "train", sha(i)) for i, name in enumerate(names)]
    write_split_csv(tmp_path / "split.csv", rows)
    assert read_split_csv(tmp_path / "split.csv") == rows
    assert (tmp_path / "split.csv").read_bytes().startswith(b"path,class,split,sha256,group\r\n")


@pytest.mark.parametrize(
    "text", ["", "path,label\n", "path,class,split,sha256\na.jpg,cat\n", "path,class,split,sha256\na,b,none,c\n"]
)
def test_a_damaged_split_csv_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=r"split.csv is damaged .*expected the columns path, class, split, sha256"):
        read_split_csv(tmp_path / "split.csv")


def test_a_missing_split_csv_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_split_csv(tmp_path / "split.csv")
