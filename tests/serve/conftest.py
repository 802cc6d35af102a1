"""One small exported model for all tests of the service, and a service that serves it with the usual limits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.export.test_onnx import exported, model
from tests.serve.service import Service, running


@pytest.fixture(scope="session")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported file with calibration, four views and a score of novelty."""
    return exported(model(), tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def service(onnx: Path) -> Iterator[Service]:
    """Shared by a module: no test may harm it."""
    with running(onnx) as found:
        yield found


def jpeg(seed: int = 0, size: tuple[int, int] = (90, 70)) -> bytes:
    """A photo of noise."""
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "JPEG")
    return file.getvalue()
