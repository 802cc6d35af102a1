"""A small world for the verbs: noisy photos of two kinds, a quick recipe, and a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

QUICK: dict[str, Any] = {"model": "resnet20", "epochs": 3, "size": 32, "batch_size": 16, "seed": 1, "device": "cpu"}
SETS = ("width=0.25", "sizes=[]", "checkpoint_every=2", "log_every=2", "average=ema", "workers=0")


def draw(label: int, number: int, size: tuple[int, int] = (40, 36)) -> Image.Image:
    """Stripes along one side or the other, with noise."""
    random = np.random.default_rng([label, number])
    width, height = size
    waves = np.sin(np.arange(width if label else height) * random.uniform(0.8, 1.2) + random.uniform(0, 6))
    plane = np.tile(waves, (height, 1)) if label else np.tile(waves[:, None], (1, width))
    pixels = 128 + 60 * plane[..., None] + random.normal(0, 25, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def fill(folder: Path, counts: dict[str, int], first: int = 0) -> Path:
    """Class folders of JPEGs, numbered from `first`."""
    for label, (name, count) in enumerate(sorted(counts.items())):
        (folder / name).mkdir(parents=True)
        for number in range(first, first + count):
            draw(label, number).save(folder / name / f"{number}.jpg", quality=90)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """60 photos of two classes, without split folders."""
    return fill(tmp_path / "stripes", {"lying": 30, "standing": 30})
