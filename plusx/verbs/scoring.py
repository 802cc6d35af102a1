"""`predict` at scale: a folder with one Parquet part for each block of photos, which a second start goes on with.

    _manifest.json          the model, the settings, the classes, the blocks; its totals are written last
    part-<block>.parquet    one row for each photo of a block, in the order of `predict`

Names with a line in front are passed over by what reads a folder of Parquet, so `pandas.read_parquet(DIR)` does.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from plusx.durable import TEMPORARY, locked, make_folder, sweep_temporary, write_json
from plusx.errors import DataError, DiskError, RunError, disk, use
from plusx.errors import scoring as sentences
from plusx.errors.usage import no_batch, would_overwrite
from plusx.model_file import read_header
from plusx.training.interrupt import leaving
from plusx.verbs.blocks import Block, blocks_of
from plusx.verbs.parts import FORMAT, Made, part_path, pyarrow
from plusx.verbs.scorer import Heard, Scorer, Work

MANIFEST, LOCK = "_manifest.json", "_lock"
FEW = 8  # paths that a command is repeated with
LOCAL, RAY = "local", "ray"


@dataclass(frozen=True)
class Scoring:
    """What is asked for: photos, folders, globs and archives scored by a model into the folder `out`."""

    model: Path
    paths: tuple[str, ...]
    out: Path
    engine: str = LOCAL
    device: str = "auto"
    precision: str = "auto"
    batch_size: int = 64

    @property
    def command(self) -> str:
        """What to type to go on."""
        if len(self.paths) > FEW:
            return "the same command."
        flags = ["--engine", RAY] if self.engine == RAY else ["--parquet"]
        for name in ("device", "precision", "batch_size"):
            if (value := getattr(self, name)) != Scoring.__dataclass_fields__[name].default:
                flags += [f"--{name.replace('_', '-')}", str(value)]
        return shlex.join(["plusx", "predict", str(self.model), *self.paths, *flags, "--out", str(self.out)])


@dataclass(frozen=True)
class Progress:
    """How far a scoring is: blocks and photos, of which `written` were scored since it began, and its seconds."""

    done: int
    blocks: int
    photos: int
    written: int
    seconds: float


@dataclass(frozen=True)
class Failure:
    """Why a block has no part: a sentence, and the exit code it would have."""

    block: str
    message: str
    exit_code: int


@dataclass(frozen=True)
class Totals:
    """What a folder holds, counted: every photo is one row, `errors` of them without an answer."""

    photos: int
    answered: int
    errors: int
    blocks: int
    written: int
    seconds: float
    computed: tuple[str, ...]


Outcome = Made | Failure  # a part, or none
Hear = Callable[[Progress], None]
Engine = Callable[[Work, Sequence[Block], Heard], Generator[Outcome, None, None]]


@dataclass
class _Counted:
    """What has come out so far."""

    blocks: Sequence[Block]
    hear: Hear | None
    done: dict[str, Made] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    written: int = 0
    photos: int = 0
    in_hand: int = 0
    before: int = 0
    started: float = field(default_factory=time.monotonic)

    def found(self, made: Made) -> None:
        """A part that was there."""
        self.done[made.block] = made
        self.photos += made.photos
        self.before += made.photos

    def take(self, outcome: Outcome) -> None:
        """Count what an engine says."""
        self.in_hand = 0
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
        elif outcome.block not in self.done:
            self.written += 1
            self.photos += outcome.photos
            self.done[outcome.block] = outcome
        self.tell()

    def hold(self, photos: int) -> None:
        """Count photos of the block in hand, where an engine says so."""
        self.in_hand += photos
        self.tell()

    def tell(self) -> None:
        """Say how far it is."""
        if self.hear is not None:
            photos = self.photos + self.in_hand
            seconds = time.monotonic() - self.started
            self.hear(Progress(len(self.done), len(self.blocks), photos, photos - self.before, seconds))


def score(asked: Scoring, *, on_progress: Hear | None = None) -> Totals:
    """Score everything that has no part yet, and count all of it.

    Raises plusx.Error: of blocks that could not be scored after the others are done, Interrupted after a signal, and
    RunError where there is not exactly one row for each photo.
    """
    pyarrow()
    _refuse(asked)
    work = Work.of(asked.model, asked.out, asked.device, asked.precision, asked.batch_size)
    blocks = blocks_of(asked.paths)
    if not blocks:
        raise use.nothing_found(" ".join(asked.paths))
    engine = _engine(asked)
    with _folder(asked.out):
        _agree(asked, work, blocks)
        counted = _Counted(blocks, on_progress)
        with leaving(lambda: sentences.interrupted(len(counted.done), len(blocks), asked.command)):
            _score_missing(asked, work, engine, counted)
        return _totals(asked, work, counted)


def _refuse(asked: Scoring) -> None:
    if not asked.paths:
        raise use.no_paths()
    if asked.batch_size < 1:
        raise no_batch(asked.batch_size)
    if asked.out.exists() and not asked.out.is_dir():
        raise sentences.no_folder(asked.out)
    for path in (asked.model, *map(Path, asked.paths)):
        if asked.out.exists() and path.exists() and asked.out.samefile(path):
            raise would_overwrite(asked.out, path)


def _engine(asked: Scoring) -> Engine:
    if asked.engine == LOCAL:
        return _in_this_process
    from plusx.verbs.scoring_ray import by_ray

    return by_ray(asked.command)


@contextlib.contextmanager
def _folder(out: Path) -> Iterator[None]:
    """The folder for this process alone; what killed ones left half written is swept."""
    if out.exists() and not (out / MANIFEST).exists() and not _only_begun(out):
        raise sentences.other_files(out)
    make_folder(out)
    with locked(out / LOCK):
        sweep_temporary(out)
        try:
            yield
        finally:
            sweep_temporary(out)


def _only_begun(out: Path) -> bool:
    """Whether a folder is empty, or as a process leaves it that was killed before it had written the manifest."""
    names = {path.name for path in out.iterdir()}
    others = {name for name in names if name != LOCK and not name.startswith(TEMPORARY)}
    return not names or (LOCK in names and not others)


def _agree(asked: Scoring, work: Work, blocks: Sequence[Block]) -> None:
    """Begin the folder, or see that it was begun by the same model, in the same way, on these photos."""
    now = {**work.settings, "classes": list(read_header(Path(work.model)).classes)}
    if (asked.out / MANIFEST).exists():
        before = _manifest(asked.out)
        differences = [(key, before["scoring"].get(key), value) for key, value in now.items()]
        if differences := [row for row in differences if row[1] != row[2]]:
            raise sentences.another_scoring(asked.out, differences)
        here = {block.name for block in blocks}
        if gone := [shown for name, shown in before["blocks"].items() if name not in here]:
            raise sentences.photos_gone(asked.out, gone)
    _refuse_strange(asked.out, blocks)
    _write_manifest(asked.out, now, blocks, None)


def _refuse_strange(out: Path, blocks: Iterable[Block]) -> None:
    """Raise UsageError for what is called like a part and is of no block."""
    here = {path.name for path in out.glob("part-*.parquet")}
    if strange := here - {part_path(out, block.name).name for block in blocks}:
        raise sentences.strange_parts(out, strange)


def _manifest(out: Path) -> dict[str, Any]:
    path = out / MANIFEST
    try:
        found = json.loads(path.read_bytes())
        if found["format"] == FORMAT and isinstance(found["scoring"], dict) and isinstance(found["blocks"], dict):
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise sentences.damaged_manifest(path)


def _write_manifest(
    out: Path, scoring: Mapping[str, Any], blocks: Iterable[Block], totals: Mapping[str, Any] | None
) -> None:
    listed = {block.name: block.shown for block in blocks}
    write_json(out / MANIFEST, {"format": FORMAT, "scoring": scoring, "blocks": listed, "totals": totals})


def _score_missing(asked: Scoring, work: Work, engine: Engine, counted: _Counted) -> None:
    missing = []
    for block in counted.blocks:
        made = work.made(block)
        if made is None:
            missing.append(block)
        else:
            counted.found(made)
    counted.tell()
    if not missing:
        return
    try:
        with contextlib.closing(engine(work, missing, counted.hold)) as outcomes:
            for outcome in outcomes:
                counted.take(outcome)
    except DiskError as error:
        raise disk.resumable(error, asked.command) from error


def _in_this_process(work: Work, blocks: Sequence[Block], heard: Heard) -> Generator[Outcome, None, None]:
    """The local engine: block after block, on all CPUs."""
    with Scorer(work) as scorer:
        for block in blocks:
            try:
                yield scorer.score(block, heard)
            except (DataError, RunError) as error:
                yield Failure(block.name, f"{block.shown}: {error.message}", error.exit_code)


def _totals(asked: Scoring, work: Work, counted: _Counted) -> Totals:
    """Every footer read once more: one part for each block, one row for each photo. Raises plusx.Error."""
    blocks = counted.blocks
    if counted.failures:
        told = [failure.message for failure in counted.failures]
        code = max((failure.exit_code for failure in counted.failures), key=lambda code: code != DataError.exit_code)
        raise sentences.failed_blocks(told, len(blocks), asked.command, code)
    made = [work.made(block) for block in blocks]
    whole = [part for part in made if part is not None]
    expected = sum(counted.done[block.name].photos for block in blocks if block.name in counted.done)
    photos, bad = sum(part.photos for part in whole), sum(part.bad for part in whole)
    _refuse_strange(asked.out, blocks)
    if len(whole) != len(blocks) or photos != expected:
        raise sentences.miscounted(str(asked.out), expected, photos)
    if not photos:
        raise use.nothing_found(" ".join(asked.paths))
    seconds, computed = time.monotonic() - counted.started, tuple(sorted({part.computed for part in whole}))
    totals = Totals(photos, photos - bad, bad, len(blocks), counted.written, round(seconds, 3), computed)
    kept = {name: value for name, value in asdict(totals).items() if name not in ("seconds", "written")}
    _write_manifest(asked.out, _manifest(asked.out)["scoring"], blocks, kept)
    return totals
