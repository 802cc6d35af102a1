"""A plain training loop in PyTorch, for the rivals that are scripts around one."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from trial import Journal, Trial

Batches = torch.utils.data.DataLoader[Any]
WORKERS = min(2, os.cpu_count() or 1)  # more of them than cores only takes time from training


@dataclass(frozen=True)
class Recipe:
    """What goes into the loop.

    `set_rates` gets the share of the minutes that is over: every schedule is gone through once, in the time there is.
    `sensible`: bf16 where the processor multiplies in it, channels last, and both mirror images when testing.
    """

    network: nn.Module
    train: Batches
    optimizer: torch.optim.Optimizer
    set_rates: Callable[[float], None]
    label_smoothing: float = 0.0
    sensible: bool = False
    after_step: Callable[[int], None] = lambda _step: None

    def autocast(self) -> torch.autocast:
        """bf16 or what the network is in."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.sensible and has_bf16())


def has_bf16() -> bool:
    """Whether this processor has instructions that multiply in bf16."""
    return any(there for name, there in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


def fit(recipe: Recipe, journal: Journal, val: Batches | None) -> None:
    """Train until the minutes are over; validate after every epoch and at the end."""
    if recipe.sensible:
        recipe.network.to(memory_format=torch.channels_last)
    while True:
        over = _epoch(recipe, journal)
        if val is not None:
            with journal.uncounted():
                journal.validated(accuracy(recipe, val))
        if over:
            return


def _epoch(recipe: Recipe, journal: Journal) -> bool:
    """One pass over the photos, or as much of it as there is time for; whether the time is over."""
    recipe.network.train()
    before = journal.images
    for step, (images, labels) in enumerate(recipe.train):
        recipe.set_rates(min(1.0, journal.progress))
        _step(recipe, images, labels)
        recipe.after_step(step)
        journal.images += len(labels)
        if journal.progress >= 1:
            return True
    assert journal.images > before, "there are fewer photos than one batch"
    return False


def _step(recipe: Recipe, images: torch.Tensor, labels: torch.Tensor) -> None:
    with recipe.autocast():
        logits = recipe.network(_laid_out(recipe, images))
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
    recipe.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    recipe.optimizer.step()


def _laid_out(recipe: Recipe, images: torch.Tensor) -> torch.Tensor:
    return images.contiguous(memory_format=torch.channels_last) if recipe.sensible else images


@torch.no_grad()
def probabilities(recipe: Recipe, loader: Batches) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Probabilities [n, classes] and labels [n] of one batch after the other."""
    recipe.network.eval()
    for images, labels in loader:
        views = (images, images.flip(-1)) if recipe.sensible else (images,)
        with recipe.autocast():
            logits = [recipe.network(_laid_out(recipe, view)) for view in views]
        yield torch.stack([view.float().softmax(1) for view in logits]).mean(0), labels


def accuracy(recipe: Recipe, loader: Batches) -> float:
    """Of the photos of `loader`."""
    right = [(found.argmax(1) == labels) for found, labels in probabilities(recipe, loader)]
    return torch.cat(right).float().mean().item()


def test(recipe: Recipe, journal: Journal, loader: Batches, paths: Sequence[str], classes: Sequence[str]) -> None:
    """Write the probabilities of the test photos, which `loader` gives in the order of `paths`."""
    found = torch.cat([batch for batch, _ in probabilities(recipe, loader)]).tolist()
    journal.predicted(classes, zip(paths, found, strict=True))


def warm_then_cosine(optimizer: torch.optim.Optimizer, warmup: float) -> Callable[[float], None]:
    """Rates that rise in a straight line for the share `warmup` of the minutes, then fall along a cosine to zero."""
    peaks = [group["lr"] for group in optimizer.param_groups]

    def set_rates(progress: float) -> None:
        fall = max(0.0, progress - warmup) / (1 - warmup)
        share = progress / warmup if progress < warmup else (1 + math.cos(math.pi * fall)) / 2
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * share

    return set_rates


def begun(trial: Trial) -> Journal:
    """The journal of a trial whose generators are seeded."""
    trial.seed_everything()
    return Journal(trial)
