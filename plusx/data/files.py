"""Files by name, on disk, inside tars and behind URLs: what every layout is made of."""

# ruff: noqa: PTH100, PTH110, PTH112, PTH113, PTH118, PTH120, PTH122, PTH207
# Paths are text by os.fsdecode here, as Source holds them.

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from plusx.data import remote, shards
from plusx.data.tar import Member, members
from plusx.data.unpacked import let_go, plain
from plusx.errors import DataError
from plusx.errors import data as sentences
from plusx.errors import remote as remote_errors
from plusx.images.source import Source

PACKED = (".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
REFUSED = (".tar.zst", ".tzst", ".zip")
PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".heic", ".heif"}
    | {".avif", ".jp2", ".jxl"}  # not read by plusx: better named as unreadable than passed over
)
SPLITS = {
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"val": "val", "valid": "val", "validation": "val"},
}
KAGGLE = re.compile(r"(?P<label>[^.]+)\.\d+\.\w+")  # flat names such as cat.0.jpg
UNREADABLE = "unreadable"
_BAD_ARCHIVE = frozenset({"bad-tar", "bad-archive", "compressed", "archive-too-large", remote_errors.MISSING})
JUNK_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini"})

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class File:
    """A file: `name` as shown to the user, `parts` of its path inside DATA, and where its bytes are."""

    name: str
    parts: Parts
    source: Source


@dataclass
class Files:
    """Every file of DATA in sorted order, its folders, and the names that were not looked into.

    `outside` are links, to files or folders, that lead out of the folder they were found in; they are followed.
    `unread` holds archives and folders that cannot be read; they are listed there only if `lenient`,
    else they raise, as do archives that the operating system refuses and that were `seen` before. With `closed`
    no archive is looked into, and all are listed there.
    """

    lenient: bool = False
    seen: bool = False
    closed: bool = False
    files: list[File] = field(default_factory=list)
    folders: list[Parts] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    unread: list[File] = field(default_factory=list)


def is_glob(path: str) -> bool:
    """Whether a path is a pattern, and not the name of something that exists."""
    return glob.has_magic(path) and not os.path.lexists(path)


def is_tar(path: str) -> bool:
    """Whether a path is called a tar archive, plain or compressed."""
    return path.lower().endswith((".tar", *PACKED))


def is_junk(part: str) -> bool:
    """Whether a file or folder name is one that operating systems and editors leave behind."""
    return part.startswith(".") or part.lower() in JUNK_NAMES


def list_files(roots: Sequence[str]) -> Files:
    """Every file of the given folders, tars, globs, files and URLs of such. Raises DataError for what is missing.

    Names are relative to the folder, or to what several paths have in common; what is behind a URL is named by it.
    """
    found = Files()
    paths = [path for given in roots if not remote.is_url(given) for path in expanded(given)]
    _add_urls(found, [root for root in roots if remote.is_url(root)])
    if len(paths) == 1 and os.path.isdir(paths[0]):
        add_folder(found, paths[0], (), ())
    elif paths:
        top = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
        for path in paths:
            _add_one_of_several(found, path, _split_path(os.path.relpath(path, top)))
    found.files.sort(key=lambda file: file.name)
    return found


def expanded(path: str) -> list[str]:
    """The paths a pattern matches, sorted, or the path itself. Raises DataError where there is none."""
    if is_glob(path):
        matches = sorted(glob.glob(path, recursive=True))
        if not matches:
            raise sentences.nothing_matches(path)
        return matches
    if not os.path.lexists(path):
        raise sentences.missing(path)
    return [path]


def add_folder(found: Files, root: str, shown: Parts, parts: Parts) -> None:
    """Add everything below `root`; names start with `shown`, parts with `parts`. Archives count as what is in them.

    Compressed ones do where they have no photos beside them: else they are taken for what those were unpacked from.
    """
    start, packed, top = len(found.files), list[tuple[str, Parts, Parts]](), os.path.realpath(root)
    stack: list[tuple[str, Parts, Parts, Parts]] = [(root, shown, parts, (top,))]
    while stack:
        folder, shown, parts, chain = stack.pop()
        for entry in _entries(found, folder, shown):
            name, inside = (*shown, entry.name), (*parts, entry.name)
            if entry.is_symlink() and not is_junk(entry.name):
                _note_if_outside(found, entry.path, name, top)
            if is_junk(entry.name) or _is_special(entry):
                found.left_out.append("/".join(name))
            elif entry.name.lower().endswith(PACKED) and not _is_folder(entry):
                packed.append((entry.path, name, inside))
            elif not _is_folder(entry):
                _add_file(found, entry.path, name, inside)
            elif (real := _real_path(entry, chain[-1])) in chain:  # a link back to a folder we are in
                found.left_out.append("/".join(name))
            else:
                found.folders.append(inside)
                stack.append((entry.path, name, inside, (*chain, real)))
    beside = any(file.source.length < 0 and _is_called_photo(file) for file in found.files[start:])
    for path, name, inside in packed:
        if beside:
            found.left_out.append("/".join(name))
        else:
            add_tar(found, path, name, inside[:-1])


