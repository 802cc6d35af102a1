"""A small world for the lab: striped photos, tiny networks, and a laboratory that is open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from plusx.lab import conduct
from plusx.lab.conduct import LabWish, Size
from plusx.lab.job import Job, train_network
from plusx.lab.laboratory import Lab
from plusx.lab.network import Network
from plusx.lab.photos import Amount
from tests.verbs.conftest import fill

TINY = {"recipe": "cifar", "size": 16, "width": 0.25, "batch_size": 16, "device": "cpu", "log_every": 2, "workers": 0}
SIZE = Size(TINY, Amount(64, 16), steps=8, seeds=2)


def train_here(lab: Lab, networks: Sequence[Network]) -> None:
    """In this process: the others would take longer to start than all of this takes."""
    for network in lab.missing(networks):
        train_network(lab.setup, Job(network, lab.run(network).path, lab.steps), lab._photos, lambda _: None)


@pytest.fixture
def stripes(tmp_path: Path) -> Path:
    """72 photos to train on and 24 to test on, of two classes."""
    fill(tmp_path / "stripes" / "train", {"lying": 36, "standing": 36})
    fill(tmp_path / "stripes" / "test", {"lying": 12, "standing": 12}, first=100)
    return tmp_path / "stripes"


@pytest.fixture
def open_lab(stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Lab]:
    """Opens the laboratory of an experiment of tiny networks; `heard` gets its events."""

    def opened(name: str = "degradation", heard: list[object] | None = None, size: Size = SIZE, **wish: object) -> Lab:
        monkeypatch.setattr(conduct, "_size", lambda *_: size)
        told = LabWish(out=tmp_path / "lab", processes=2, **wish)  # type: ignore[arg-type]
        return conduct.open_lab(name, [str(stripes)], told, (heard if heard is not None else []).append)

    return opened
