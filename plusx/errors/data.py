"""Sentences about DATA: folders, archives, tables, splits and downloads."""

# ruff: noqa: PTH112, PTH119, PTH120, PTH208
# Paths are text by os.fsdecode here, as Source holds them.

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence

from plusx.errors import DataError, DiskError, Error, UsageError, did_you_mean

LAYOUTS = "a folder with one folder per class, train/ and test/ of those, tar archives of them, or a CSV of path,label"


def missing(data: str) -> DataError:
    """Nothing lies at `data`."""
    parent = os.path.dirname(data.rstrip("/")) or "."
    beside = os.listdir(parent)[:1000] if os.access(parent, os.R_OK | os.X_OK) and os.path.isdir(parent) else []
    near = did_you_mean(os.path.basename(data.rstrip("/")), beside)
    return DataError(f"{data} does not exist: DATA must be {LAYOUTS}.{near}", code="missing")


def nothing_matches(pattern: str) -> DataError:
    """A glob that matches nothing."""
    return DataError(f"No file matches {pattern}: check the path; DATA must be {LAYOUTS}.", code="missing")


def no_data() -> UsageError:
    """DATA was left out."""
    return UsageError(f"DATA is missing: name {LAYOUTS}.", code="no-data")


def unreadable(path: object, error: OSError) -> DataError:
    """The operating system refuses to read a folder, an archive or a table."""
    why = error.strerror or str(error)
    return DataError(f"{path} cannot be read ({why}): check its permissions and the disk.", code="unreadable")


def no_photos(data: str) -> DataError:
    """Nothing in `data` is a photo."""
    return DataError(f"{data} holds no photos: expected {LAYOUTS}.", code="no-photos")


def single_photo(path: str) -> DataError:
    """DATA is one photo."""
    return DataError(
        f"{path} is a single photo, and DATA must be {LAYOUTS}; "
        f"to get an answer for one photo, type plusx predict MODEL {shlex.quote(path)}.",
        code="single-photo",
    )


def unknown_kind(path: str) -> DataError:
    """DATA is a file of another kind."""
    return DataError(f"{path} is neither a folder, a .tar nor a .csv: DATA must be {LAYOUTS}.", code="unknown-kind")


def no_labels(data: str, example: str) -> DataError:
    """There are photos, and nothing says what they show."""
    return DataError(
        f"Nothing in {data} says which class a photo belongs to ({example}, for example): put the photos into one "
        "folder per class, or name them like cat.0.jpg, or list them in a CSV of path,label.",
        code="no-labels",
    )


def empty_class(data: str, name: str) -> DataError:
    """The folder `name` in `data`, of a class or a split, has no photos."""
    return DataError(
        f"The folder {name} in {data} holds no photos: put at least two there, or remove the folder.",
        code="empty-class",
    )


def one_class(data: str, name: str) -> DataError:
    """Only one class is there."""
    return DataError(
        f"{data} holds one class only ({name}), and telling classes apart takes two or more: "
        "add a folder of photos for a second class.",
        code="one-class",
    )


def long_class(data: str, name: str, most: int) -> DataError:
    """A class has a name that no folder could have, and no table could show."""
    return DataError(
        f"A class of {data} has a name of {len(name):,} characters ({name[:40]!r}...), and {most} are the most: "
        "give it a shorter one.",
        code="long-class",
    )


def too_many_classes(data: str, count: int, most: int) -> DataError:
    """More classes than a model file can name."""
    return DataError(
        f"{data} has {count:,} classes, and a model file has room for {most:,} with short names: "
        "put classes together, or give them shorter names.",
        code="too-many-classes",
    )


def reserved_class(data: str, name: str, reserved: Sequence[str]) -> DataError:
    """A class is called like an answer or a decision that names no class."""
    return DataError(
        f"A class of {data} is called {name!r}, which in answers and decisions means something else: "
        f"expected any name but {', '.join(reserved)}; rename the class.",
        code="reserved-class",
    )


def too_few(data: str, name: str, count: int) -> DataError:
    """Class `name` has `count` photos to learn from, fewer than two."""
    photos = "no photo" if count == 0 else "one photo"
    return DataError(
        f"Class {name} has {photos} to learn from in {data}, and at least two are needed: "
        "add photos, or remove the class.",
        code="too-few",
    )


