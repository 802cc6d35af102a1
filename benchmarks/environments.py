"""Environments for other projects' packages that borrow the PyTorch of the interpreter running the benchmark.

One PyTorch for all is what makes their speeds comparable: a second one is never installed, and packages that would
change this one's version, or NumPy's, are refused by a constraint.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

SHARED = ("torch", "torchvision", "numpy", "pillow")


def python_for(name: str, packages: Sequence[str], needs: Sequence[str], envs: Path) -> Path:
    """The interpreter that has `packages`, installed without their dependencies, and `needs`; made once.

    This interpreter itself where there is nothing to install. Raises CalledProcessError where pip fails.
    """
    if not packages:
        return Path(sys.executable)
    env = envs / name
    installed, wanted = env / "installed.txt", "\n".join([*packages, *needs]) + "\n"
    python = env / "bin" / "python"
    if installed.exists() and installed.read_text() == wanted:
        return python
    shutil.rmtree(env, ignore_errors=True)
    venv.create(env, with_pip=False, symlinks=True)
    borrow(env)
    constraints = env / "constraints.txt"
    constraints.write_text("".join(f"{shared}=={version(shared)}\n" for shared in SHARED))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-warn-conflicts"]
    subprocess.run([*pip, "--no-deps", *packages], check=True)
    subprocess.run([*pip, "--constraint", str(constraints), *needs], check=True)
    installed.write_text(wanted)
    return python


def borrow(env: Path) -> None:
    """Let `env` see this interpreter's packages, after its own."""
    own = Path(sysconfig.get_path("purelib", "venv", {"base": str(env), "platbase": str(env)}))
    shared = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (own / "borrowed.pth").write_text("".join(f"{path}\n" for path in shared))
