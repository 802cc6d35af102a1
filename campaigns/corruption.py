"""Checkpoints whose newest one was cut or has a bit flipped: rows T22, T23 and T24, and model files in the same way.

    python campaigns/corruption.py --flips 10000 --out FILE
    python campaigns/corruption.py --control unchecked     # nobody looks at the hashes: the promises must break

A small training leaves two checkpoints. Of the newest each file is cut at every 1/64 of its length, every bit of the
small files and as many random bits of all as asked for are flipped, one at a time: the one before must be used, and the
damaged one named. With both damaged the list of what is wrong must be given, and no file may be gone. A model file with
one bit flipped must be refused when it is loaded. After one damage of each kind, best weights included, the training
goes on: it must say which checkpoint or which best weights it could not use. A broken promise ends with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest import mock

from trials import fast_folder, toy

from plusx import durable, model_file
from plusx.errors import Error, ModelError
from plusx.images.preprocess import Preprocess
from plusx.training import checkpoint
from plusx.training.events import Notice
from plusx.training.loop import fit

CUTS = 64
BEST = toy.settings(6, checkpoint_every=1)  # validated, and so the best, at its fourth step: both refer to it
SMALL = 4096  # bytes of a file of which every bit is flipped


@dataclass
class Totals:
    """What was counted; `broken` names damages that were not noticed."""

    cuts: int = 0
    flips: int = 0
    both_damaged: int = 0
    resumed: int = 0
    model_flips: int = 0
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)


def written(folder: Path) -> Path:
    """Two checkpoints of a small training, of steps 1 and 2; returns the folder they lie in."""
    one = toy.training(folder, toy.settings(2, checkpoint_every=1, keep="last"))
    fit(one, toy.Photos())
    return folder / "checkpoints"


@contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    """A file with other content for as long as the block lasts."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def flipped(data: bytes, bit: int) -> bytes:
    """The bytes with one bit changed."""
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def unnoticed(folder: Path, path: Path, content: bytes, what: str) -> Iterator[str]:
    """Nothing, where the damage of the newest checkpoint is seen, told by name, and the one before is used."""
    older = checkpoint.found(folder)[1]
    with changed(path, content):
        try:
            used, skipped = checkpoint.newest_valid(folder)
        except Error as error:
            yield f"{what}: {error}"
            return
    if used != older or len(skipped) != 1 or not skipped[0].startswith(f"{path.parent.name}: "):
        yield f"{what}: {used and used.name} was used, and passed over were {skipped}"


