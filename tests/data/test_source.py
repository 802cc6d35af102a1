"""DATA in every layout, and what is said where it is none."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from plusx.data import decisions
from plusx.data.source import Listing, content_hashes, scan, walk
from plusx.errors import DataError, UsageError
from plusx.trust.decide import NONE, UNSURE

CLASSES = ("cat", "dog")


def put(root: Path, *names: str) -> Path:
    """Files of distinct bytes; a name that ends in / is an empty folder. The scan never looks into photos."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bytes of " + os.fsencode(name))
    return root


def photos_of(prefix: str, *, classes: tuple[str, ...] = CLASSES, count: int = 2) -> list[str]:
    return [f"{prefix}{c}/{i}.jpg" for c in classes for i in range(count)]


def seen(listing: Listing) -> set[tuple[str, str, str | None]]:
    return {(p.name, listing.classes[p.label or 0], p.split) for p in listing.photos}


def message(data: object) -> str:
    with pytest.raises(DataError) as caught:
        scan(data)  # type: ignore[arg-type]
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message
    return caught.value.message


def test_class_folders_alone_have_no_splits(tmp_path: Path) -> None:
    listing = scan(put(tmp_path, *photos_of("")))
    assert listing.classes == CLASSES
    assert not listing.has_splits
    assert [(p.name, p.label) for p in listing.photos] == [
        ("cat/0.jpg", 0),
        ("cat/1.jpg", 0),
        ("dog/0.jpg", 1),
        ("dog/1.jpg", 1),
    ]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folders_are_recognised_by_each_of_their_names(tmp_path: Path, val: str) -> None:
    listing = scan(put(tmp_path, *photos_of("train/"), f"{val}/cat/9.jpg", "test/dog/9.jpg"))
    assert listing.has_splits
    assert {p.split for p in listing.photos} == {"train", "val", "test"}
    assert (f"{val}/cat/9.jpg", "cat", "val") in seen(listing)


@pytest.mark.parametrize(
    "names",
    [
        photos_of("train/"),
        photos_of("Training/PetImages/"),
        photos_of("pets/train/"),
        ["train/cat.0.jpg", "train/cat.1.jpg", "train/dog.0.jpg", "train/dog.1.jpg"],
    ],
)
def test_a_train_folder_alone_is_looked_through_and_remembered(tmp_path: Path, names: list[str]) -> None:
    listing = scan(put(tmp_path, *names))
    assert not listing.has_splits
    assert listing.classes == CLASSES
    assert {p.split for p in listing.photos} == {"train"}


@pytest.mark.parametrize("split", ["val", "test"])
def test_another_split_alone_is_looked_through_and_forgotten(tmp_path: Path, split: str) -> None:
    listing = scan(put(tmp_path, *photos_of(f"{split}/")))
    assert not listing.has_splits
    assert {p.split for p in listing.photos} == {None}


def test_the_train_folder_itself_as_data_has_no_split(tmp_path: Path) -> None:
    put(tmp_path, *photos_of("train/"))
    assert {p.split for p in scan(tmp_path / "train").photos} == {None}


@pytest.mark.parametrize("digits", [["1", "10", "9"], ["0" * n + "1" for n in range(6)]])
def test_classes_are_in_the_order_of_their_names_numbers_too(tmp_path: Path, digits: list[str]) -> None:
    folders = scan(put(tmp_path / "folders", *photos_of("", classes=tuple(digits))))
    flat = scan(put(tmp_path / "flat", *(f"{d}.{i}.jpg" for d in digits for i in range(2))))
    assert folders.classes == flat.classes == tuple(sorted(digits))


def test_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    listing = scan(put(tmp_path, *photos_of("", classes=("bus", "train"))))
    assert listing.classes == ("bus", "train")
    assert not listing.has_splits


def test_flat_kaggle_names_hold_the_class_before_the_first_dot(tmp_path: Path) -> None:
    names = ["cat.0.jpg", "cat.1.jpg", "dog.0.jpg", "dog.12.jpg"]
    for root in (put(tmp_path / "flat", *names), put(tmp_path / "wrapped", *(f"train/{n}" for n in names))):
        listing = scan(root)
        assert listing.classes == CLASSES
        assert [p.label for p in listing.photos] == [0, 0, 1, 1]


