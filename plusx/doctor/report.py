"""What `check` found: as fields, as JSON, and as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

SHOWN = 20  # examples of each finding in the summary; the JSON report holds all of them
UNEVEN = 3.0  # times as many photos in the largest class as in the smallest
FEW = 50  # photos of a class

Names = tuple[str, ...]


@dataclass(frozen=True)
class Unreadable:
    """A photo without pixels, and why."""

    name: str
    code: str
    reason: str


@dataclass(frozen=True)
class Noted:
    """A photo, or a pair of them, and what is to be said of it."""

    name: str
    note: str


@dataclass(frozen=True)
class Sizes:
    """Widths and heights in pixels as stored, over the readable photos: smallest, median, largest."""

    width: tuple[int, int, int]
    height: tuple[int, int, int]


@dataclass(frozen=True)
class Kind:
    """A kind of finding: the field of the report, its title, and what to do about it."""

    field: str
    title: str
    advice: str


KINDS = (  # in the order of what they cost
    Kind("unreadable", "cannot be read", "Mend or remove them, or train with --skip-bad."),
    Kind(
        "across_splits",
        "equal photos across splits",
        "The test is too kind: it asks for what was learned by heart. Remove the training copy.",
    ),
    Kind(
        "near_across_splits",
        "the same picture across splits",
        "The files differ, the pictures do not: scaled, cropped or saved anew. Remove the training copy.",
    ),
    Kind("conflicts", "equal photos with different labels", "One of the labels is wrong: keep the right one."),
    Kind(
        "near_conflicts",
        "the same picture with different labels",
        "The files differ, the pictures do not, and one of the labels is wrong: keep the right one.",
    ),
    Kind("duplicates", "equal photos within a split", "They count double. Keep one of each."),
    Kind("near_duplicates", "the same picture within a split", "They count double. Keep one of each."),
    Kind("blank", "blank", "Nothing can be learned from one colour: remove them."),
    Kind("tiny", "tiny", "They are enlarged for training, which adds no detail: find larger ones if you can."),
    Kind("stretched", "long or tall", "The network sees the middle square: crop them to what matters."),
    Kind("animated", "several frames", "The first frame counts and the others are passed over."),
    Kind("mirrored", "mirror images", "One picture and its mirror image: the same to a network that trains mirrored."),
    Kind(
        "look_alike",
        "alike to the model",
        "Parts of one photo, photos of one scene, or only alike (most are): look before you decide.",
    ),
    Kind("misnamed", "named as another format", "They are read by their content; other programs may refuse them."),
    Kind("odd_modes", "unusual colours", "They become plain colour; what is transparent becomes white."),
    Kind("turned", "turned by their EXIF", "They are used upright, as cameras and browsers show them."),
    Kind("outside", "links that lead outside", "They are followed; what they lead to does not travel with the folder."),
    Kind("junk", "left out (not photos)", "They are not used."),
)


@dataclass(frozen=True)
class CheckReport:
    """What `check` found; groups hold the names of photos, and an unreadable photo is in none.

    `across_splits`, `conflicts` and `duplicates` are of equal bytes; those called near_ are of files that differ and
    show one picture. A group can be both across splits and a conflict.
    """

    data: str
    classes: Names
    photos: int
    counts: dict[str, dict[str, int]]  # split ("all" where DATA has none) -> class -> photos
    sizes: Sizes | None
    unusable: str | None  # why nothing can be trained on DATA as it is
    unreadable: tuple[Unreadable, ...]
    conflicts: tuple[Names, ...]  # equal photos with different labels
    across_splits: tuple[Names, ...]  # equal photos on two sides of the split
    duplicates: tuple[Names, ...]  # equal photos with one label in one split
    junk: Names
    near_across_splits: tuple[Names, ...]
    near_conflicts: tuple[Names, ...]
    near_duplicates: tuple[Names, ...]
    mirrored: tuple[Names, ...]  # one picture, if one of its photos is mirrored
    blank: tuple[Noted, ...]
    tiny: tuple[Noted, ...]
    stretched: tuple[Noted, ...]
    animated: tuple[Noted, ...]
    turned: tuple[Noted, ...]
    odd_modes: tuple[Noted, ...]
    misnamed: tuple[Noted, ...]
    look_alike: tuple[Noted, ...]  # pairs, the likest first; none without a model
    outside: Names = ()  # links

    @property
    def problems(self) -> Names:
        """One sentence for each kind of fault, those that cost most first; copies within a split are none."""
        bad, blank = len(self.unreadable), len(self.blank)
        found = [
            self.unusable,
            bad and f"{_photos(bad)} cannot be read: mend or remove them, or train with --skip-bad.",
            self._fault("across_splits", "of equal photos", "lie on two sides of the split", _KIND_TEST),
            self._fault("near_across_splits", "of photos of one picture", "lie on two sides of the split", _KIND_TEST),
            self._fault("conflicts", "of equal photos", "have different labels", _ONE_LABEL),
            self._fault("near_conflicts", "of photos of one picture", "have different labels", _ONE_LABEL),
            blank and f"{blank:,} blank {'photo' if blank == 1 else 'photos'} to remove: {_NOTHING_TO_LEARN}.",
        ]
        return tuple(sentence for sentence in found if sentence)

    @property
    def advice(self) -> Names:
        """What to do about the numbers of photos in the classes; no faults."""
        counts = self._training_counts()
        if len(counts) < 2 or not min(counts.values()):
            return ()
        (small, fewest), (large, most) = (choose(counts.items(), key=lambda pair: pair[1]) for choose in (min, max))
        few = [name for name, count in counts.items() if count < FEW]
        uneven = f"{large} has {most / fewest:.1f} times as many photos as {small}: train with --set sampling=balanced."
        scarce = f"{', '.join(few[:SHOWN])}: fewer than {FEW} photos; start from weights (--weights), or add photos."
        return tuple([uneven] * (most >= UNEVEN * fewest) + [scarce] * bool(few))

    @property
    def exit_code(self) -> int:
        """0, or 1 where problems were found."""
        return 1 if self.problems else 0

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON types, with `problems` and `advice`."""
        return {**asdict(self), "problems": list(self.problems), "advice": list(self.advice)}

    def lines(self) -> list[str]:
        """The summary as plain text, a line each: the photos, then the findings in the order of what they cost."""
        return [*self.overview(), *self._findings(), *self.advice, *self._verdict()]

    def overview(self) -> Iterator[str]:
        """What is there."""
        yield f"{self.data}: {_photos(self.photos)}, {len(self.classes)} classes"
        for split, counts in self.counts.items():
            yield f"  {split}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items())
        if self.sizes:
            (w0, w1, w2), (h0, h1, h2) = self.sizes.width, self.sizes.height
            yield f"  width {w0} to {w2} pixels (median {w1}), height {h0} to {h2} (median {h1})"

    def _findings(self) -> Iterator[str]:
        for kind in KINDS:
            joint = " = " if kind.field in ("across_splits", "conflicts", "duplicates") else " ~ "
            yield from _listed(kind.title, (_words(item, joint) for item in getattr(self, kind.field)))

    def _verdict(self) -> Iterator[str]:
        yield from self.problems or ["No problems found."]

    def _fault(self, field: str, of: str, what: str, advice: str) -> str | None:
        groups = len(getattr(self, field))
        return f"{groups:,} group{'' if groups == 1 else 's'} {of} {what}: {advice}." if groups else None

    def _training_counts(self) -> dict[str, int]:
        return self.counts.get("train") or self.counts.get("all") or {}


_KIND_TEST = "remove them from one, else the test is too kind"
_NOTHING_TO_LEARN = "nothing can be learned from one colour"
_ONE_LABEL = "keep the right one of each"


def _words(item: Any, joint: str) -> str:
    if isinstance(item, Unreadable):
        return f"{item.name}: {item.reason}"
    if isinstance(item, Noted):
        return f"{item.name}: {item.note}"
    return item if isinstance(item, str) else joint.join(item)


def _listed(title: str, items: Iterable[str]) -> Iterator[str]:
    every: Sequence[str] = list(items)
    if every:
        yield f"{title}: {len(every):,}"
        yield from (f"  {item}" for item in every[:SHOWN])
        if len(every) > SHOWN:
            yield f"  and {len(every) - SHOWN:,} more (--json lists them all)"


def _photos(count: int) -> str:
    return f"{count:,} photo{'' if count == 1 else 's'}"
