"""Sentences about photos behind URLs: what a server refuses, what a network loses, what the cache cannot hold."""

from __future__ import annotations

from pathlib import Path

from plusx.errors import DataError, DiskError

_EXTRAS = {"s3": "plusx[s3]", "s3a": "plusx[s3]"}
MISSING, NETWORK = "missing-url", "no-network"  # codes of what is not there, and of what may be there again


def unknown_scheme(url: str, scheme: str) -> DataError:
    """No file system of fsspec answers to what stands before the "://"."""
    return DataError(
        f"{url} begins with {scheme}://, which is no kind of address that fsspec knows: check it; "
        "s3://bucket/name.tar was expected, for example.",
        code="unknown-scheme",
    )


def not_installed(url: str, scheme: str, why: str) -> DataError:
    """The package that speaks a protocol is missing."""
    extra = _EXTRAS.get(scheme)
    do = f"install it with: pip install '{extra}'" if extra else "install the package that it names"
    return DataError(f"{url} cannot be opened since a package is missing ({_short(why)}): {do}.", code="not-installed")


def missing(url: str) -> DataError:
    """The server knows no such object or bucket."""
    where = "address" if url.startswith(("http", "file")) else "bucket, name and endpoint"
    amazon = " (AWS_ENDPOINT_URL, where it is not Amazon's own)" if url.startswith("s3") else ""
    return DataError(
        f"{url} does not exist, or the server does not say so to you: check {where}{amazon}.", code=MISSING
    )


def nothing_matches(url: str) -> DataError:
    """A pattern, or a folder, without an object."""
    return DataError(
        f"Nothing matches {url}: check the address; tar archives were expected there, as `plusx shard` writes them.",
        code=MISSING,
    )


def no_archives(url: str) -> DataError:
    """A folder behind a URL that holds objects, and no tar among them."""
    return DataError(
        f"{url} holds no tar archive, and behind a URL photos are read from archives, not one by one: "
        "pack them into .tar files with one folder per class, and put those there.",
        code="no-archives",
    )


def no_access(url: str, why: str) -> DataError:
    """403, or credentials that the server does not take."""
    return DataError(
        f"{url} may not be read ({_short(why)}): check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "or AWS_PROFILE) and the rights on the bucket; of a public one, set FSSPEC_S3_ANON=true.",
        code="no-access",
    )


def refused(url: str, why: str) -> DataError:
    """The server, or the library that speaks to it, says something that asking again would not change."""
    return DataError(f"{url} cannot be read ({_short(why)}): check the address and the endpoint.", code="refused-url")


def lost(url: str, why: str, seconds: float) -> DataError:
    """The network failed for longer than is waited."""
    return DataError(
        f"{url} could not be read for {seconds:.0f} seconds ({_short(why)}): check the network and the server, "
        "then run the same command again.",
        code=NETWORK,
    )


def resumable(error: DataError, command: str) -> DataError:
    """The network was lost for too long in the middle of a run; `command` goes on with it."""
    told = error.message.replace("then run the same command again.", f"then go on with: {command}")
    return DataError(told, code=error.code)


def waiting(url: str, why: str, seconds: float) -> str:
    """The network failed and is asked again; a notice."""
    return f"{url} cannot be read at the moment ({_short(why)}): it is tried again for up to {seconds:.0f} seconds."


def changed(url: str) -> DataError:
    """The object was replaced while a command read it."""
    return DataError(
        f"{url} was changed while this command was reading it, so its photos are no longer those that were listed: "
        "put it back as it was, or run the command again once nobody writes there.",
        code="changed-url",
    )


def wrong_bytes(url: str, expected: str, found: str) -> DataError:
    """Fetched twice, with another SHA-256 than was recorded each time."""
    return DataError(
        f"{url} does not hold what was recorded of it: its SHA-256 is {found[:16]}..., and {expected[:16]}... was "
        "expected; it was fetched twice. Upload it again, or make its index anew.",
        code="wrong-bytes",
    )


def unknown_size(url: str) -> DataError:
    """A server that does not tell how long an object is."""
    return DataError(
        f"{url} cannot be read: its server does not say how many bytes it has; download it and name the file.",
        code="unknown-size",
    )


def no_ranges(url: str, asked: int, came: int) -> DataError:
    """A server that sends the whole object where a part was asked for."""
    return DataError(
        f"{url} cannot be read in parts: {asked:,} bytes of it were asked for and {came:,} came: its server knows no "
        "ranges; put the file on a server that does (S3 and most web servers), or download it and name the file.",
        code="no-ranges",
    )


def too_large(url: str, size: int, limit: int) -> DataError:
    """One object outgrows all that the cache may hold, in bytes."""
    return DataError(
        f"{url} has {_gb(size)}, and the cache may hold {_gb(limit)}: set PLUSX_CACHE_GB to more, "
        "or pack the photos into smaller archives.",
        code="archive-too-large",
    )


def no_room(url: str, folder: Path, limit: int) -> DiskError:
    """The disk is full, or the rest of the cache is in use; `limit` is the cache's, in bytes."""
    return DiskError(
        f"{url} cannot be fetched: there is no room left in {folder}, on its disk or within its {_gb(limit)}; "
        "free some space, wait for other runs to end, set XDG_CACHE_HOME to another disk or PLUSX_CACHE_GB to more.",
        code="no-room",
    )


def cannot_write(url: str, folder: Path, why: str) -> DiskError:
    """The operating system refuses to keep what was fetched."""
    return DiskError(
        f"{url} cannot be kept in {folder} ({why}): set XDG_CACHE_HOME to a folder that can be written.",
        code="cannot-fetch",
    )


def _short(why: str) -> str:
    text = " ".join(why.split()).rstrip(".")
    return text[:200] or "it said nothing"


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
