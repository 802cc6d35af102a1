"""Objects behind URLs: what a server says of them, and their bytes, asked for again where the network fails a while.

fsspec speaks to the server (s3fs for s3://). Its own retries are turned off, so that the waiting is ours: bounded,
with growing pauses, and told. What asking again would not change (403, 404, no credentials) is refused at once.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from plusx.errors import DataError
from plusx.errors import remote as sentences

PIECE = 8 << 20  # bytes that are asked for at once; after a failure half as many, down to SMALLEST
SMALLEST = 256 << 10
_SMALL_PIECES = 4  # that have to come before larger ones are asked for again
_FINAL = frozenset({errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENAMETOOLONG, getattr(errno, "EREMCHG", -1)})
_PASSING = frozenset({
    "ConnectionError", "HTTPClientError", "ResponseParserError", "IncompleteReadError", "IncompleteRead",
    "ClientPayloadError", "ClientConnectionError", "ServerDisconnectedError", "TimeoutError", "FSTimeoutError",
})  # fmt: skip  # by name: the packages that define them may not be there
_NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"})
_MUST_WAIT = frozenset({408, 425, 429})

_UNTOLD = 1.0  # seconds of waiting that nobody is told of

_log = logging.getLogger("plusx")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Patience:
    """How long a network may fail, all in seconds: in all since the last bytes came, and from one try to the next.

    `silence` is what one request may take, `listing` a list of all objects in a folder.
    """

    seconds: float = 120.0
    first: float = 0.25
    longest: float = 15.0
    silence: float = 30.0
    listing: float = 300.0


PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server says of an object: its bytes, and what changes with them (ETag or time); "" where nothing does."""

    size: int
    stamp: str


def seen(url: str) -> Seen:
    """What the server says of the object at `url`. Raises DataError where it is none."""
    info = _patiently(url, lambda: _call(url, "info", PATIENCE.silence))
    if info.get("type") == "directory":
        raise sentences.missing(url)
    return _seen(url, info)


def is_folder(url: str) -> bool:
    """Whether objects lie below `url`, and none at it. Raises DataError where nothing is there."""
    info = _patiently(url, lambda: _call(url, "info", PATIENCE.silence))
    return bool(info.get("type") == "directory")


def below(url: str) -> dict[str, Seen]:
    """Every object in the folder `url` and the folders in it, by its URL, which begins as `url` does."""
    _, root = _system(url)
    return _listed(url, "find", lambda path: url.rstrip("/") + path.removeprefix(root.rstrip("/")))


def matching(pattern: str) -> dict[str, Seen]:
    """Every object whose URL matches a pattern with * ? [ ] or **, by its URL."""
    system, _ = _system(pattern)
    return _listed(pattern, "glob", system.unstrip_protocol)