def add_tar(found: Files, path: str, shown: Parts, outer: Parts) -> None:
    """Add the members of a tar that lies in the folders `outer` of DATA."""
    name = "/".join(shown)
    unread = File(name, (*outer, shown[-1]), Source(path))
    if found.closed:
        found.unread.append(unread)
        return
    try:
        tar, inside, hashes = _inside(path)
    except DataError as error:
        if not found.lenient or error.code not in (_BAD_ARCHIVE if found.seen else {*_BAD_ARCHIVE, UNREADABLE}):
            raise
        found.unread.append(unread)
        return
    found.folders[:] = [folder for folder in found.folders if folder != outer[: len(folder)]]  # they hold photos
    splits = tuple(part for part in outer if part.lower() in SPLITS)
    for member in inside:
        parts = _split_path(member.name)
        # What is sorted into folders within the archive is labelled there: then the folders around it only split.
        file = File(
            f"{name}!/{'/'.join(parts)}",
            ((*splits, *parts) if len(parts) > 1 else (*outer, *parts)),
            Source(tar, member.offset, member.length, hashes.get(member.offset, "")),
        )
        found.files.append(file)


def _add_url(found: Files, url: str, parts: Parts) -> None:
    """Add the archive or the file behind `url`, which lies at `parts` of DATA."""
    if remote.is_archive(url):
        add_tar(found, url, (url,), parts[:-1])
    elif url.lower().endswith(REFUSED):
        raise sentences.compressed(url)
    else:
        found.files.append(File(url, parts, Source(url)))


def _add_urls(found: Files, roots: Sequence[str]) -> None:
    """What lies behind URLs; their places in DATA are those in a folder that was named, or in what all share."""
    urls = [(url, root) for root in roots for url in remote.expanded(root)]
    folders = ["/".join(_split_path(url)[:-1]) for url, _ in urls]
    shared = _split_path(os.path.commonpath(folders)) if folders else ()
    for url, root in urls:
        inside = root.rstrip("/") + "/"
        parts = _split_path(url.removeprefix(inside)) if url.startswith(inside) else _split_path(url)[len(shared) :]
        _add_url(found, url, parts)


def _inside(path: str) -> tuple[str, Iterable[Member], Mapping[int, str]]:
    """The file that is read for the members of an archive, these, and what is known of their SHA-256 by offset.

    Of one behind a URL, the URL.
    """
    if remote.is_url(path):
        listing = shards.listing(path)
        return path, listing.members, listing.hashes
    tar = plain(Path(path))
    try:
        return str(tar), members(tar, path), {}
    except DataError:
        if tar != Path(path):
            let_go(tar)  # nobody is going to read in it
        raise


def _add_one_of_several(found: Files, path: str, relative: Parts) -> None:
    if os.path.isdir(path):
        keeps_name = relative[-1].lower() in SPLITS or not _has_folders(found, path)  # such as photos/cat of photos/*
        start = len(found.files)
        add_folder(found, path, relative, relative[-1:] if keeps_name else ())
        found.files[start:] = _labelled_by_name(found.files[start:])
    elif path.lower().endswith(REFUSED):
        raise sentences.compressed(path)
    else:
        _add_file(found, path, relative, relative)


def _labelled_by_name(files: list[File]) -> list[File]:
    """Where all of a folder's files are flat names such as cat.0.jpg, each in a folder of its label: cat/cat.0.jpg."""
    matches = [KAGGLE.fullmatch(file.parts[-1]) if len(file.parts) <= 2 else None for file in files]
    if not all(matches):
        return files
    return [replace(file, parts=(m["label"], file.parts[-1])) for file, m in zip(files, matches, strict=True) if m]


def _add_file(found: Files, path: str, name: Parts, parts: Parts) -> None:
    if is_tar(path):
        add_tar(found, path, name, parts[:-1])
    elif path.lower().endswith(REFUSED):
        found.left_out.append("/".join(name))
    else:
        found.files.append(File("/".join(name), parts, Source(path)))


def _is_called_photo(file: File) -> bool:
    return os.path.splitext(file.parts[-1])[1].lower() in PHOTO_SUFFIXES


def _entries(found: Files, folder: str, shown: Parts) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if not found.lenient:
            raise sentences.unreadable(folder, error) from None
        found.unread.append(File("/".join(shown), shown, Source(folder)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # DirEntry.is_dir raises for a link to itself; os.path.isdir says no.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Pipes, sockets and devices; a link to nothing is a photo that cannot be read, and is named as such later."""
    if entry.is_symlink():
        return os.path.exists(entry.path) and not (os.path.isdir(entry.path) or os.path.isfile(entry.path))
    return not (entry.is_dir() or entry.is_file())


def _note_if_outside(found: Files, link: str, name: Parts, top: str) -> None:
    real = os.path.realpath(link)
    if real != top and not real.startswith(top.rstrip("/") + "/"):
        found.outside.append("/".join(name))


def _real_path(entry: os.DirEntry[str], parent: str) -> str:
    return os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(parent, entry.name)


def _has_folders(found: Files, path: str) -> bool:
    return any(_is_folder(entry) and not is_junk(entry.name) for entry in _entries(found, path, ()))


def _split_path(path: str) -> Parts:
    return tuple(part for part in path.split("/") if part not in ("", "."))
