"""Build the wheel and the source archive twice, and say whether their bytes are equal.

python tools/twice_built.py [OUT]

The two builds differ in all that should not matter: the folder, the age of the files, the time zone, the hash seed, the
umask. Neither asks the network for anything: the builder is the one of this environment. OUT gets the archives.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEFT_OUT = (".git", ".venv", "build", "dist", "demo", "runs", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info")
WAYS: tuple[tuple[Mapping[str, str], int, int], ...] = (  # environment, umask, when the files were written
    ({"TZ": "UTC", "PYTHONHASHSEED": "1"}, 0o022, 1_000_000_000),
    ({"TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "2"}, 0o077, 1_700_000_001),
)


def copied(folder: Path, written: int) -> Path:
    """The project's files in another folder, as old as said."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for path in folder.rglob("*"):
        os.utime(path, (written, written))
    return folder


def built(source: Path, environment: Mapping[str, str], umask: int, *targets: str) -> dict[str, bytes]:
    """The archives that a source folder gives, by name: both, or those of `targets` ("wheel", "sdist")."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", "archives"]
    command += [word for target in targets for word in ("-t", target)]
    kept = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    subprocess.run(command, check=True, cwd=source, env=kept | environment, umask=umask, stdout=subprocess.DEVNULL)
    return {path.name: path.read_bytes() for path in sorted((source / "archives").iterdir())}


def twice(within: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The archives of two builds."""
    first, second = (
        built(copied(within / str(number) / ("deeper" * number), written), environment, umask)
        for number, (environment, umask, written) in enumerate(WAYS, start=1)
    )
    return first, second


def main(out: str | None = None) -> int:
    """Print the hashes; 1 where an archive has other bytes the second time."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = twice(Path(folder))
    differ = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    for name, content in first.items():
        how = "differs" if name in differ else "the same bytes twice"
        print(f"{hashlib.sha256(content).hexdigest()}  {name}  {how}")
        if out is not None:
            Path(out).mkdir(parents=True, exist_ok=True)
            (Path(out) / name).write_bytes(content)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