def pieces(url: str, end: int, start: int = 0) -> Iterator[bytes]:
    """The bytes of the object at `url` from `start` to `end`; a cut connection goes on behind the last whole piece.

    Raises DataError where nothing came for as long as PATIENCE says, and at once for what does not pass.
    """
    outage, at, length, good = _Outage(url), start, PIECE, 0
    while at < end:
        try:
            piece = _piece(url, at, min(at + length, end))
        except Exception as error:
            outage.wait(error)
            length, good = max(SMALLEST, length // 2), 0
            continue
        outage.over()
        at, good = at + len(piece), good + 1
        length = PIECE if good >= _SMALL_PIECES else length
        yield piece


def _piece(url: str, start: int, end: int) -> bytes:
    piece: bytes = _call(url, "cat_file", PATIENCE.silence, start=start, end=end)
    if len(piece) > end - start:
        raise sentences.no_ranges(url, end - start, len(piece))
    if len(piece) < end - start:
        raise ConnectionError(f"{len(piece):,} bytes came instead of {end - start:,}")
    return piece


class _Outage:
    """The time since a server last answered, and the growing pauses in it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.over()

    def over(self) -> None:
        """The server has answered."""
        self._began, self._pause, self._told = time.monotonic(), PATIENCE.first, False

    def wait(self, error: Exception) -> None:
        """Pause before the next try. Raises DataError where the error does not pass, or has not for too long."""
        if not _may_pass(error):
            raise _told(self._url, error) from error
        if time.monotonic() - self._began + self._pause > PATIENCE.seconds:
            raise sentences.lost(self._url, _words(error), PATIENCE.seconds) from error
        if not self._told and time.monotonic() - self._began > _UNTOLD:
            _log.warning(sentences.waiting(self._url, _words(error), PATIENCE.seconds))
            self._told = True
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, PATIENCE.longest)


def _patiently(url: str, attempt: Callable[[], Found]) -> Found:
    outage = _Outage(url)
    while True:
        try:
            return attempt()
        except DataError:
            raise
        except Exception as error:
            outage.wait(error)


def _listed(url: str, how: str, address: Callable[[str], str]) -> dict[str, Seen]:
    try:
        infos = _patiently(url, lambda: _call(url, how, PATIENCE.listing, detail=True))
    except DataError as error:
        if error.code != sentences.MISSING:
            raise
        infos = {}
    named = {address(str(path)): info for path, info in infos.items() if info.get("type") == "file"}
    return {name: _seen(name, info) for name, info in sorted(named.items())}


def _seen(url: str, info: dict[str, Any]) -> Seen:
    if not isinstance(info.get("size"), int):
        raise sentences.unknown_size(url)
    stamps = (info.get(key) for key in ("ETag", "etag", "md5Hash", "LastModified", "Last-Modified", "mtime", "created"))
    stamp = next((stamp for stamp in stamps if stamp), "")
    if isinstance(stamp, datetime):  # of one object; lists of them may say it in seconds
        stamp = stamp.timestamp()
    return Seen(info["size"], str(stamp).strip('"'))


def _call(url: str, name: str, seconds: float, **options: Any) -> Any:
    """One method of the file system behind `url`, ended after `seconds` where it can be (s3, gcs, az, http)."""
    from fsspec.asyn import sync

    system, path = _system(url)
    if system.async_impl:
        return sync(system.loop, getattr(system, f"_{name}"), path, timeout=seconds, **options)
    return getattr(system, name)(path, **options)


def _system(url: str) -> tuple[Any, str]:
    """The file system behind a URL, and what it calls the object. Raises DataError where there is none."""
    import fsspec

    scheme = url.split("://", 1)[0]
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise sentences.not_installed(url, scheme, str(error)) from error
    except ValueError:
        raise sentences.unknown_scheme(url, scheme) from None
    is_s3 = "s3" in (kind.protocol if isinstance(kind.protocol, tuple | list) else (kind.protocol,))
    system, path = fsspec.url_to_fs(url, use_listings_cache=False, **(_s3_options() if is_s3 else {}))
    if is_s3:
        system.retries = 1
    return system, str(path)


def _s3_options() -> dict[str, Any]:
    """One try of each request: its retries would be hidden in ours. What FSSPEC_S3 in the environment says stays."""
    from fsspec.config import conf

    ours = {"connect_timeout": min(10, PATIENCE.silence), "read_timeout": min(15, PATIENCE.silence)}
    said = conf.get("s3", {}).get("config_kwargs", {})
    return {"config_kwargs": {**ours, **said, "retries": {"total_max_attempts": 1}}}


def _may_pass(error: Exception) -> bool:
    """Whether asking again may help: the network, or a server that is busy, and nobody's mistake."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and status:
        return status >= 500 or status in _MUST_WAIT
    if isinstance(error.__cause__, Exception) and _may_pass(error.__cause__):  # fsspec calls many things "not found"
        return True
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    if isinstance(error, OSError):
        return error.errno not in _FINAL
    if isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError):
        return True  # a session that was closed under way: the next try has a new one
    return any(kind.__name__ in _PASSING for kind in type(error).__mro__)


def _told(url: str, error: Exception) -> DataError:
    """The sentence for what does not pass."""
    if isinstance(error, DataError):
        return error
    if isinstance(error, FileNotFoundError) or getattr(error, "status", None) in (404, 410):
        return sentences.missing(url)
    credentials = any(kind.__name__ in _NO_CREDENTIALS for kind in type(error).__mro__)
    if credentials or isinstance(error, PermissionError) or getattr(error, "status", None) in (401, 403):
        return sentences.no_access(url, _words(error))
    return sentences.refused(url, _words(error))


def _words(error: BaseException) -> str:
    """What an error says; its kind, where it says nothing."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return said or {"FSTimeoutError": "no answer", "TimeoutError": "no answer"}.get(type(error).__name__, repr(error))
