"""Whoever watches a training is told of every step while its gradients are there."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch import nn

from plusx.config import Config
from plusx.errors import Interrupted
from plusx.run_folder import RunFolder
from plusx.training.events import Event, Listener, StepDone
from plusx.verbs import decoding, labelled
from plusx.verbs.session import Session, prepared_device
from plusx.verbs.train import resume_split, train_split
from plusx.verbs.wish import Wish

CONFIG = Config(model="resnet20", width=0.25, size=32, epochs=2, batch_size=16, seed=1, device="cpu").model_copy(
    update={"workers": 0, "learning_rate": 0.01, "checkpoint_every": 2}
)


class Watcher:
    """Remembers whom it watched, and how large the gradients were at each step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.watched: list[tuple[nn.Module, Path]] = []
        self.gradients: dict[int, float] = {}
        self.stop_at = stop_at

    def __call__(self, network: nn.Module, run: RunFolder) -> Listener:
        self.watched.append((network, run.path))

        def listen(event: Event) -> None:
            if isinstance(event, StepDone):
                norms = [p.grad.norm() for p in network.parameters() if p.grad is not None]
                self.gradients[event.step] = float(torch.stack(norms).norm())
                if event.step == self.stop_at:
                    raise KeyboardInterrupt

        return listen


def train(data: Path, out: Path, watcher: Watcher | None, *, resume: bool = False) -> None:
    session = Session((str(data),), CONFIG, prepared_device(CONFIG), 0.0, lambda _: None, bare=True, watch=watcher)
    photos = labelled.look(session.data, CONFIG)
    pixels = decoding.decode(session, photos, "", None)
    with closing(pixels.store), closing(decoding.parted(session, photos, pixels)) as decoded:
        if resume:
            resume_split(session, RunFolder(out), photos, decoded)
        else:
            train_split(session, photos, decoded, Wish(out=out))


def test_a_watcher_sees_the_gradients_of_every_step_and_of_those_after_a_stop(data: Path, tmp_path: Path) -> None:
    whole, first, second = Watcher(), Watcher(stop_at=3), Watcher()
    train(data, tmp_path / "whole", whole)
    assert len(whole.watched) == 1
    assert whole.watched[0][1] == tmp_path / "whole"
    assert sorted(whole.gradients) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(Interrupted):
        train(data, tmp_path / "parted", first)
    train(data, tmp_path / "parted", second, resume=True)
    assert (sorted(first.gradients), sorted(second.gradients)) == ([1, 2, 3], [3, 4, 5, 6]), "the checkpoint is of 2"
    assert first.gradients | second.gradients == whole.gradients, "the gradients are those of that very step"


def test_watching_changes_nothing(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "watched", Watcher())
    train(data, tmp_path / "alone", None)
    watched, alone = ((tmp_path / name / "history.jsonl").read_bytes() for name in ("watched", "alone"))
    assert watched == alone
