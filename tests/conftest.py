"""What every test gets: fixed seeds, one thread, no cache of the user's, and real photos where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data.s3 import server, wire

__all__ = ["server", "wire"]  # fixtures

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; threads of one would stall the others

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime reports what it loads, otherwise

ROOT = Path(__file__).parents[1]
PHOTOS = Path(os.environ.get("PLUSX_PHOTOS", ROOT.parent / "shared" / "data"))


@pytest.fixture
def photos() -> Path:
    """The folder of real photos, or a skip that says how to name one."""
    if not (PHOTOS / "dogs-vs-cats").is_dir():
        pytest.skip("no real photos here: set PLUSX_PHOTOS to a folder that holds dogs-vs-cats/train-0.tar")
    return PHOTOS


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """PLUSX_PHOTOS is read by now, and no setting that plusx knows."""
    monkeypatch.delenv("PLUSX_PHOTOS", raising=False)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the cache of the person who runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Global generators start equal in every test that uses torch."""
    import sys

    if "torch" in sys.modules:
        import torch

        torch.manual_seed(0)
