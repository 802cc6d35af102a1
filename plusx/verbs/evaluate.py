"""`evaluate`: how good a model is on photos it never saw."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np

from plusx.classifier import Classifier
from plusx.data import decisions as decided_by
from plusx.data import split
from plusx.data.decisions import Effect
from plusx.data.source import Listing, Photo, content_hashes, scan
from plusx.durable import sha256_file, write_file
from plusx.errors import DiskError
from plusx.errors import data as data_errors
from plusx.errors import model_file as sentences
from plusx.errors import use as use_errors
from plusx.images.decode import BadPhoto
from plusx.launch import launched
from plusx.metrics import percent
from plusx.model_file import read_known
from plusx.run_folder import RunFolder, model_path, open_run
from plusx.verbs.answers import Answered, write_answers
from plusx.verbs.figures import answered_lines
from plusx.verbs.labelled import Progress, refuse_lost, with_recorded
from plusx.verbs.maps import Maps

if TYPE_CHECKING:
    from plusx.training.world import World

SHOWN_CLASSES = 8  # up to here the whole confusion matrix is printed
NAMED = 20  # how many left-out photos a report names


@dataclass(frozen=True)
class Evaluation:
    """Figures on `tested`; photos `left_out` were trained on, `skipped` could not be read (name, reason);
    `decided` is what decisions did to the photos."""

    tested: str
    figures: dict[str, Any]
    left_out: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    thresholds: Mapping[str, Any] | None = None  # of the model
    decided: Effect = field(default_factory=Effect)
    report: Path | None = None
    notices: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document of `evaluate --json`."""
        seen = {"count": len(self.left_out), "names": list(self.left_out[:NAMED])}
        skipped = [{"path": name, "reason": reason} for name, reason in self.skipped]
        decided = {"decisions": self.decided.to_json()} if self.decided.rows else {}
        return self.figures | {"left_out": seen, "skipped": skipped} | decided

    def lines(self) -> list[str]:
        """The result for people."""
        figures = self.figures
        answered = answered_lines(figures, self.thresholds)
        return [*self._headline(), *_per_class(figures), *_confusion(figures), *answered, *self._others()]

    def _headline(self) -> list[str]:
        f = self.figures
        low, high = f["accuracy_ci95"]
        speed = f"{f['seconds']:.1f} s, {f['images_per_second']:.0f} images/s with start-up"
        return [
            f"{f['n']:,} photos of {self.tested} in {speed}",
            f"accuracy {percent(f['accuracy'])} (95 % interval {percent(low)} to {percent(high)})",
            f"log loss {f['log_loss']:.4f}, calibration error {percent(f['ece'])}",
        ]

    def _others(self) -> list[str]:
        lines = []
        if self.left_out:
            lines.append(f"left out {len(self.left_out)} photos the model was trained on, such as {self.left_out[0]}")
        if self.skipped:
            lines.append(
                f"skipped {len(self.skipped)} photos that cannot be read, such as {': '.join(self.skipped[0])}"
            )
        return lines + [self.decided.sentence()] * bool(self.decided.rows)


class Computing(TypedDict, total=False):
    """How answers are computed: where, how many photos at once, and who hears (done, all); all can be left out."""

    device: str
    batch_size: int
    on_progress: Progress | None


@dataclass(frozen=True)
class _Photos:
    """Test photos with their labels in the order of the model's classes."""

    photos: list[Photo]
    labels: list[int]
    hashes: list[str]
    decided: Effect

    def at(self, rows: Sequence[int]) -> _Photos:
        """Some of them."""
        return _Photos(
            [self.photos[i] for i in rows],
            [self.labels[i] for i in rows],
            [self.hashes[i] for i in rows],
            self.decided,
        )


def evaluate(
    run_or_model: str | Path,
    data: str | Path | Sequence[str] | None = None,
    *,
    report: str | Path | None = None,
    decisions: Sequence[str | Path] = (),
    **computing: Unpack[Computing],
) -> Evaluation:
    """Test a run on its own test split, or a model on DATA (its test/ where it has one).

    A run gets its figures and answers (test.json, answers.csv) and its report and card anew; `report` is where that
    of DATA is to be written. `decisions` are CSV files of photos to leave out or relabel; those that a run was started
    with count as well. Photos the run trained on are counted, named and left out. Raises DataError where none are left.
    Started by torchrun, several processes share the photos out; the first writes what there is to write.
    """
    with _joined(computing.get("device", "auto")) as world:
        return _evaluated(Path(run_or_model), data, report, [Path(file) for file in decisions], (computing, world))


