"""Decisions files: read strictly, matched by path and content, obeyed in memory only."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from plusx.data import decisions
from plusx.data.decisions import Decision
from plusx.data.source import Listing, Photo
from plusx.errors import DataError
from plusx.images.source import Source


def sha(text: object) -> str:
    return hashlib.sha256(str(text).encode("utf-8", "surrogateescape")).hexdigest()


NAMES = ("cat/0.jpg", "cat/1.jpg", "cat/2.jpg", "dog/0.jpg", "dog/1.jpg", "dog/2.jpg")
HASHES = tuple(map(sha, NAMES))
LISTING = Listing("DATA", ("cat", "dog"), tuple(Photo(n, Source(n), int(n[0] == "d")) for n in NAMES), (), False)


def decided(name: str, decision: str, content: str | None = None) -> Decision:
    return Decision(name, sha(content or name), decision=decision, where=f"list.csv about {name}")


def test_a_file_survives_writing_and_reading_whatever_names_are_in_it(tmp_path: Path) -> None:
    names = ["a.jpg", 'it "is", so.jpg', "new\nline.jpg", "😺.jpg", os.fsdecode(b"caf\xe9.jpg"), "-x.jpg", " .jpg"]
    rows = [Decision(name, sha(name), "cat", "looks like a dog, it does", "dog", "drop") for name in names]
    decisions.write(tmp_path / "d.csv", rows)
    assert list(decisions.read([tmp_path / "d.csv"])) == rows
    assert (tmp_path / "d.csv").read_bytes().startswith(b"path,sha256,class,reason,suggested,decision\r\n")


def test_what_a_spreadsheet_makes_of_it_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(b"\xef\xbb\xbfdecision,path,note,sha256\r\n drop ,cat/0.jpg,mine," + sha("a").upper().encode())
    assert decisions.read([path]) == (Decision("cat/0.jpg", sha("a"), decision="drop"),)


def test_dropped_photos_are_left_out_and_others_change_their_class() -> None:
    rows = [decided("cat/0.jpg", "drop"), decided("dog/1.jpg", "cat"), decided("dog/0.jpg", "keep")]
    rows += [decided("cat/1.jpg", ""), decided("cat/2.jpg", "cat")]
    found = decisions.apply(LISTING, HASHES, rows)
    labels = {photo.name: photo.label for photo in found.listing.photos}
    assert labels == {"cat/1.jpg": 0, "cat/2.jpg": 0, "dog/0.jpg": 1, "dog/1.jpg": 0, "dog/2.jpg": 1}
    assert found.hashes == tuple(sha(photo.name) for photo in found.listing.photos)
    assert [(row.path, row.label, row.decision) for row in found.effect.effective] == [
        ("cat/0.jpg", "cat", "drop"),
        ("dog/1.jpg", "dog", "cat"),
    ]
    assert found.effect.to_json() == {"dropped": 1, "relabelled": 1, "unmatched": 0}
    assert found.effect.sentence() == "By decision, 1 photo left out and 1 relabelled."


def test_a_row_counts_only_for_the_path_and_the_bytes_it_names() -> None:
    rows = [decided("cat/0.jpg", "drop", "other bytes"), decided("dog/0.jpg", "drop", "cat/1.jpg")]
    found = decisions.apply(LISTING, HASHES, [*rows, decided("dog/2.jpg", "drop")])
    assert len(found.listing.photos) == 5
    assert found.effect.unmatched == 2
    assert found.effect.sentence() == (
        "By decision, 1 photo left out and 0 relabelled. Rows of the decisions that match no photo: 2 of 3."
    )
    strangers = decisions.apply(LISTING, HASHES, rows).effect
    with pytest.raises(DataError) as caught:
        decisions.refuse_strangers(strangers, [Path("list.csv")], "DATA")
    assert caught.value.message == (
        "None of the 2 rows of list.csv matches a photo of DATA: rows are matched by path and SHA-256, "
        "so name DATA as check was given it, with its files as they were then."
    )


def test_undecided_rows_change_nothing_and_that_is_said() -> None:
    found = decisions.apply(LISTING, HASHES, [decided("cat/0.jpg", "")])
    assert found.listing == LISTING
    assert found.effect.sentence() == (
        "No photo here was changed by decision: the column decision takes keep, drop or a class name."
    )


def test_an_unknown_class_is_a_sentence_with_the_nearest_name() -> None:
    with pytest.raises(DataError) as caught:
        decisions.apply(LISTING, HASHES, [decided("cat/0.jpg", "dgo")])
    assert caught.value.message == (
        "list.csv about cat/0.jpg: the decision 'dgo' is neither keep, drop nor a class (cat, dog); "
        "correct it, or leave it empty. Did you mean dog?"
    )
    with pytest.raises(DataError, match=r"Did you mean drop\?"):
        decisions.apply(LISTING, HASHES, [decided("cat/0.jpg", "Drop")])
    assert decisions.apply(LISTING, HASHES, [decided("cat/0.jpg", "fox")], known=("dog", "fox")).listing.classes == (
        *("cat", "dog", "fox"),
    )


def test_two_different_decisions_about_one_photo_are_refused_wherever_they_stand(tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    decisions.write(one, [decided("cat/0.jpg", ""), decided("cat/1.jpg", "drop")])
    decisions.write(two, [decided("cat/1.jpg", "drop"), decided("cat/0.jpg", "dog"), decided("cat/1.jpg", "")])
    assert [row.decision for row in decisions.read([one, two])] == ["dog", "drop"]
    decisions.write(two, [decided("cat/1.jpg", "keep")])
    with pytest.raises(DataError) as caught:
        decisions.read([one, two])
    assert caught.value.message == (
        f"cat/1.jpg is decided twice, as 'drop' ({one}, line 3) and as 'keep' ({two}, line 2): leave one of the two."
    )


HEADER = "path,sha256,class,reason,suggested,decision"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it has no column path and no column sha256 and no column decision"),
        ("path;sha256;decision\n", "it has no column path and no column sha256 and no column decision"),
        ("path,sha256\n", "it has no column decision"),
        (f"{HEADER}\na.jpg,{sha('a')},cat\n", "line 2 has 3 cells"),
        (f"{HEADER}\na.jpg,1234,cat,,,drop\n", "line 2 names no photo by its path and SHA-256"),
        (f'{HEADER}\n"a.jpg', "unexpected end of data"),
    ],
)
def test_a_file_that_is_no_such_table_is_a_sentence(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(DataError, match=re.escape(f"d.csv cannot be used ({why}): expected the columns path, sha256")):
        decisions.read([tmp_path / "d.csv"])


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        decisions.read([tmp_path / "none.csv"])
    assert caught.value.message == (
        f"There is no {tmp_path / 'none.csv'}; --decisions takes a CSV with the columns "
        "path, sha256, class, reason, suggested, decision, as check writes them."
    )


def test_a_class_that_decisions_leave_with_one_photo_is_refused() -> None:
    rows = [decided("cat/0.jpg", "drop"), decided("cat/1.jpg", "dog")]
    found = decisions.apply(LISTING, HASHES, rows)
    with pytest.raises(DataError, match="Class cat has one photo to learn from in DATA, and at least two are needed"):
        decisions.refuse_too_few(found.listing)
    decisions.refuse_too_few(decisions.apply(LISTING, HASHES, rows[:1]).listing)


def test_decisions_given_again_contradict_a_run_only_where_they_would_change_it() -> None:
    labels = {("b", sha("b")): "dog", ("c", sha("c")): "cat"}  # of the run: a was dropped, b relabelled
    started = [decided("a", "drop"), decided("b", "dog")]
    assert not decisions.contradict(started, started, labels)
    assert not decisions.contradict([*started, decided("c", "cat"), decided("c", "keep")], started, labels)
    assert not decisions.contradict([*started, decided("unknown", "drop")], started, labels)
    assert decisions.contradict([*started, decided("c", "drop")], started, labels)
    assert decisions.contradict([*started, decided("c", "dog")], started, labels)
    assert decisions.contradict(started[:1], started, labels)
    assert decisions.contradict([decided("a", "dog"), decided("b", "dog")], started, labels)