def cut(folder: Path, totals: Totals) -> None:
    """The newest checkpoint, each of its files cut at every 1/64 of its length."""
    for path in sorted(checkpoint.found(folder)[0].iterdir()):
        data = path.read_bytes()
        for length in sorted({len(data) * part // CUTS for part in range(CUTS)}):
            totals.broken += unnoticed(folder, path, data[:length], f"{path.name} cut to {length} bytes")
            totals.cuts += 1


def bits(files: Iterable[Path], count: int, chance: random.Random) -> Iterator[tuple[Path, int]]:
    """Every bit of the small files, and `count` random ones of all, in proportion to their sizes."""
    sizes = {path: path.stat().st_size for path in sorted(files)}
    for path, size in sizes.items():
        yield from ((path, bit) for bit in range(8 * size if size <= SMALL else 0))
    for path in chance.choices(list(sizes), weights=list(sizes.values()), k=count):
        yield path, chance.randrange(8 * sizes[path])


def flip(folder: Path, count: int, seed: int, totals: Totals) -> None:
    """The newest checkpoint with one bit flipped, many times."""
    for path, bit in bits(checkpoint.found(folder)[0].iterdir(), count, random.Random(seed)):
        totals.broken += unnoticed(folder, path, flipped(path.read_bytes(), bit), f"{path.name} with bit {bit} flipped")
        totals.flips += 1


def damage_both(folder: Path, totals: Totals) -> None:
    """Every checkpoint damaged in every pair of files: the error lists both, and nothing is deleted."""
    newest, older = checkpoint.found(folder)
    for first in sorted(newest.iterdir()):
        for second in sorted(older.iterdir()):
            totals.both_damaged += 1
            totals.broken += _both(folder, first, second)


def _both(folder: Path, first: Path, second: Path) -> Iterator[str]:
    before = sorted(folder.rglob("*"))
    with changed(first, b"x" + first.read_bytes()[1:]), changed(second, second.read_bytes()[:-1]):
        try:
            yield f"{first.name} and {second.name} are damaged: {checkpoint.newest_valid(folder)[0]} was used"
        except ModelError as error:
            if error.exit_code != 4 or not all(f"{path.parent.name}: " in error.message for path in (first, second)):
                yield f"{first.name} and {second.name} are damaged: {error.message}"
    if sorted(folder.rglob("*")) != before:
        yield f"{first.name} and {second.name} are damaged: files are gone"


def go_on(folder: Path, totals: Totals) -> None:
    """A training that goes on after one damage of each kind: what it tells names what it passed over."""
    whole = folder / "whole"
    fit(toy.training(whole, BEST), photos := toy.Photos(), photos.validate)
    newest, older = checkpoint.found(whole / "checkpoints")
    skipped, lost = (
        f"Skipped a damaged checkpoint ({newest.name}: ",
        f"The best weights so far are lost ({newest.name}: ",
    )
    damaged = [(path, skipped, older) for path in sorted(newest.iterdir())]
    damaged += [(path, lost, newest) for path in sorted((whole / "best").glob("*/*"))]
    for path, expected, used in damaged:
        for damage in (b"", path.read_bytes()[:-1], flipped(path.read_bytes(), 8)):
            totals.broken += _going_on(folder, path, damage, expected, checkpoint.step_of(used))
            totals.resumed += 1


def _going_on(folder: Path, path: Path, damage: bytes, expected: str, step: int) -> Iterator[str]:
    """Go on with a copy of the whole training in which one file is damaged."""
    again, told = folder / "again", list[str]()
    shutil.copytree(folder / "whole", again)
    (again / path.relative_to(folder / "whole")).write_bytes(damage)
    one = toy.training(again, BEST, lambda event: told.append(event.text) if isinstance(event, Notice) else None)
    what = f"{path.parent.name}/{path.name} of {len(damage)} bytes"
    try:
        one.resume()
        begun = one.state.step
        fit(one, photos := toy.Photos(), photos.validate)
    except Exception as error:
        yield f"{what}: {error!r}"
    else:
        if len(told) != 1 or not told[0].startswith(expected) or begun != step:
            yield f"{what}: went on from step {begun} and told {told}"
    shutil.rmtree(again)


def flip_model(folder: Path, count: int, seed: int, totals: Totals) -> None:
    """A model file with one bit flipped, many times: loading has to refuse it."""
    path, chance = folder / "model.safetensors", random.Random(seed)
    tensors = {name: value.numpy() for name, value in toy.network().state_dict().items()}
    header = model_file.Header(("a", "b", "c"), Preprocess(12, 12), {"name": "toy"})
    model_file.save(path, model_file.ModelFile(header, tensors))
    data = path.read_bytes()
    for _ in range(count):
        bit = chance.randrange(8 * len(data))
        path.write_bytes(flipped(data, bit))
        totals.model_flips += 1
        try:
            model_file.load(path)
        except ModelError:
            continue
        totals.broken.append(f"bit {bit} of {path.name}: not noticed")


@contextmanager
def unchecked() -> Iterator[None]:
    """Nobody looks at the hashes."""
    faultless = mock.patch.object(durable, "folder_fault", return_value=None)
    with faultless, mock.patch.object(model_file, "_is_as_written", return_value=True):
        yield


def campaign(flips: int, seed: int, folder: Path, *, control: bool = False) -> Totals:
    """All of it, below `folder`; as a `control` the hashes are not looked at."""
    started, totals = time.monotonic(), Totals()
    checkpoints = written(folder)
    with unchecked() if control else nullcontext():
        cut(checkpoints, totals)
        flip(checkpoints, flips, seed, totals)
        damage_both(checkpoints, totals)
        go_on(folder / "resumed", totals)
        flip_model(folder, flips, seed, totals)
    totals.seconds = round(time.monotonic() - started, 1)
    return totals


def main(words: list[str]) -> int:
    """Run the campaign, tell its totals; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--control", choices=["unchecked"], help="take a protection out")
    parser.add_argument("--out", type=Path, help="a line of JSON is added to this file")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(dir=fast_folder(), prefix="plusx-corruption-") as folder:
        totals = campaign(options.flips, options.seed, Path(folder), control=options.control is not None)
    line = {"campaign": "corruption", "seed": options.seed, "control": options.control} | asdict(totals)
    for name, value in line.items():
        print(f"{name:20} {value}" if name != "broken" else "\n".join(value[:20] or ["no promise was broken"]))
    if options.out is not None:
        with options.out.open("a") as file:
            file.write(json.dumps(line | {"broken": len(totals.broken)}) + "\n")
    return 1 if totals.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
