"""One thread for every test of the loop; the toy training that they share, and the campaigns, importable."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[2] / "campaigns"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are split among threads, so bits depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
