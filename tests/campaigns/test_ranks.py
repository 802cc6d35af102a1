"""Row T14 in short: one process of two is killed under torchrun, which brings the training back to the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CAMPAIGN = Path(__file__).parents[2] / "campaigns" / "ranks.py"


def test_torchrun_brings_a_training_back_that_has_lost_a_process(tmp_path: Path) -> None:
    """T14: all ended in time, the rank was named, and the model is that of a training that nobody disturbed."""
    command = [sys.executable, str(CAMPAIGN), "--faults", "1", "--steps", "30", "--out", str(tmp_path / "totals")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    totals = json.loads((tmp_path / "totals").read_text())
    assert (totals["faults"], totals["named"], totals["trainings"]) == (1, 1, 1)
    assert totals["seconds"]["most"] < 30
    assert totals["broken"] == []
