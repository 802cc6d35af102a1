"""Photos become pixels, once: every photo of DATA as training looks at it, near-duplicates found, then the split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from plusx.data.cache import StreamingStore
from plusx.data.listing import Digests
from plusx.errors import data as data_errors
from plusx.images.decode import BadPhoto
from plusx.images.preprocess import Preprocess
from plusx.recipes import plan as planning
from plusx.run_folder import RunFolder
from plusx.training.events import Notice
from plusx.verbs import labelled, together, windowed
from plusx.verbs.labelled import Indices, LabelledPhotos, Pixels
from plusx.verbs.pace import DecodingPace
from plusx.verbs.reports import Decoding
from plusx.verbs.session import Decoded, Session


def decode(session: Session, photos: LabelledPhotos, command: str, budget: float | None) -> Pixels:
    """The pixels of every photo, test photos included, as training photos are decoded: whatever the split and the seed.

    Raises DataError that lists all unreadable photos, and the `command` that trains without them; UsageError where
    decoding would eat up the `budget` in seconds.
    """
    config = session.config
    largest = max(size for _, size in planning.training_sizes(config))
    how = labelled.training_preprocess(config, largest)
    windowed.refuse_small(config, photos, how)
    pixels = _decoded(session, photos, photos.every, how, ("photos", budget))
    if pixels.bad and not config.skip_bad:
        labelled.refuse_bad(session.data, len(photos.hashes), pixels.bad, command)
    if pixels.bad:
        session.listen(Notice(f"Going on without {_count(pixels.bad)} that cannot be read; skipped.csv names them."))
    return pixels


def kept_together(session: Session, photos: LabelledPhotos, pixels: Pixels) -> LabelledPhotos:
    """The photos split so that near-duplicates lie on one side; told where there are any, or DATA parts them."""
    grouped = labelled.together(photos, pixels, session.config)
    hashes, keys = Digests.of(grouped.hashes), Digests.of(grouped.keys)
    strangers = np.flatnonzero(hashes.words != keys.words)  # who has the key of another picture
    members: dict[str, set[int]] = defaultdict(set)
    if len(strangers):
        for row in np.flatnonzero(np.isin(keys.words, keys.words[strangers])).tolist():
            members[keys[row]].add(row)
    groups = [rows for rows in members.values() if len({hashes[row] for row in rows}) > 1]
    if groups:
        told = f"Near-duplicates: {sum(map(len, groups)):,} photos in {len(groups):,} groups"
        parted = sum(len({grouped.splits[row] for row in rows}) > 1 for rows in groups)
        why = f"; DATA itself parts {parted:,} of them, and `plusx check` names these" if parted else ""
        session.listen(Notice(f"{told}, each on one side of the split{why}."))
    return grouped


def parted(session: Session, photos: LabelledPhotos, pixels: Pixels, budget: float | None = None) -> Decoded:
    """The pixels of training and validation; the latter for themselves where they are of another size, or streamed.

    Raises DataError where a class has no photo to learn from that can be read.
    """
    training = training_of(session, photos, pixels)
    if notice := windowed.told(session.config, photos, training):
        session.listen(notice)
    return Decoded(training, _validation(session, photos, pixels, budget), pixels.bad)


def training_of(session: Session, photos: LabelledPhotos, pixels: Pixels) -> Pixels:
    """The pixels that are trained on. Raises DataError where a class has none."""
    training = labelled.only(pixels, photos, "train")
    if not len(training.rows) and not len(photos.rows("train")):
        raise data_errors.no_training_photos(" ".join(session.data))
    for label in set(range(len(photos.listing.classes))) - set(photos.labels(training.rows).tolist()):
        raise data_errors.too_few(" ".join(session.data), photos.listing.classes[label], 0)
    return training


def parted_again(session: Session, photos: LabelledPhotos, pixels: Pixels, run: RunFolder) -> Decoded:
    """The pixels of a resumed run: what it left out at its start stays out, even if it can be read now."""
    skipped = labelled.read_skipped(run.path / "skipped.csv")
    names = {name for name, _ in skipped}
    decoded = parted(session, photos, labelled.without(pixels, photos, names))
    labelled.refuse_lost_to_reading(photos, {name for name, _ in decoded.bad} - names)
    return Decoded(decoded.training, decoded.validation, skipped)


def _validation(session: Session, photos: LabelledPhotos, pixels: Pixels, budget: float | None) -> Pixels | None:
    config = session.config
    largest = max(size for _, size in planning.training_sizes(config))
    tested = labelled.tested_preprocess(config)
    chosen = labelled.only(pixels, photos, "val")
    if not len(chosen.rows):
        return None
    if tested == labelled.training_preprocess(config, largest) and not isinstance(pixels.store, StreamingStore):
        return chosen
    return _decoded(session, photos, chosen.rows, tested, ("val", budget))


def _decoded(
    session: Session, photos: LabelledPhotos, rows: Indices, how: Preprocess, watched: tuple[str, float | None]
) -> Pixels:
    name, budget = watched
    pace = DecodingPace(budget, session.started)

    def progress(done: int, total: int) -> None:
        session.listen(Decoding(name, done, total))
        pace.progress(done, total)

    config = together.with_workers(session.config, session.world)
    pixels = together.first_here(session.world, lambda: labelled.decode(photos, rows, how, config, progress))
    if pixels.store.notice:
        session.listen(Notice(pixels.store.notice))
    return pixels


def _count(bad: Sequence[tuple[str, BadPhoto]]) -> str:
    return "1 photo" if len(bad) == 1 else f"{len(bad):,} photos"
