"""Install plusx from its lock without a network, and use it: C01 of the fault matrix. Minutes, and gigabytes of disk.

python tools/offline.py WHEELS [--download] [--keep FOLDER]

WHEELS is a folder of archives outside the repository; with --download those that are missing are fetched first, each
checked against the lock. The rest asks for nothing: installing is told to look nowhere else, every archive is checked
against the lock again, and proxies that do not exist stand in the way of whatever asks the network all the same.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
NOWHERE = "http://127.0.0.1:9"
ALONE = {
    **{"HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "ALL_PROXY": NOWHERE, "NO_PROXY": ""},
    **{"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "HF_HUB_OFFLINE": "1"},
}
LIMIT = 3600  # seconds of one command


def ran(what: str, command: Sequence[str | Path], environment: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
    """Run a command and print how long it took. Raises CalledProcessError where it fails."""
    begun = time.monotonic()
    kept = {name: value for name, value in os.environ.items() if environment is None or "PIP" not in name.upper()}
    subprocess.run(list(map(str, command)), check=True, cwd=cwd, env=kept | (environment or {}), timeout=LIMIT)
    print(f"{what}: {time.monotonic() - begun:.0f} s", flush=True)


def downloaded(wheels: Path) -> None:
    """Fetch what the lock pins for this machine."""
    wheels.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "-r", LOCK, "-d", wheels]
    ran("downloaded", [*command, "--only-binary", ":all:"])


def installed(wheels: Path, folder: Path) -> Path:
    """A fresh environment of what the lock pins, and plusx in it; its Python."""
    environment = folder / "environment"
    ran("a fresh environment", [sys.executable, "-m", "venv", environment])
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-index"]
    ran("installed from the lock", [*install, "--find-links", wheels, "--require-hashes", "-r", LOCK], ALONE)
    ran("built plusx", [python, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "plusx"], ALONE)
    ran("installed plusx", [*install, "--no-deps", *(folder / "plusx").glob("*.whl")], ALONE)
    ran("looked for conflicts", [python, "-m", "pip", "check"], ALONE)
    return python


def used(python: Path, folder: Path) -> None:
    """Draw, train, test, export, and predict with both, away from the source."""
    plusx = [python, "-P", "-m", "plusx"]
    ran("plusx demo", [*plusx, "demo", "--time", "20s", "--out", "demo", "-q"], ALONE, folder)
    run = next(path.parent for path in (folder / "demo").rglob("model.safetensors"))
    ran("plusx export", [*plusx, "export", run, "--out", folder / "model.onnx"], ALONE, folder)
    photos = sorted((folder / "demo").rglob("*.png"))[:4] or sorted((folder / "demo").rglob("*.jpg"))[:4]
    for model in (run, folder / "model.onnx"):
        ran(f"plusx predict {model.name}", [*plusx, "predict", model, *photos], ALONE, folder)


def main() -> int:
    """Download if asked, install, use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path)
    parser.add_argument("--download", action="store_true")
    parser.add_argument("--keep", type=Path, help="work here, and leave it")
    asked = parser.parse_args()
    if asked.download:
        downloaded(asked.wheels)
    with tempfile.TemporaryDirectory() as folder:
        work = asked.keep or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        used(installed(asked.wheels.resolve(), work), work)
    print("plusx was installed without a network, from archives whose hashes the lock has, and works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