def too_few_for_folds(data: str, name: str, count: int, folds: int) -> DataError:
    """Class `name` has `count` different photos, fewer than there are parts in a cross-validation."""
    return DataError(
        f"Class {name} has {count:,} different photos in {data}, and a check in {folds} folds needs one for each: "
        "add photos, or choose fewer --folds.",
        code="too-few",
    )


def unknown_class(data: str, split: str, name: str, classes: Sequence[str]) -> DataError:
    """A class of `split` ("": none) that train lacks."""
    photos = f"The {split} photos" if split else "The photos"
    return DataError(
        f"{photos} of {data} have the class {name}, which train lacks ({_some(classes)}): "
        f"rename or remove it, or add it to train.{did_you_mean(name, classes)}",
        code="unknown-class",
    )


def mixed_splits(data: str, splits: Sequence[str], others: Sequence[str]) -> DataError:
    """Split folders with class folders beside them."""
    return DataError(
        f"{data} has the split folders {_some(splits)} and beside them {_some(others)}, which is no split: "
        "move it elsewhere, or into one of them.",
        code="mixed-splits",
    )


def no_training_photos(data: str) -> DataError:
    """There are splits, and none is for training."""
    return DataError(f"{data} has no training photos: add a train folder beside the others.", code="no-train")


# archives


def compressed(path: str) -> DataError:
    """An archive compressed in a way that Python's standard library does not read as a stream."""
    return DataError(
        f"{path} is compressed otherwise than .tar.gz, .tar.bz2 and .tar.xz, which can be read: "
        f"unpack it first with {'unzip' if path.lower().endswith('.zip') else 'tar -xf'} {shlex.quote(path)} "
        "and name the folder.",
        code="compressed",
    )


def bad_tar(path: object, why: str) -> DataError:
    """An archive that is cut off, damaged, or no tar at all."""
    return DataError(f"{path} is no whole tar archive ({why}): copy or download it again.", code="bad-tar")


# tables


def bad_csv(path: object, why: str) -> DataError:
    """A CSV, or one of its lines, that cannot be used."""
    return DataError(
        f"{path} cannot be used ({why}): expected the columns path and label, and split if you like, "
        "with paths that count from the folder of the CSV.",
        code="bad-csv",
    )


def csv_missing_file(path: object, line: int, file: str, more: int) -> DataError:
    """A row names a file that is not there; `more` other rows do the same."""
    others = f" (nor do those of {more:,} more lines)" if more else ""
    return DataError(
        f"{path}, line {line}: {file} does not exist{others}; paths count from the folder of the CSV.", code="bad-csv"
    )


def csv_split(path: object, line: int, value: str) -> DataError:
    """A split that is none."""
    known = ("train", "val", "test")
    return DataError(
        f"{path}, line {line}: {value} is no split; expected train, val or test.{did_you_mean(value, known)}",
        code="bad-csv",
    )


def webdataset_label(name: str) -> DataError:
    """A photo of a WebDataset shard whose .cls is missing or empty."""
    return DataError(
        f"{name} has no class: its archive labels photos by .cls files, and the one of this photo is missing or "
        "empty; add it, holding a class name or number.",
        code="no-labels",
    )


def unreadable_label(name: str, reason: str) -> DataError:
    """A .cls file whose bytes cannot be had; `reason` is the sentence of errors/images.py about it."""
    return DataError(f"{name}: {reason}.", code="unreadable")


# splits


def bad_split(text: str) -> UsageError:
    """--split cannot be understood."""
    return UsageError(
        f"--split {text} is not understood: expected three whole percentages for train/val/test that sum to 100, "
        "train above 0, such as 80/10/10.",
        code="bad-split",
    )


def split_given_twice(data: str) -> UsageError:
    """--split although DATA has splits of its own."""
    return UsageError(
        f"{data} has its own train/val/test, so --split cannot apply: leave --split out, or name one of the folders.",
        code="bad-split",
    )


def damaged_split(path: object, why: str) -> DataError:
    """A split.csv that cannot be used."""
    return DataError(
        f"{path} is damaged ({why}): expected the columns path, class, split, sha256 as train wrote them; "
        "restore it or train again.",
        code="bad-split",
    )


