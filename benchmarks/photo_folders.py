"""The photos of a benchmark as most programs want them: class folders in train, val and test."""

from __future__ import annotations

import os
import shutil
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

VALIDATION = 13 / 256  # of the photos that are not locked away, by the SHA-256 in their names


@dataclass(frozen=True)
class Folders:
    """`train`, `val` and `test` in one folder, class folders inside."""

    root: Path
    tested: str = "test"

    @property
    def train(self) -> Path:
        """For training."""
        return self.root / "train"

    @property
    def val(self) -> Path:
        """For choosing."""
        return self.root / "val"

    @property
    def test(self) -> Path:
        """Locked away."""
        return self.root / self.tested

    def count(self, part: str) -> int:
        """Photos in a part."""
        return sum(1 for _ in (self.root / part).glob("*/*"))

    def testing(self, count: int | None) -> Folders:
        """The same with `count` of the test photos, the first by content, for what takes long over each; None: all."""
        if count is None:
            return self
        fewer = replace(self, tested=f"test-{count}")
        for path in sorted(self.test.glob("*/*"), key=lambda path: path.name)[:count]:
            place = fewer.test / path.parent.name / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                os.link(path, place)
        return fewer

    def test_labels(self) -> dict[str, str]:
        """Class by path below the test folder."""
        return {str(path.relative_to(self.test)): path.parent.name for path in self.test.glob("*/*")}


def part_of(name: str, archive: str) -> str:
    """train, val or test for a photo called by its SHA-256, from the archive `train` or `test`."""
    if archive == "test":
        return "test"
    return "val" if int(name[2:4], 16) < VALIDATION * 256 else "train"  # the first digits tell what is locked away


def unpack(photos: Path, work: Path, limit: int | None) -> Folders:
    """Class folders from what `lock_away` made, of `limit` photos and a quarter as many to test; made once."""
    made = work / ("folders" if limit is None else f"folders-{limit}")
    if not made.exists():
        partial = made.with_name(f"{made.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for archive in ("train", "test"):
            _unpack(photos / f"{archive}.tar", archive, partial, limit)
        partial.rename(made)
    return Folders(made)


def _unpack(path: Path, archive: str, folder: Path, limit: int | None) -> None:
    with tarfile.open(path) as tar:
        members = sorted(tar.getmembers(), key=lambda member: Path(member.name).name)  # by content: a fair sample
        for member in members[: limit and (limit if archive == "train" else limit // 4)]:
            name = Path(member.name)
            place = folder / part_of(name.name, archive) / name.parent.name / name.name
            place.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            assert content is not None, "lock_away writes files only"
            place.write_bytes(content.read())
