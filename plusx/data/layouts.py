"""The layouts of DATA: from file names to labels and splits."""

# ruff: noqa: PTH118, PTH122
# Paths are text by os.fsdecode here, as Source holds them.

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.data import index, remote, shards
from plusx.data.files import KAGGLE, PHOTO_SUFFIXES, REFUSED, SPLITS, File, Files, Parts, is_junk
from plusx.data.reading import read
from plusx.data.table import text_of
from plusx.errors import data as sentences
from plusx.errors.images import Undecodable
from plusx.images.sniff import IMAGES, sniff
from plusx.images.source import Source
from plusx.model_file import MOST_CLASSES, MOST_NAME, has_room

RESERVED = ("unsure", "none of these", "keep", "drop")  # what answers and decisions say beside class names
_COLUMNS = ("path", "label", "split")  # of a CSV; the last may be missing

Counts = Mapping[tuple[str | None, str], int]  # photos by split and class


@dataclass(frozen=True, slots=True)
class Entry:
    """A photo file with its class name and split."""

    file: File
    label: str
    split: str | None = None


@dataclass(frozen=True)
class Labelled:
    """What a layout gives: entries, what was left out, and folders that should hold photos and hold none.

    `indexed`: labels come from WebDataset's .cls files, where a number is the index of a class.
    """

    entries: list[Entry]
    junk: tuple[str, ...]
    empty: tuple[str, ...] = ()
    indexed: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, sorted; where all are the numbers of a WebDataset, by value and then by name."""
        names = sorted({entry.label for entry in self.entries})
        if self.indexed and all(name.isascii() and name.isdigit() for name in names):
            names.sort(key=_value)
        return tuple(names)


def label_files(root: str, found: Files) -> Labelled:
    """Labels and splits of every photo among the files of DATA. Raises DataError where none has any."""
    if len(found.files) == 1 and found.files[0].name.lower().endswith(".csv") and not remote.is_url(root):
        return _from_csv(Path(found.files[0].source.file))
    photos, junk = photos_only(found.files)
    if not photos:
        _refuse_no_photos(root, found)
    photos, folders, wrappers = _without_wrappers(photos, found.folders)
    splits = _has_split_folders(root, photos)
    shard = _webdataset(photos, found.files, splits)
    entries, used = shard or (_by_name(photos, splits, wrappers[-1:]), set())
    if not entries:
        raise sentences.no_labels(root, photos[0].name)
    labelled = {entry.file.name for entry in entries}
    junk = [*(n for n in junk if n not in used), *(p.name for p in photos if p.name not in labelled), *found.left_out]
    empty = _empty_folders(entries, folders, splits)
    return Labelled(_lone_split(entries, wrappers), tuple(sorted(junk)), empty, indexed=shard is not None)


def photos_only(files: Iterable[File]) -> tuple[list[File], list[str]]:
    """The files that are photos by their ending, or have none and look like one; and the names of the others."""
    photos, junk = [], dict[str, None]()
    for file in files:
        if any(map(is_junk, file.parts)):
            junk[_up_to_junk(file)] = None
        elif _is_photo(file):
            photos.append(file)
        else:
            junk[file.name] = None
    return photos, list(junk)


def refuse_unusable(root: str, labelled: Labelled, classes: Sequence[str]) -> None:
    """Raise DataError for data no classifier can be trained on."""
    if labelled.empty:
        raise sentences.empty_class(root, labelled.empty[0])
    refuse_counts(root, classes, Counter((entry.split, entry.label) for entry in labelled.entries))


def counted(splits: npt.NDArray[Any], labels: npt.NDArray[Any], classes: Sequence[str]) -> Counts:
    """How many photos each split has of each class; splits as positions in SPLITS, -1 where there is none, [n]."""
    table = np.bincount(
        (splits + 1) * np.int64(len(classes)) + labels, minlength=(len(index.SPLITS) + 1) * len(classes)
    )
    names = (None, *index.SPLITS)
    places = np.flatnonzero(table).tolist()
    return {(names[i // len(classes)], classes[i % len(classes)]): int(table[i]) for i in places}


def refuse_counts(root: str, classes: Sequence[str], found: Counts) -> None:
    """Raise DataError for classes, and for so many photos of each in each split, that nothing can be learned from."""
    if len(classes) < 2:
        raise sentences.one_class(root, classes[0])
    if longest := [name for name in classes if len(name) > MOST_NAME]:
        raise sentences.long_class(root, longest[0], MOST_NAME)
    if not has_room(classes):
        raise sentences.too_many_classes(root, len(classes), MOST_CLASSES)
    for name in RESERVED:
        if name in classes:
            raise sentences.reserved_class(root, name, RESERVED)
    counts = Counter[str]()
    for (split, name), count in found.items():
        counts[name] += count if split in (None, "train") else 0
    if not +counts:
        raise sentences.no_training_photos(root)
    for split, name in found:
        if not counts[name]:
            raise sentences.unknown_class(root, split or "", name, sorted(+counts))
    name, fewest = min(counts.items(), key=lambda pair: (pair[1], pair[0]))
    if fewest < 2:
        raise sentences.too_few(root, name, fewest)


def _value(digits: str) -> tuple[int, str]:
    """What numbers sort by, of any length; int() refuses very long ones."""
    significant = digits.lstrip("0")
    return len(significant), significant


def _is_photo(file: File) -> bool:
    suffix = os.path.splitext(file.parts[-1])[1].lower()
    if suffix:
        return suffix in PHOTO_SUFFIXES
    try:
        return sniff(read(file.source, 1024)) in IMAGES
    except Undecodable:
        return False


def _up_to_junk(file: File) -> str:
    """A junk folder inside an archive is listed once, not with every file in it."""
    first = next(i for i, part in enumerate(file.parts) if is_junk(part))
    below = sum(len(part) + 1 for part in file.parts[first + 1 :])
    return file.name[: len(file.name) - below]


def _refuse_no_photos(root: str, found: Files) -> None:
    for name in found.left_out:
        if name.lower().endswith(REFUSED):
            raise sentences.compressed(name)
    raise sentences.no_photos(root)


def _without_wrappers(photos: list[File], folders: Sequence[Parts]) -> tuple[list[File], list[Parts], Parts]:
    """Look through folders that hold everything: DATA/PetImages/Cat/1.jpg is Cat/1.jpg. With their names."""
    wrappers, below = list[str](), list(folders)
    while (
        all(len(p.parts) > 1 for p in photos) and len(tops := {p.parts[0] for p in photos} | {f[0] for f in below}) == 1
    ):
        wrappers.append(tops.pop())
        photos = [replace(p, parts=p.parts[1:]) for p in photos]
        below = [f[1:] for f in below if len(f) > 1]
    return photos, below, tuple(wrappers)


def _has_split_folders(root: str, photos: Sequence[File]) -> bool:
    """Whether the folders at the top are train, val and test, and not classes."""
    tops = sorted({p.parts[0] for p in photos if len(p.parts) > 1})
    splits = [top for top in tops if top.lower() in SPLITS]
    others = [top for top in tops if top.lower() not in SPLITS]
    if splits and others and any(p.parts[0] in splits and len(p.parts) > 2 for p in photos):
        raise sentences.mixed_splits(root, splits, others)
    return bool(splits) and not others


def _by_name(photos: Sequence[File], splits: bool, wrapper: Parts) -> list[Entry]:
    """`[split/]class/...` or `[split/]class.N.ext`; with neither, the folder that holds all, if any, is the class."""
    rows = [_without_split(photo, splits) for photo in photos]
    in_folders = [Entry(f, parts[0], split) for f, parts, split in rows if len(parts) > 1]
    flat = [
        Entry(f, match["label"], split)
        for f, parts, split in rows
        if len(parts) == 1 and (match := KAGGLE.fullmatch(parts[0]))
    ]
    if in_folders or flat:
        return in_folders if len(in_folders) >= len(flat) else flat
    if splits or not wrapper or wrapper[0].lower() in SPLITS:
        return []
    return [Entry(photo, wrapper[0]) for photo in photos]


def _without_split(photo: File, splits: bool) -> tuple[File, Parts, str | None]:
    if splits and len(photo.parts) > 1:
        return photo, photo.parts[1:], SPLITS[photo.parts[0].lower()]
    return photo, photo.parts, None


def _lone_split(entries: list[Entry], wrappers: Parts = ()) -> list[Entry]:
    """The entries; where one folder is all there is, that is none, unless it is `train/`.

    A `train/` alone says that its photos are for training, and a recipe may take that at its word.
    """
    splits = {entry.split for entry in entries}
    if len(splits) > 1:
        return entries
    around = [None, *(SPLITS[name.lower()] for name in wrappers if name.lower() in SPLITS)]
    lone = splits.pop() or around[-1]
    return [replace(entry, split="train" if lone == "train" else None) for entry in entries]


def _empty_folders(entries: Sequence[Entry], folders: Sequence[Parts], splits: bool) -> tuple[str, ...]:
    """Class folders without a photo; a validation or test folder may lack a class, training may not."""
    full = {entry.file.parts[:depth] for entry in entries for depth in (1, 2)}
    if not any(len(entry.file.parts) > 1 for entry in entries):  # flat names: folders beside them are no classes
        return ()
    return tuple(sorted("/".join(f) for f in folders if f not in full and _should_hold_photos(f, splits)))


def _should_hold_photos(folder: Parts, splits: bool) -> bool:
    if not splits or len(folder) == 1:
        return len(folder) == 1
    return len(folder) == 2 and SPLITS.get(folder[0].lower()) == "train"


def _webdataset(photos: Sequence[File], files: Sequence[File], splits: bool) -> tuple[list[Entry], set[str]] | None:
    """WebDataset's convention: `key.jpg` beside `key.cls`, which holds the class. None where no photo has one."""
    labels = {os.path.splitext(f.name)[0]: f for f in files if f.name.endswith(".cls")}
    beside = [labels.get(os.path.splitext(photo.name)[0]) for photo in photos]
    if not any(beside):
        return None
    entries = []
    for photo, file in zip(photos, beside, strict=True):
        label = _text(file) if file else ""
        if not label:
            raise sentences.webdataset_label(photo.name)
        entries.append(Entry(photo, label, _without_split(photo, splits)[2]))
    return entries, {file.name for file in beside if file}


