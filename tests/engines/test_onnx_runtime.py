"""Nothing is reported to anybody: ONNX Runtime's reports are off in every process that plusx computes in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPENED = "import os; print([os.readlink(f'/proc/self/fd/{f}') for f in os.listdir('/proc/self/fd') if int(f) > 2 and "
OPENED += "os.path.lexists(f'/proc/self/fd/{f}')]); print(open('/proc/self/status').read())"
QUIET = ("ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI", "TF_BUILD", "GITHUB_ACTIONS")


def loading(how: str, home: Path) -> tuple[bool, int]:
    """Whether a process that loads the runtime has a database of reports, and how many threads it has."""
    environment = {key: value for key, value in os.environ.items() if key not in QUIET}
    done = subprocess.run(
        [sys.executable, "-c", f"{how}; {OPENED}"],
        env=environment | {"HOME": str(home), "XDG_CACHE_HOME": "", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    threads = re.search(r"Threads:\s+(\d+)", done.stdout)
    assert threads
    return "onnxruntime.db" in done.stdout or any(home.rglob("*.db")), int(threads[1])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are looked up in /proc")
def test_the_runtime_reports_nothing_and_keeps_no_database_of_reports(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "ours").mkdir()
    bare, more = loading("import onnxruntime", tmp_path / "bare")
    ours, threads = loading("from plusx.engines.onnx_runtime import onnx_runtime; onnx_runtime()", tmp_path / "ours")
    assert not ours
    assert not list((tmp_path / "ours").rglob("*"))
    if not bare:
        pytest.skip("this ONNX Runtime reports nothing by itself, so there is nothing to keep it from")
    assert threads < more


def test_it_is_imported_nowhere_else() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "plusx").rglob("*.py"))
        if re.search(r"^\s*(import|from) onnxruntime", path.read_text(), re.MULTILINE)
    ]
    assert found == []