def test_a_folder_beside_many_flat_names_is_left_out(tmp_path: Path) -> None:
    listing = scan(put(tmp_path, "cat.0.jpg", "cat.1.jpg", "dog.0.jpg", "dog.1.jpg", "extra/1.jpg", "empty/"))
    assert listing.classes == CLASSES
    assert listing.junk == ("extra/1.jpg",)


def test_a_photo_beside_class_folders_is_left_out(tmp_path: Path) -> None:
    assert scan(put(tmp_path, *photos_of(""), "stray.jpg")).junk == ("stray.jpg",)


def test_folders_that_hold_everything_are_looked_through(tmp_path: Path) -> None:
    listing = scan(put(tmp_path, *photos_of("download/PetImages/"), "readme[1].txt"))
    assert listing.classes == CLASSES
    assert listing.junk == ("readme[1].txt",)


def test_deeper_folders_belong_to_their_class(tmp_path: Path) -> None:
    listing = scan(put(tmp_path, *photos_of(""), "cat/tabby/1.jpg"))
    assert ("cat/tabby/1.jpg", "cat", None) in seen(listing)


def test_junk_is_left_out_and_listed(tmp_path: Path) -> None:
    """D19."""
    junk = ["Thumbs.db", "cat/.DS_Store", "cat/notes.txt", "cat/._0.jpg", "dog/desktop.ini", "labels.json"]
    folders = ["__MACOSX/cat/0.jpg", ".ipynb_checkpoints/a.jpg", "dog/.hidden/b.jpg"]
    listing = scan(put(tmp_path, *photos_of(""), *junk, *folders))
    assert len(listing.photos) == 4
    assert set(listing.junk) == {*junk, "__MACOSX", ".ipynb_checkpoints", "dog/.hidden"}


def test_endings_count_in_any_case_and_bad_content_is_no_junk(tmp_path: Path) -> None:
    """D06."""
    put(tmp_path, *photos_of(""), "cat/a.JPG", "cat/b.jfif", "cat/c.jpe", "cat/d.HEIC")
    (tmp_path / "cat" / "empty.png").write_bytes(b"")
    listing = scan(tmp_path)
    assert len(listing.photos) == 4 + 5
    assert listing.junk == ()


def test_a_file_without_ending_counts_if_it_looks_like_a_photo(tmp_path: Path) -> None:
    put(tmp_path, *photos_of(""), "cat/README")
    (tmp_path / "cat" / "photo").write_bytes(b"\xff\xd8\xff\xe0 the start of a JPEG")
    listing = scan(tmp_path)
    assert "cat/photo" in {p.name for p in listing.photos}
    assert listing.junk == ("cat/README",)


@pytest.mark.parametrize(
    "name", ["with space.jpg", 'it\'s "so".jpg', "new\nline.jpg", "😺.jpg", "-rf.jpg", "a,b;c.jpg"]
)
def test_any_file_name_works(tmp_path: Path, name: str) -> None:
    """D15."""
    listing = scan(put(tmp_path, *photos_of(""), f"cat/{name}"))
    assert f"cat/{name}" in {p.name for p in listing.photos}


def test_names_that_are_no_utf8_work(tmp_path: Path) -> None:
    """D15."""
    names = [os.fsdecode(name) for name in (b"caf\xe9/\xff.jpg", b"caf\xe9/1.jpg", b"dog/\xfe.jpg")]
    gone = os.fsdecode(b"caf\xe9/\xfd.jpg")
    try:
        put(tmp_path, *photos_of(""), *names)
        (tmp_path / gone).symlink_to("nowhere")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    listing = scan(tmp_path)
    assert [os.fsencode(name) for name in listing.classes] == [b"caf\xe9", b"cat", b"dog"]
    assert {*names, gone} <= {p.name for p in listing.photos}
    assert [p.name for p in walk([tmp_path])] == [str(tmp_path / p.name) for p in listing.photos]
    hashes = dict(zip((p.name for p in listing.photos), content_hashes(listing.photos), strict=True))
    assert hashes[names[0]] == hashlib.sha256(b"bytes of " + os.fsencode(names[0])).hexdigest()
    assert len(set(hashes.values())) == len(listing.photos)


