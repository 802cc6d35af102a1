"""Photos in archives that are mixed a window at a time: which archive each lies in, what has to fit, what it means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from plusx.config import Config
from plusx.data import remote
from plusx.data.cache import StreamingStore
from plusx.data.entries import cache_limit
from plusx.data.listing import IndexedPhotos
from plusx.data.source import Photo
from plusx.data.windows import NoSupply, Supply, Window
from plusx.errors import usage
from plusx.images.preprocess import Preprocess
from plusx.training.events import Notice
from plusx.verbs.labelled import LabelledPhotos, Pixels

ENOUGH = 0.05  # share of a class in a window off that of DATA by more: the archives are no random samples


def archives_of(photos: Sequence[Photo]) -> tuple[Window, list[str]]:
    """All archives as one window, numbered as they first appear, and their files or URLs; photos outside are one."""
    if isinstance(photos, IndexedPhotos):
        return _archives_of_shards(photos)
    files = [photo.source.file if photo.source.length >= 0 else "" for photo in photos]
    numbers = {file: number for number, file in enumerate(dict.fromkeys(files))}
    archives = np.array([numbers[file] for file in files], dtype=np.int64)
    return Window(archives, max(1, len(numbers))), list(numbers)


def _archives_of_shards(photos: IndexedPhotos) -> tuple[Window, list[str]]:
    """The same by the index of shards, without a look at each photo; numbered in its order."""
    found, first, archives = np.unique(photos.table.shard[photos.rows], return_index=True, return_inverse=True)
    files = [photos.file(int(photos.rows[row])) for row in first]
    return Window(archives.astype(np.int64), max(1, len(found))), files


def window_of(config: Config, photos: Sequence[Photo]) -> Window | None:
    """The window within which the training photos are mixed; None: all are."""
    return Window(archives_of(photos)[0].archives, config.window) if config.window else None


def supply_of(config: Config, pixels: Pixels, photos: Sequence[Photo], steps_per_epoch: int) -> Supply | NoSupply:
    """What has the archives at hand that are read in every epoch; photos that are decoded already need none."""
    if not isinstance(pixels.store, StreamingStore):
        return NoSupply()
    every, files = archives_of(photos)
    urls = [file if remote.is_url(file) else "" for file in files]
    window = Window(every.archives, config.window or every.size)
    return Supply(window, urls, config.seed, config.batch_size, steps_per_epoch) if any(urls) else NoSupply()


def refuse_small(config: Config, photos: LabelledPhotos, how: Preprocess) -> None:
    """Raise UsageError where photos behind URLs do not fit decoded, and two windows of their archives neither."""
    each, limit = how.crop**2 * 3, cache_limit()
    if len(photos.hashes) * each <= limit:
        return
    every, files = archives_of(photos.photos(photos.rows("train")))
    sizes = _sizes(files)
    validated = len(photos.rows("val")) * each
    beside, together = (0, int(sizes.sum())) if validated <= limit else _streamed(photos, files)

    def needed(size: int) -> int:
        return min(Window(every.archives, size).most(sizes, config.batch_size) + beside, together)

    room = limit - (validated if validated <= limit else 0)
    if needed(config.window or every.size) > room:
        fit = next((size for size in range(every.size, 0, -1) if needed(size) <= room), 0)
        raise usage.small_window(needed(config.window or every.size), fit)


def _streamed(photos: LabelledPhotos, trained: Sequence[str]) -> tuple[int, int]:
    """The most bytes that streamed validation has at hand beside training, and those of all archives of both.

    Those are two archives, one read and the next one fetched; the window may be elsewhere then.
    """
    validated = archives_of(photos.photos(photos.rows("val")))[1]
    every = dict.fromkeys([*trained, *validated])
    return int(np.sort(_sizes(validated))[-2:].sum()), int(_sizes(list(every)).sum())


def _sizes(files: Sequence[str]) -> npt.NDArray[np.int64]:
    """The bytes of archives, of those that are behind URLs."""
    return np.array([remote.seen(file).size for file in files if remote.is_url(file)], dtype=np.int64)


def told(config: Config, photos: LabelledPhotos, training: Pixels) -> Notice | None:
    """What a window means, and how far from DATA the windows of the first epoch are in the mix of classes."""
    window = window_of(config, photos.photos(training.rows))
    if window is None:
        return None
    off = deviation(window, photos.labels(training.rows), config.seed)
    meet = f"Photos meet within windows of {config.window:,} of {window.count:,} archives, not all of DATA"
    found = f"in those of the first epoch the share of a class is up to {100 * off:.1f} points off"
    advice = "; pack them anew in random order (`plusx shard`), for this spoils training" if off > ENOUGH else ""
    return Notice(f"{meet}; {found}{advice}.")


def deviation(window: Window, labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]], seed: int) -> float:
    """The most by which the share of a class in a window of the first epoch differs from that in all photos."""
    overall = np.bincount(labels) / max(1, len(labels))
    order, most = labels[window.order(seed, 0)], 0.0
    counts, start = np.bincount(window.archives, minlength=window.count), 0
    for group in window.groups(seed, 0):
        stop = start + int(counts[group].sum())
        shares = np.bincount(order[start:stop], minlength=len(overall)) / max(1, stop - start)
        most, start = max(most, float(np.abs(shares - overall).max())), stop
    return most