def _evaluated(
    path: Path,
    data: str | Path | Sequence[str] | None,
    report: str | Path | None,
    files: Sequence[Path],
    how: tuple[Computing, World | None],
) -> Evaluation:
    started, (computing, world) = time.perf_counter(), how
    found = model_path(path)
    model, classifier = read_known(found), Classifier.load(found, device=computing.get("device", "auto"))
    chosen = _own_test(path, files) if data is None else _given(data, classifier.classes, files)
    fresh = [i for i, h in enumerate(chosen.hashes) if not model.has_seen(h)]
    left_out = tuple(chosen.photos[i].name for i in sorted(set(range(len(chosen.hashes))) - set(fresh)))
    tested = chosen.at(fresh)
    if not fresh:
        raise use_errors.no_test_photos(str(data or path))
    answered, skipped = _answered(classifier, tested, computing, world)
    if answered is None:
        raise use_errors.no_test_photos(str(data or path))
    seconds = time.perf_counter() - started
    figures = answered.figures() | {
        "model_sha256": sha256_file(found),
        "data_fingerprint": split.fingerprint(tested.hashes, tested.labels),
        "seconds": seconds,
        "images_per_second": len(fresh) / seconds,
    }
    evaluation = Evaluation(_named(path, data), figures, left_out, skipped, model.header.thresholds, tested.decided)
    if not launched().first:
        return evaluation
    maps = Maps(found, computing.get("device", "auto"))
    if data is None:
        return _recorded(evaluation, maps, open_run(path), answered, tested.photos, report)
    if report is None:
        return evaluation
    from plusx.verbs.reporting import write_page_of_data  # pages know recipes and with them torch; figures need neither

    fault = write_page_of_data(Path(report), maps, answered, tested.photos, (str(path), _roots(data)))
    return replace(evaluation, report=None if fault else Path(report), notices=(fault,) if fault else ())


def _recorded(
    evaluation: Evaluation,
    maps: Maps,
    run: RunFolder,
    answered: Answered,
    photos: Sequence[Photo],
    report: str | Path | None,
) -> Evaluation:
    """The evaluation, once the run has its answers and its pages; a folder that takes none costs a notice."""
    from plusx.verbs.reporting import write_pages

    try:
        write_answers(run.test_answers, answered)
        run.write("test", evaluation.to_json())
        fault = write_pages(run, photos, maps)
        if report is not None and fault is None:
            write_file(Path(report), run.report.read_bytes())
    except DiskError as error:
        fault = error.message
    return replace(evaluation, report=None if fault else Path(report or run.report), notices=(fault,) if fault else ())


def _named(path: Path, data: str | Path | Sequence[str] | None) -> str:
    if data is None:
        return f"the test split of {path}"
    return " ".join(_roots(data))


def _roots(data: str | Path | Sequence[str]) -> list[str]:
    return [str(data)] if isinstance(data, str | Path) else [str(root) for root in data]


def _own_test(path: Path, files: Sequence[Path]) -> _Photos:
    """The test split of a run, verified against what it recorded, and then as more decisions want it."""
    if not path.is_dir():
        raise sentences.needs_data(path)
    run = open_run(path)
    every = scan(list(run.read("run")["data"]), trainable=False)
    hashes = content_hashes(every.photos)
    effect = _heard(every, hashes, files, every.classes)
    photos = with_recorded(every, hashes, run)
    refuse_lost(run.split, photos, "test")
    rows = photos.rows("test")
    if not len(rows):
        raise use_errors.no_test_photos(str(path))
    listing = replace(photos.listing, photos=tuple(photos.photos(rows)))
    tested = _as_decided(listing, [photos.hashes[i] for i in rows], files, photos.listing.classes)
    return replace(tested, decided=replace(tested.decided, unmatched=effect.unmatched) if files else photos.decided)


def _given(data: str | Path | Sequence[str], classes: Sequence[str], files: Sequence[Path]) -> _Photos:
    """The test photos of DATA, or all of it; labels go by class name."""
    every = scan(data if isinstance(data, str | Path) else list(data), trainable=False)
    rows = [i for i, photo in enumerate(every.photos) if photo.split == "test"] or list(range(len(every.photos)))
    listing = replace(every, photos=tuple(every.photos[i] for i in rows))
    if not files:
        return _as_decided(listing, content_hashes(listing.photos), files, classes)
    hashes = content_hashes(every.photos)
    effect = _heard(every, hashes, files, classes)
    tested = _as_decided(listing, [hashes[i] for i in rows], files, classes)
    return replace(tested, decided=replace(tested.decided, unmatched=effect.unmatched))


def _heard(every: Listing, hashes: Sequence[str], files: Sequence[Path], classes: Sequence[str]) -> Effect:
    """What decisions do to all of DATA, of which the test is a part. Raises DataError where no row is about it."""
    effect = decided_by.apply(every, hashes, decided_by.read(files), classes).effect
    decided_by.refuse_strangers(effect, files, every.root)
    return effect