def test_a_csv_names_what_is_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.jpg")
    try:
        put(tmp_path, "0.jpg", "1.jpg", "2.jpg", name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (tmp_path / "labels.csv").write_bytes(b"path,label\n0.jpg,caf\xe9\n\xff.jpg,caf\xe9\n1.jpg,cat\n2.jpg,cat\n")
    listing = scan(tmp_path / "labels.csv")
    assert (name, os.fsdecode(b"caf\xe9"), None) in seen(listing)
    assert len(set(content_hashes(listing.photos))) == 4


def test_a_label_beside_a_photo_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    put(tmp_path, "0.jpg", "1.jpg", "0.cls")
    (tmp_path / "1.cls").symlink_to("nowhere")
    assert message(tmp_path) == (
        "1.cls: the file could not be read (No such file or directory); check that it is there and may be read."
    )


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    """D16; links that lead outside are named: tests/data/test_odd_files.py."""
    outside = put(tmp_path / "outside", "0.jpg", "1.jpg")
    root = put(tmp_path / "data", *photos_of(""))
    (root / "bird").symlink_to(outside)
    (root / "cat" / "again").symlink_to(root)
    (root / "dog" / "gone.jpg").symlink_to("nowhere.jpg")
    (root / "dog" / "itself.jpg").symlink_to("itself.jpg")
    listing = scan(root)
    assert listing.classes == ("bird", "cat", "dog")
    assert listing.junk == ("cat/again",)
    assert {"dog/gone.jpg", "dog/itself.jpg"} <= {p.name for p in listing.photos}
    assert len(set(content_hashes(listing.photos))) == len(listing.photos)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D17."""
    put(tmp_path, *photos_of(""))
    scandir = os.scandir

    def refusing(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert message(tmp_path) == (
        f"{tmp_path}/dog cannot be read (Permission denied): check its permissions and the disk."
    )
    assert [p.name for p in walk([tmp_path])] == [str(tmp_path / n) for n in ("cat/0.jpg", "cat/1.jpg", "dog")]


def test_a_link_beside_the_folder_it_points_to_hides_neither(tmp_path: Path) -> None:
    root = put(tmp_path, *photos_of(""))
    (root / "all-cats").symlink_to(root / "cat")
    assert scan(root).classes == ("all-cats", "cat", "dog")


def test_a_pipe_is_never_waited_for(tmp_path: Path) -> None:
    """D17."""
    put(tmp_path, *photos_of(""))
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    assert scan(tmp_path).junk == ("cat/pipe.jpg",)
    (photo,) = walk([tmp_path / "cat" / "pipe.jpg"])
    assert len(content_hashes([photo])[0]) == 64


def test_a_csv_lists_photos_relative_to_itself(tmp_path: Path) -> None:
    put(tmp_path, *(f"pics/{i}.jpg" for i in range(5)))
    rows = (
        "pics/0.jpg,cat,train\npics/1.jpg,cat,train\npics/2.jpg,dog,train\npics/3.jpg,dog,train\npics/4.jpg,dog,valid\n"
    )
    (tmp_path / "labels.csv").write_text("\ufeffPath,Label,split\r\n" + rows)
    listing = scan(tmp_path / "labels.csv")
    assert ("pics/4.jpg", "dog", "val") in seen(listing)
    assert Path(listing.photos[0].source.file).is_file()


@pytest.mark.parametrize("header", ["path,label,split", "label,split,path", "split, Path ,note,LABEL"])
def test_the_columns_of_a_csv_come_in_any_order(tmp_path: Path, header: str) -> None:
    put(tmp_path, *(f"{i}.jpg" for i in range(5)))
    names = [name.strip().lower() for name in header.split(",")]
    rows = [{"path": f"{i}.jpg", "label": CLASSES[i % 2], "split": "train", "note": ""} for i in range(4)]
    rows.append({"path": "4.jpg", "label": "dog", "split": "test", "note": "blurred"})
    lines = [header, *(",".join(row[name] for name in names) for row in rows)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    listing = scan(tmp_path / "labels.csv")
    assert listing.has_splits
    assert seen(listing) == {(row["path"], row["label"], row["split"]) for row in rows}


def test_a_csv_whose_photos_all_train_is_as_a_train_folder(tmp_path: Path) -> None:
    put(tmp_path, *(f"{i}.jpg" for i in range(4)))
    rows = [f"{CLASSES[i % 2]},{i}.jpg,train" for i in range(4)]
    (tmp_path / "labels.csv").write_text("\n".join(["label,path,split", *rows]))
    listing = scan(tmp_path / "labels.csv")
    assert not listing.has_splits
    assert {p.split for p in listing.photos} == {"train"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,label\na.jpg,cat\n", "its first line names file, label"),
        ("path,label\n", "it lists no photo"),
        ("path,label\n0.jpg,cat\n1.jpg,\n", "labels.csv cannot be used (line 3 has no label): expected the columns"),
        ("path,label\n0.jpg,cat\n1.jpg\n", "line 3 has no label"),
        ("label,path\ncat,0.jpg\ndog\n", "line 3 has no path"),
        ("label,path\ncat,0.jpg\ndog, \n", "line 3 has no path"),
        ("path,label,split\n0.jpg,cat,train\n\n1.jpg,dog\n", "line 4 has no split"),
        (
            "path,label\n0.jpg,cat\nx.jpg,dog\ny.jpg,dog\n",
            "line 3: x.jpg does not exist (nor do those of 1 more lines)",
        ),
        ("path,label,split\n0.jpg,cat,tran\n", "tran is no split; expected train, val or test. Did you mean train?"),
        ('path,label\n"0.jpg,cat\n', "cannot be used ("),
    ],
)
def test_a_csv_that_cannot_be_used_is_named_with_the_reason(tmp_path: Path, text: str, expected: str) -> None:
    put(tmp_path, "0.jpg", "1.jpg")
    (tmp_path / "labels.csv").write_text(text)
    assert expected in message(tmp_path / "labels.csv")


def test_a_missing_folder_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    put(tmp_path, *photos_of("pets/"))
    assert f"{tmp_path}/pet does not exist" in message(tmp_path / "pet")
    assert message(tmp_path / "pet").endswith("Did you mean pets?")


def test_a_pattern_that_matches_nothing_is_named(tmp_path: Path) -> None:
    assert "No file matches" in message(f"{tmp_path}/*.tar")


def test_no_photos_is_a_sentence(tmp_path: Path) -> None:
    assert "holds no photos" in message(put(tmp_path, "cat/notes.txt", "dog/"))


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    """D19."""
    put(tmp_path, *photos_of(""), "bird/Thumbs.db")
    assert message(tmp_path).startswith(f"The folder bird in {tmp_path} holds no photos: put at least two there")


def test_an_empty_class_beside_one_class_is_not_looked_through(tmp_path: Path) -> None:
    """D19."""
    assert "The folder dog in" in message(put(tmp_path, "cat/0.jpg", "cat/1.jpg", "dog/"))


@pytest.mark.parametrize("name", [UNSURE, NONE, decisions.KEEP, decisions.DROP])
def test_a_class_called_like_an_answer_or_a_decision_is_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path, *photos_of("", classes=("cat", name)))
    assert message(tmp_path) == (
        f"A class of {tmp_path} is called {name!r}, which in answers and decisions means something else: "
        "expected any name but unsure, none of these, keep, drop; rename the class."
    )
    assert scan(tmp_path, trainable=False).classes == tuple(sorted(("cat", name)))


def test_one_class_only_is_a_sentence(tmp_path: Path) -> None:
    """D20."""
    put(tmp_path, "cat/0.jpg", "cat/1.jpg")
    assert "holds one class only (cat)" in message(tmp_path)
    assert scan(tmp_path, trainable=False).classes == ("cat",)


def test_a_class_with_one_photo_is_named(tmp_path: Path) -> None:
    """D20."""
    assert "Class dog has one photo to learn from" in message(put(tmp_path, "cat/0.jpg", "cat/1.jpg", "dog/0.jpg"))


def test_a_class_that_train_lacks_is_named_with_the_nearest(tmp_path: Path) -> None:
    """D21."""
    put(tmp_path, *photos_of("train/"), "test/cat/0.jpg", "test/dogs/0.jpg")
    text = message(tmp_path)
    assert f"The test photos of {tmp_path} have the class dogs, which train lacks (cat, dog)" in text
    assert text.endswith("Did you mean dog?")


def test_a_test_folder_may_lack_a_class(tmp_path: Path) -> None:
    """D21."""
    assert len(scan(put(tmp_path, *photos_of("train/"), "test/cat/0.jpg", "test/dog/")).photos) == 5


def test_folders_beside_splits_are_refused(tmp_path: Path) -> None:
    put(tmp_path, *photos_of("train/"), "test/cat/1.jpg", "test1/1.jpg")
    assert "split folders test, train and beside them test1, which is no split" in message(tmp_path)


def test_photos_without_labels_are_a_sentence(tmp_path: Path) -> None:
    assert "says which class a photo belongs to (1.jpg, for example)" in message(put(tmp_path, "1.jpg", "2.jpg"))


def test_a_single_photo_leads_to_predict(tmp_path: Path) -> None:
    put(tmp_path, "my cat.jpg", "notes.txt")
    assert f"type plusx predict MODEL '{tmp_path}/my cat.jpg'" in message(tmp_path / "my cat.jpg")
    assert "is neither a folder, a .tar nor a .csv" in message(tmp_path / "notes.txt")


def test_no_data_at_all_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="DATA is missing"):
        scan([])


def test_several_folders_are_classes_as_a_shell_expands_them(tmp_path: Path) -> None:
    put(tmp_path, *photos_of(""))
    expected = scan(tmp_path)
    for data in ([tmp_path / "cat", tmp_path / "dog"], f"{tmp_path}/*", sorted(tmp_path.glob("*/*.jpg"))):
        assert seen(scan(data)) == seen(expected)


def test_several_split_folders_stay_splits(tmp_path: Path) -> None:
    put(tmp_path, *photos_of("train/"), *photos_of("test/"))
    assert seen(scan(f"{tmp_path}/*")) == seen(scan(tmp_path))


def test_walk_takes_named_files_as_they_are_and_skips_junk_in_folders(tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a/2.png", "a/1.jpg", "a/notes.txt", "a/.hidden.jpg", "odd.xyz")
    names = [p.name for p in walk([tmp_path / "odd.xyz", tmp_path, tmp_path / "gone.jpg"])]
    expected = ["odd.xyz", "a/1.jpg", "a/2.png", "b.jpg", "gone.jpg"]
    assert names == [str(tmp_path / n) for n in expected]
    assert all(p.label is None for p in walk([tmp_path]))


def test_walk_gives_a_row_for_all_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "cut.tar").write_bytes(b"no tar")
    given = [f"{tmp_path}/*.webp", tmp_path / "gone", tmp_path / "cut.tar", tmp_path]
    names = [p.name for p in walk(given)]
    assert names == [f"{tmp_path}/*.webp", f"{tmp_path}/gone", f"{tmp_path}/cut.tar", f"{tmp_path}/cut.tar"]


def test_walk_of_a_relative_folder_keeps_the_path_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "c/cat.jpg")
    monkeypatch.chdir(tmp_path)
    assert [p.name for p in walk(["c/", "."])] == ["c/cat.jpg", "./c/cat.jpg"]


def test_hashes_are_of_the_bytes_and_unreadable_photos_equal_nothing(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    (tmp_path / "copy.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    a, copy, gone, lost = content_hashes(walk([tmp_path / n for n in ("a.jpg", "copy.jpg", "gone.jpg", "lost.jpg")]))
    assert a == copy
    assert len({a, gone, lost}) == 3


def test_flat_names_beside_class_folders_keep_their_labels_when_several_folders_are_given(tmp_path: Path) -> None:
    put(tmp_path / "kaggle", "cat.0.jpg", "cat.1.jpg", "dog.0.jpg", "dog.1.jpg")
    put(tmp_path / "photos", "cat/a.jpg", "cat/b.jpg", "dog/a.jpg", "dog/b.jpg")
    listing = scan([tmp_path / "kaggle", tmp_path / "photos"])
    assert listing.classes == ("cat", "dog")
    labels = {p.name: listing.classes[p.label or 0] for p in listing.photos}
    assert len(labels) == 8
    assert labels["kaggle/dog.1.jpg"] == labels["photos/dog/a.jpg"] == "dog"
    assert listing.junk == ()
