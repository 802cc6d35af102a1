"""Whether a map can be believed: two tests that a picture pleasing to the eye may fail.

Randomised weights: a network that has learned nothing must give another map (Adebayo et al. 2018, arXiv 1810.03292,
sections 2 and 4). Deletion: covering what the map marks, most marked first, must lower the probability of the answer
faster than covering at random (Petsiuk et al. 2018, arXiv 1806.07421, section 3.3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from plusx import keyed
from plusx.classifier import Engine
from plusx.explain import windows
from plusx.explain.evidence import Explains

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]
Task = tuple[int | None, int]  # an order, or none for the whole photo and the wholly covered one; and a photo

CELLS = 8  # a photo is covered in 8 x 8 squares
LEVELS = 5  # a fifth of them at a time
BLUR = 0.1  # radius of what covers, as a share of the photo's side
RANDOM = 3  # random orders for each photo
COMPARED = 16  # maps are compared at 16 x 16 places
ALIKE = 0.5  # rank correlation with an untrained network's map from which a map says little of what was learned
BATCH = 32


@dataclass(frozen=True)
class Deletion:
    """Area under the probability of the answer while a photo is covered: by its map, most or least marked first, at
    random, and by the map of another photo; each [n]. `elsewhere` is None of a single photo."""

    marked: Floats
    least: Floats
    random: Floats
    elsewhere: Floats | None


@dataclass(frozen=True)
class Likeness:
    """How like the maps are to those of untrained networks, [n]: Spearman's rank correlation, and similarity."""

    rank: Floats
    similarity: Floats


@dataclass(frozen=True)
class Sanity:
    """Both tests of n photos; `likeness` is None where there is no network that could be untrained."""

    deletion: Deletion
    likeness: Likeness | None

    def warnings(self, place: int) -> list[str]:
        """What speaks against the map of one photo, in sentences; none where it passes both tests."""
        marked, random = self.deletion.marked[place], self.deletion.random[place]
        said = []
        if marked >= random:
            said.append(
                "covering what this map marks lowers the probability no faster than covering at random "
                f"(area {marked:.3f} against {random:.3f}): do not rely on it"
            )
        if self.likeness is not None and abs(self.likeness.rank[place]) >= ALIKE:
            said.append(
                "networks that have learned nothing give nearly the same map "
                f"(rank correlation {self.likeness.rank[place]:.2f}): do not rely on it"
            )
        return said


def sanity(
    explainer: Explains,
    pixels: Pixels,
    labels: Labels,
    maps: Floats,
    *,
    networks: int = 1,
    progress: Progress | None = None,
) -> Sanity:
    """Test maps [n, GRID, GRID] of preprocessed photos [n, S, S, 3] for `labels` [n], against untrained `networks`.

    Of an exported file, which holds no network to renew, only deletion is tested.
    """
    untrained = (explainer.randomised(number) for number in range(networks))
    others = [each.evidence(pixels, labels).maps for each in untrained if each is not None]
    return Sanity(deletion(explainer.engine, pixels, labels, maps, progress), _mean_likeness(maps, others))


def _mean_likeness(maps: Floats, others: Sequence[Floats]) -> Likeness | None:
    compared = [likeness(maps, other) for other in others]
    if not compared:
        return None
    return Likeness(np.mean([c.rank for c in compared], 0), np.mean([c.similarity for c in compared], 0))


def likeness(maps: Floats, others: Floats) -> Likeness:
    """Rank correlation and similarity of maps [n, h, w], photo by photo.

    Similarity is that of Wang et al. 2004 (SSIM, equation 13) with one window over the whole map, both maps stretched
    from 0 to 1.
    """
    from scipy.stats import rankdata

    rows = [windows.resized(m, COMPARED).reshape(len(m), -1) for m in (maps, others)]
    ranks = [rankdata(row, axis=1) for row in rows]
    return Likeness(_correlation(*ranks), _similarity(*map(_stretched, rows)))