def _as_decided(listing: Listing, hashes: Sequence[str], files: Sequence[Path], classes: Sequence[str]) -> _Photos:
    """The photos after the decisions in `files`, which may name any of the `classes` that the model tells apart."""
    found = decided_by.apply(listing, hashes, decided_by.read(files), classes)
    photos = list(found.listing.photos)
    labels = [_label(found.listing, photo, classes) for photo in photos]
    return _Photos(photos, labels, list(found.hashes), found.effect)


def _label(listing: Listing, photo: Photo, classes: Sequence[str]) -> int:
    name = listing.classes[photo.label or 0]
    if name not in classes:
        raise data_errors.unknown_class(listing.root, photo.split or "", name, classes)
    return classes.index(name)


def _answered(
    classifier: Classifier, tested: _Photos, computing: Computing, world: World | None
) -> tuple[Answered | None, tuple[tuple[str, str], ...]]:
    """The answers, None where no photo could be read; and the photos that could not, with reasons."""
    rows, skipped = _of_all(classifier, tested, computing, world) if world else _answers(classifier, tested, computing)
    if not rows:
        return None, skipped
    good = tested.at(sorted(rows))
    named = [(photo.name, sha256) for photo, sha256 in zip(good.photos, good.hashes, strict=True)]
    probabilities, novelty = (np.stack([rows[i][part] for i in sorted(rows)]) for part in (0, 1))
    answered = Answered.of(classifier.classes, named, good.labels, probabilities)
    return answered.decided(classifier.header, novelty.astype(np.float64)), skipped


@contextmanager
def _joined(device: str) -> Iterator[World | None]:
    """The processes that torchrun has started; None of one alone, which needs no PyTorch to be that."""
    if launched().size == 1:
        yield None
        return
    from plusx.training.environment import choose_device, own_device
    from plusx.training.world import joined

    with joined() as world:
        own_device(choose_device(device))
        yield world


def _of_all(
    classifier: Classifier, tested: _Photos, computing: Computing, world: World
) -> tuple[dict[int, Any], tuple[tuple[str, str], ...]]:
    """The same of several processes, each of which answers for its own photos: in all of them, of all photos."""
    ours = range(len(tested.photos))[world.mine(len(tested.photos))]
    rows, skipped = _answers(classifier, tested.at(ours), computing)
    blank = (np.full(len(classifier.classes), np.nan, np.float32), np.float32(np.nan))
    said = [rows.get(i, blank) for i in range(len(ours))]
    probabilities = world.gather(np.array([one for one, _ in said], np.float32).reshape(-1, len(classifier.classes)))
    novelty = world.gather(np.array([one for _, one in said], np.float32))
    told = [(name, reason) for each in world.hear(skipped) for name, reason in each]
    read = np.flatnonzero(world.gather(np.array([i in rows for i in range(len(ours))], np.bool_)))
    return {int(i): (probabilities[i], novelty[i]) for i in read}, tuple(sorted(told))


def _answers(
    classifier: Classifier, tested: _Photos, computing: Computing
) -> tuple[dict[int, Any], tuple[tuple[str, str], ...]]:
    """Probabilities and novelty by position, and the photos that could not be read."""
    answers: dict[int, Any] = {}
    skipped: list[tuple[str, str]] = []
    batch_size, on_progress = computing.get("batch_size", 64), computing.get("on_progress")
    sources = [photo.source for photo in tested.photos]
    for places, said in classifier.answers_many(sources, batch_size=batch_size):
        if isinstance(said, BadPhoto):
            skipped.append((tested.photos[places[0]].name, said.reason))
        else:
            answers.update(zip(places, zip(said.probabilities, said.novelty, strict=True), strict=True))
        if on_progress:
            on_progress(len(answers) + len(skipped), len(sources))
    return answers, tuple(sorted(skipped))


def _per_class(figures: dict[str, Any]) -> list[str]:
    return [
        f"  {name}: no samples" if not c["n"] else f"  {name}: accuracy {percent(c['accuracy'])}, n = {c['n']:,}"
        for name, c in figures["per_class"].items()
    ]


def _confusion(figures: dict[str, Any]) -> list[str]:
    """The confusion matrix; for many classes only its largest entries off the diagonal."""
    classes, counts = figures["classes"], np.array(figures["confusion"])
    if len(classes) <= SHOWN_CLASSES:
        width = max(8, *(len(name) for name in classes))
        head = "  " + " " * width + "".join(f"  {name:>{width}}" for name in classes) + "   <- answered"
        body = [
            f"  {n:>{width}}" + "".join(f"  {c:>{width},}" for c in row) for n, row in zip(classes, counts, strict=True)
        ]
        return [head, *body]
    wrong = [(int(counts[i, j]), i, j) for i, j in np.argwhere(counts).tolist() if i != j]
    return [f"  {count} of {classes[i]} taken for {classes[j]}" for count, i, j in sorted(wrong, reverse=True)[:10]]
