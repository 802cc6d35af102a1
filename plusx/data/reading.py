"""Photos behind URLs become photos in local files, right before they are read: decoding knows nothing else."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from plusx.data import remote, shards
from plusx.data.ahead import Ahead
from plusx.errors import DataError
from plusx.errors import remote as sentences
from plusx.images.source import Source
from plusx.images.source import read as read_local

Answer = TypeVar("Answer")
Answers = Callable[[Iterable[Source]], Iterator[tuple[int, Answer]]]


def through(answers: Answers[Answer], sources: Iterable[Source]) -> Iterator[tuple[int, Answer]]:
    """What `answers` (a DecodePool's `map` or `survey`) says of photos, wherever they lie.

    Archives are fetched in the order of the photos, one ahead of the one that is read, and let go after the last photo
    in each was answered. Raises as `remote.local` does; an address where nothing is goes on, and is a bad photo.
    """
    listed = list(sources)
    return _through(answers, listed) if any(remote.is_url(s.file) for s in listed) else answers(listed)


def read(source: Source, at_most: int | None = None) -> bytes:
    """The bytes of one photo, or the first `at_most` of them; of an archive no more is asked for.

    Raises Undecodable, and as `remote.local` does.
    """
    if not remote.is_url(source.file):
        return read_local(source, at_most)
    wanted = source.length if at_most is None else min(source.length, at_most)
    if source.length >= 0 and not shards.is_packed(source.file):
        return remote.part(source.file, source.offset, wanted)
    ahead = Ahead()
    try:
        return read_local(_local(ahead, source), at_most)
    finally:
        ahead.close()


def _through(answers: Answers[Answer], sources: Sequence[Source]) -> Iterator[tuple[int, Answer]]:
    left = Counter(source.file for source in sources if remote.is_url(source.file))
    order = list(left)
    following = dict(itertools.pairwise(order))
    ahead = Ahead()

    def local(source: Source) -> Source:
        if source.file not in left:
            return source
        found = _local(ahead, source)
        if source.file in following and not shards.is_open(following[source.file]):
            ahead.want([following.pop(source.file)])
        return found

    try:
        for i, answer in answers(map(local, sources)):
            yield i, answer
            file = sources[i].file
            left[file] -= 1
            if left[file] == 0:
                ahead.let_go(file)
    finally:
        ahead.close()


def _local(ahead: Ahead, source: Source) -> Source:
    try:
        return replace(source, file=str(ahead.path(source.file)))
    except DataError as error:
        if error.code != sentences.MISSING:
            raise
        return source  # which is no path either: reading it says so