def deletion(
    engine: Engine, pixels: Pixels, labels: Labels, maps: Floats, progress: Progress | None = None
) -> Deletion:
    """Cover photos [n, S, S, 3] square by square, in several orders, and watch the probability of `labels` [n]."""
    marks = windows.resized(maps, CELLS).reshape(len(maps), -1)
    orders = [np.argsort(-marks, axis=1, kind="stable"), np.argsort(marks, axis=1, kind="stable")]
    orders += [random_orders(pixels, number) for number in range(RANDOM)]
    if len(pixels) > 1:
        orders.append(np.roll(orders[0], 1, axis=0))
    areas = covered_areas(engine, pixels, labels, orders, progress)  # [orders, n]
    random = areas[2 : 2 + RANDOM].mean(0)
    return Deletion(areas[0], areas[1], random, areas[-1] if len(pixels) > 1 else None)


def random_orders(pixels: Pixels, number: int) -> Places:
    """For each photo an order of its squares, a function of its content and `number`: [n, CELLS * CELLS]."""
    cells = np.arange(CELLS * CELLS)
    keys = [keyed.content_key(number, hashlib.sha256(photo.tobytes()).hexdigest(), "deletion") for photo in pixels]
    return np.stack([np.argsort(keyed.words(key, 0, cells, "deletion")[:, 0], kind="stable") for key in keys])


def covered_areas(
    engine: Engine, pixels: Pixels, labels: Labels, orders: Sequence[Places], progress: Progress | None = None
) -> Floats:
    """Mean probability of `labels` from the whole photo to the covered one, by the trapezium rule: [orders, n]."""
    tasks = [(order, photo) for photo in range(len(pixels)) for order in (None, *range(len(orders)))]
    ends, inner = np.zeros((len(pixels), 2)), np.zeros((len(orders), len(pixels), LEVELS - 1))
    done = 0
    for some, said in engine.many(_batches(tasks, pixels, orders)):
        rows = said.probabilities
        for order, photo in some:
            place, count = (ends[photo], 2) if order is None else (inner[order, photo], LEVELS - 1)
            place[:] = rows[:count, labels[photo]]
            rows = rows[count:]
        done += len(some)
        if progress is not None:
            progress(done, len(tasks))
    return np.asarray((ends.sum(1) / 2 + inner.sum(2)) / LEVELS)


def _batches(
    tasks: Sequence[Task], pixels: Pixels, orders: Sequence[Places]
) -> Iterator[tuple[Sequence[Task], Pixels]]:
    """Covered photos of several tasks at a time, and these tasks."""
    together = max(1, BATCH // LEVELS)
    for first in range(0, len(tasks), together):
        some = tasks[first : first + together]
        yield (
            some,
            np.concatenate([_ends(pixels[i]) if o is None else covered(pixels[i], orders[o][i]) for o, i in some]),
        )


def covered(photo: Pixels, order: Places) -> Pixels:
    """A photo [S, S, 3] with a share of its squares covered that grows from copy to copy: [LEVELS - 1, S, S, 3].

    What covers is the photo, blurred until nothing can be told apart: squares of one colour have edges of their own,
    which a network takes for something, and of one colour it thinks one class likelier than the others.
    """
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    cell = np.arange(len(photo)) * CELLS // len(photo)
    ranks = rank.reshape(CELLS, CELLS)[cell[:, None], cell]  # [S, S]
    limits = np.arange(1, LEVELS) * len(order) // LEVELS
    return np.where((ranks < limits[:, None, None])[..., None], blurred(photo), photo)


def blurred(photo: Pixels) -> Pixels:
    """A photo [S, S, 3] out of focus by a tenth of its side."""
    return np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(BLUR * len(photo))))


def _ends(photo: Pixels) -> Pixels:
    return np.stack([photo, blurred(photo)])


def _correlation(a: Floats, b: Floats) -> Floats:
    """Pearson's of rows [n, m]; 0 where a row is constant."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.asarray((a * b).sum(1) / np.maximum(scale, 1e-12))


def _stretched(rows: Floats) -> Floats:
    low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
    return np.asarray((rows - low) / np.maximum(high - low, 1e-12))


def _similarity(a: Floats, b: Floats) -> Floats:
    """SSIM of rows [n, m] that lie between 0 and 1."""
    steady = (0.01**2, 0.03**2)
    means = a.mean(1), b.mean(1)
    covariance = ((a - means[0][:, None]) * (b - means[1][:, None])).mean(1)
    light = (2 * means[0] * means[1] + steady[0]) / (means[0] ** 2 + means[1] ** 2 + steady[0])
    return np.asarray(light * (2 * covariance + steady[1]) / (a.var(1) + b.var(1) + steady[1]))