def bad_photos(data: str, bad: Sequence[tuple[str, str]], total: int, command: str) -> DataError:
    """`bad` (name, reason) of `total` photos cannot be read; `command` goes on without them."""
    count = f"{len(bad):,} of {total:,} photos" if len(bad) != 1 else f"1 of {total:,} photos"
    listed = "\n".join(f"  {_one_line(name)}: {reason}" for name, reason in bad)
    return DataError(
        f"{count} in {data} cannot be read:\n{listed}\nMend or remove them, or leave them out with: {command}",
        code="bad-photos",
    )


# decisions


_DECISIONS = "path, sha256, class, reason, suggested, decision, as check writes them"


def decisions_missing(path: object) -> DataError:
    """`--decisions` names no file."""
    return DataError(f"There is no {path}; --decisions takes a CSV with the columns {_DECISIONS}.", code="no-decisions")


def bad_decisions(path: object, why: str) -> DataError:
    """A decisions file that cannot be used."""
    return DataError(f"{path} cannot be used ({why}): expected the columns {_DECISIONS}.", code="bad-decisions")


def unknown_decision(where: str, decision: str, known: Sequence[str]) -> DataError:
    """A decision that is neither keep nor drop nor a class of DATA; `known` are all of these."""
    return DataError(
        f"{where}: the decision {decision!r} is neither keep, drop nor a class ({_some(known[2:])}); "
        f"correct it, or leave it empty.{did_you_mean(decision, known)}",
        code="unknown-decision",
    )


def decided_twice(path: str, first: str, where: str, second: str, again: str) -> DataError:
    """Two rows decide differently about one photo."""
    return DataError(
        f"{_one_line(path)} is decided twice, as {first!r} ({where}) and as {second!r} ({again}): "
        "leave one of the two.",
        code="decided-twice",
    )


def no_decision_matches(files: str, rows: int, data: str) -> DataError:
    """No row of the decisions is about a photo of DATA."""
    return DataError(
        f"None of the {rows:,} rows of {files} matches a photo of {data}: rows are matched by path and SHA-256, "
        "so name DATA as check was given it, with its files as they were then.",
        code="no-decisions",
    )


# downloads


def unknown_set(name: str, known: Sequence[str]) -> UsageError:
    """`download` knows no such name."""
    return UsageError(
        f"There is no data set {name} to download: the catalogue has {_some(known)}.{did_you_mean(name, known)}",
        code="unknown-set",
    )


def no_answer(url: str, why: str, command: str) -> Error:
    """The network, the server or the connection failed."""
    return DataError(
        f"{url} could not be fetched ({why}): check the network, then type {command} again; "
        "what has arrived is kept and continued.",
        code="network",
    )


def refused(url: str, status: int, reason: str) -> DataError:
    """The server answered with an error."""
    return DataError(
        f"{url} was refused by its server ({status} {reason}): the file may have moved; "
        "download it with a browser, unpack it and name its folder as DATA.",
        code="network",
    )


def wrong_hash(url: str, expected: str, found: str) -> DataError:
    """The bytes are not the known ones."""
    return DataError(
        f"{url} delivered other bytes than expected (SHA-256 {found[:16]}... instead of {expected[:16]}...): "
        "they were removed; try again, and if it happens twice, do not use this source.",
        code="wrong-hash",
    )


def bad_zip(path: str, why: str) -> DataError:
    """An archive that cannot be unpacked safely."""
    return DataError(f"{path} cannot be unpacked ({why}): remove it and type the same command again.", code="bad-zip")


def occupied(folder: str) -> DiskError:
    """The target folder holds something else."""
    return DiskError(f"{folder} exists and is not empty: name a new folder.", code="occupied")


def _one_line(name: str) -> str:
    return name.replace("\n", "\\n").replace("\r", "\\r")


def _some(names: Iterable[str], shown: int = 5) -> str:
    every = list(names)
    return ", ".join(every[:shown]) + (f" and {len(every) - shown:,} more" if len(every) > shown else "")


def links_outside(links: Sequence[str]) -> str:
    """What is told of links that lead out of DATA."""
    return (
        f"Links that lead out of DATA: {len(links):,}, the first of them {links[0]}. They are followed; what they lead "
        "to does not travel with the folder."
    )
