"""Photos behind URLs become photos in local files, right before they are read: decoding knows nothing else."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TypeVar

from plusx.data import remote, shards
from plusx.data.ahead import Ahead
from plusx.errors import DataError
from plusx.errors import remote as sentences
from plusx.images.source import Source
from plusx.images.source import read as read_local

FEW, MUCH = 4, 8  # photos that are asked for one by one, of an archive so many times as large

Answer = TypeVar("Answer")
Answers = Callable[[Iterable[Source]], Iterator[tuple[int, Answer]]]
Waiting = Callable[[], AbstractContextManager[None]]


def through(
    answers: Answers[Answer], sources: Iterable[Source], waiting: Waiting = nullcontext
) -> Iterator[tuple[int, Answer]]:
    """What `answers` (a DecodePool's `map` or `survey`) says of photos by position, in any order, wherever they lie.

    One archive after the other is fetched, one ahead of the one that is read, and let go after its last photo: however
    photos are strewn over archives, few are at hand at a time. `waiting` is entered while the network is waited for.
    Raises as `remote.local` does; an address where nothing is goes on, and is a bad photo.
    """
    listed = list(sources)
    return _through(answers, listed, waiting) if any(remote.is_url(s.file) for s in listed) else answers(listed)


def read(source: Source, at_most: int | None = None) -> bytes:
    """The bytes of one photo, or the first `at_most` of them; of an archive no more is asked for.

    Raises Undecodable, and as `remote.local` does.
    """
    if not remote.is_url(source.file):
        return read_local(source, at_most)
    wanted = source.length if at_most is None else min(source.length, at_most)
    if source.length >= 0 and not shards.is_packed(source.file):
        return _asked_for(source, wanted)
    ahead = Ahead()
    try:
        return read_local(_local(ahead, source), at_most)
    finally:
        ahead.close()


def _asked_for(source: Source, wanted: int) -> bytes:
    """The first bytes of a photo in an archive, of which no more is asked for."""
    data = shards.part(source.file, source.offset, wanted)
    if wanted == source.length:
        source.refuse_other(data)
    return data


def _through(answers: Answers[Answer], sources: Sequence[Source], waiting: Waiting) -> Iterator[tuple[int, Answer]]:
    with waiting():
        at_hand = _AtHand(sources)
    turn = {file: number for number, file in enumerate(at_hand.left)}
    places = sorted(range(len(sources)), key=lambda place: turn.get(sources[place].file, -1))
    try:
        for i, answer in answers(_each(at_hand, (sources[place] for place in places), waiting)):
            yield places[i], answer
            at_hand.answered(sources[places[i]])
    finally:
        at_hand.close()


def _each(at_hand: _AtHand, sources: Iterable[Source], waiting: Waiting) -> Iterator[Source]:
    for source in sources:
        with waiting():
            found = at_hand.local(source)
        yield found


class _AtHand:
    """The archives of some photos while these are read; of one with FEW of them, only the photos."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.left = Counter(source.file for source in sources if remote.is_url(source.file))
        wanted: Counter[str] = Counter()
        for source in sources:
            wanted[source.file] += max(0, source.length)
        self._few = {file for file, count in self.left.items() if count <= FEW and _is_little(file, wanted[file])}
        self._following = dict(itertools.pairwise(file for file in self.left if file not in self._few))
        self._ahead, self._dealt = Ahead(), Counter[str]()

    def local(self, source: Source) -> Source:
        """The same photo in a local file."""
        if source.file not in self.left:
            return source
        if source.file in self._few:
            return self._alone(source)
        found = _local(self._ahead, source)
        following = self._following.pop(source.file, None)
        if following is not None and not shards.is_open(following):
            self._ahead.want([following])
        return found

    def answered(self, source: Source) -> None:
        """The photo is needed no more."""
        if source.file in self._few:
            name = remote.part_name(source.file, source.offset, source.length)
            self._dealt[name] -= 1
            if self._dealt[name] == 0:
                remote.let_go(name)
        self.left[source.file] -= 1
        if self.left[source.file] == 0:
            self._ahead.let_go(source.file)

    def close(self) -> None:
        """Let go of everything, dealt and not answered."""
        for name in +self._dealt:
            remote.let_go(name)
        self._ahead.close()

    def _alone(self, source: Source) -> Source:
        """A photo as a file of its own."""
        sha256 = source.sha256 or None
        self._dealt[remote.part_name(source.file, source.offset, source.length)] += 1
        path = remote.local_part(source.file, source.offset, source.length, sha256)
        return Source(str(path), sha256=source.sha256)


def _is_little(url: str, wanted: int) -> bool:
    """Whether so many bytes of an archive are better asked for alone: it is plain, much larger, and not at hand."""
    if shards.is_open(url):
        return False
    try:
        return 0 < wanted * MUCH < remote.seen(url).size and not (shards.is_here(url) or shards.is_packed(url))
    except DataError as error:
        if error.code != sentences.MISSING:
            raise
        return False


def _local(ahead: Ahead, source: Source) -> Source:
    try:
        return replace(source, file=str(ahead.path(source.file)))
    except DataError as error:
        if error.code != sentences.MISSING:
            raise
        return source  # which is no path either: reading it says so