def _text(file: File) -> str:
    kept = shards.text(file.source.file, file.source.offset) if remote.is_url(file.source.file) else None
    if kept is not None:
        return kept.strip()
    try:
        return read(file.source).decode("utf-8", "surrogateescape").strip()
    except Undecodable as error:
        raise sentences.unreadable_label(file.name, error.reason) from None


def _from_csv(path: Path) -> Labelled:
    """Rows with the columns path, label and perhaps split, in any order; paths are relative to the CSV."""
    try:
        text = path.read_text("utf-8-sig", errors="surrogateescape")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        columns = [name.strip().lower() for name in next(reader, [])]
        rows = [(reader.line_num, dict(zip(columns, row, strict=False))) for row in reader if any(row)]
    except (OSError, csv.Error) as error:
        raise sentences.bad_csv(path, str(error)) from None
    if not {"path", "label"} <= set(columns):
        raise sentences.bad_csv(path, f"its first line names {', '.join(columns) or 'nothing'}")
    if not rows:
        raise sentences.bad_csv(path, "it lists no photo")
    entries = [_csv_entry(path, line, row, columns) for line, row in rows]
    missing = [(line, e) for (line, _), e in zip(rows, entries, strict=True) if not os.path.lexists(e.file.source.file)]
    if missing:
        raise sentences.csv_missing_file(path, missing[0][0], missing[0][1].file.name, len(missing) - 1)
    return Labelled(_lone_split(entries), ())


def _csv_entry(path: Path, line: int, row: dict[str, str], columns: Sequence[str]) -> Entry:
    for column in _COLUMNS:
        if column in columns and not row.get(column, "").strip():
            raise sentences.bad_csv(path, f"line {line} has no {column}")
    name, label, split = row["path"], text_of(row["label"].strip()), row.get("split", "").strip()
    if split and split.lower() not in SPLITS:
        raise sentences.csv_split(path, line, split)
    if not os.path.lexists(os.path.join(path.parent, name)):  # as `predict --csv` writes it, perhaps
        name = text_of(name)
    file = File(name, tuple(name.split("/")), Source(os.path.join(path.parent, name)))
    return Entry(file, label, SPLITS[split.lower()] if split else None)
