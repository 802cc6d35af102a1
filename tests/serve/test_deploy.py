"""docs/deploy.md: its container holds what serving an exported file needs, and its unit hears when it is ready."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOADED = """
import sys
from pathlib import Path
import uvloop, plusx.cli.serve, plusx.serve.start, plusx.serve.supervisor
from plusx.serve.served import Served
served = Served.load(Path(sys.argv[1]))
import numpy as np
served.classifier.answers(np.zeros((2, 64, 64, 3), dtype=np.uint8))
served.explainer.evidence(np.zeros((1, 64, 64, 3), dtype=np.uint8), np.array([0]))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def listed() -> set[str]:
    """The packages that the recipe installs."""
    recipe = (ROOT / "docs" / "deploy.md").read_text()
    found = re.search(r"pip install --no-cache-dir (.*?)&&", recipe, re.DOTALL)
    assert found
    return {word for word in found[1].split() if word != "\\"}


def with_what_they_need(names: set[str]) -> set[str]:
    """Distributions, and what these require themselves, without extras."""
    found: set[str] = set()
    waiting = {name.lower().replace("_", "-") for name in names}
    while waiting:
        name = waiting.pop()
        found.add(name)
        with contextlib.suppress(ModuleNotFoundError):
            wanted = [line for line in requires(name) or () if "extra ==" not in line]
            more = {re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0].lower().replace("_", "-") for line in wanted}
            waiting |= more - found
    return found


def test_the_container_holds_all_that_serving_an_exported_file_imports(onnx: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(onnx)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    known = packages_distributions()
    imported = {known[name][0].lower().replace("_", "-") for name in done.stdout.split() if name in known} - {"plusx"}
    assert {"onnxruntime", "fastapi", "uvicorn"} <= imported
    assert imported - with_what_they_need(listed()) <= {"pi-heif", "setuptools"}  # an extra; what .pth files load
    assert not {"torch", "scipy", "jinja2", "matplotlib"} & set(done.stdout.split())


@contextlib.contextmanager
def supervisor(path: Path) -> Iterator[socket.socket]:
    """Where systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(60)
        yield listener


def test_a_supervisor_hears_that_the_service_is_ready(onnx: Path, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with supervisor(path) as listener:
        command = [sys.executable, "-m", "plusx", "serve", str(onnx), "--port", "0"]
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"NOTIFY_SOCKET": str(path)}, stdout=subprocess.PIPE, text=True
        )
        with process:
            assert listener.recv(100) == b"READY=1"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert process.stdout is not None
            assert process.stdout.read().startswith("serving model on http://127.0.0.1:")
