"""The curve of one process beside that of several, on real photos: the fast recipe's first steps, step by step.

    python benchmarks/processes.py shards/train-0.tar --processes 1 2 3 --steps 24 --out results.jsonl

In float32, as runs are trained, and in float64. Equal batches give gradients that agree up to rounding; a high rate
amplifies what rounding leaves, of one process with other threads as well. In float64 there is next to none, so that a
curve which leaves the other there is another training, and no rounding. Prints how far losses are from those of one
process, as shares; a table of it goes into docs/experiments.md by hand.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from plusx.config import Config
from plusx.data.augment import Augment
from plusx.data.cache import pixel_store
from plusx.data.loader import Batches, Part, Samples
from plusx.data.source import content_hashes, scan
from plusx.launch import launched
from plusx.models.normalise import Normalised
from plusx.recipes.resolve import resolve
from plusx.training import environment
from plusx.training.settings import Settings
from plusx.training.step import State, train_step
from plusx.training.world import World, joined
from plusx.verbs import labelled
from plusx.verbs.network import build_network, whiten
from plusx.verbs.session import order_of

SIZE = 48  # px


class Doubled(nn.Module):
    """A network in float64, its normalisation included; the loss stays in float32."""

    def __init__(self, normalised: Normalised) -> None:
        super().__init__()
        self.whole = normalised.double()

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of pixels [B, 3, H, W]."""
        images = pixels.double().div(255).sub(self.whole.mean).div(self.whole.std)
        logits: Tensor = self.whole.network(images)
        return logits


def batches_of(data: str, config: Config, world: World) -> tuple[Batches, int]:
    """The batches of every photo of DATA, and how many classes there are."""
    listing = scan([data])
    how = labelled.training_preprocess(config, SIZE)
    hashes = content_hashes(listing.photos)
    store, _ = world.alike(lambda: pixel_store(listing.photos, hashes, how))
    labels = np.array([photo.label for photo in listing.photos], dtype=np.int64)
    samples = Samples(labels, np.arange(len(labels)), [photo.name for photo in listing.photos], len(listing.classes))
    part = Part(torch.device("cpu"), world.rank, world.size)
    augment = Augment.of(config.model_dump())
    return Batches(store, samples, order_of(config), augment, lambda _: SIZE, part), len(listing.classes)


def curve(data: str, steps: int, world: World, *, doubled: bool) -> list[float]:
    """The losses of the first steps."""
    config = resolve({"recipe": "fast", "size": SIZE, "epochs": 2}, sets=("precision=fp32",), environment={})
    batches, classes = batches_of(data, config, world)
    network = build_network(config, classes, torch.device("cpu"))
    whiten(network, batches)
    each = batches.steps_per_epoch
    settings = Settings.of(config.model_dump(), total_steps=2 * each, steps_per_epoch=each)
    state = State.fresh(Doubled(network) if doubled else network, settings, world=world)
    losses = [train_step(state, batches.batch(step), settings).loss for step in range(steps)]
    batches.close()
    return losses


def member(data: str, steps: int, out: Path) -> None:
    """One of the processes: both curves, which the first writes."""
    environment.prepare(torch.device("cpu"), 1)
    with joined(torch.device("cpu")) as world:
        found = {name: curve(data, steps, world, doubled=name == "float64") for name in ("float32", "float64")}
    if launched().first:
        out.write_text(json.dumps(found))


def started(data: str, steps: int, processes: int) -> dict[str, list[float]]:
    """Both curves by so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "curves.json"
        own = [__file__, data, "--steps", str(steps), "--member", str(out)]
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        subprocess.run([sys.executable, *(torchrun if processes > 1 else []), *own], check=True)
        curves: dict[str, list[float]] = json.loads(out.read_text())
        return curves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--member", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.member:
        member(given.data, given.steps, given.member)
        return
    curves = {count: started(given.data, given.steps, count) for count in sorted({1, *given.processes})}
    if given.out:
        with given.out.open("a") as file:
            file.write(json.dumps({"benchmark": "processes", "steps": given.steps, "losses": curves}) + "\n")
    for kind in ("float32", "float64"):
        for step in sorted({*range(min(6, given.steps)), *range(7, given.steps, 4), given.steps - 1}):
            one = curves[1][kind][step]
            others = [f"{n}: {abs(curves[n][kind][step] / one - 1):.1e}" for n in curves if n > 1]
            print(f"{kind} step {step + 1:3d} loss {one:.7f}  off by share  {'  '.join(others)}")


if __name__ == "__main__":
    main()
