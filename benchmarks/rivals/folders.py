"""Photos from class folders by torchvision, as textbook scripts and torchvision's reference read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loop import Batches
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, Normalize, RandomHorizontalFlip, RandomResizedCrop, Resize
from torchvision.transforms import ToTensor as ToUnit

IMAGENET = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def centred(size: int) -> Compose:
    """The short side to 256/224 of `size`, and the middle of that."""
    return Compose([Resize(round(size * 256 / 224)), CenterCrop(size), ToUnit(), IMAGENET])


def cropped(size: int, smallest: float) -> Compose:
    """Random crops of `smallest` to all of the area, and mirror images."""
    return Compose([RandomResizedCrop(size, scale=(smallest, 1.0)), RandomHorizontalFlip(), ToUnit(), IMAGENET])


def squeezed(size: int) -> Compose:
    """The whole photo."""
    return Compose([Resize((size, size)), ToUnit(), IMAGENET])


def photos(folder: Path, prepare: Any, batch_size: int, *, shuffle: bool = False, workers: int = 0) -> Batches:
    """Batches of the photos in class folders."""
    dataset = ImageFolder(folder, prepare)
    return DataLoader(dataset, batch_size, shuffle=shuffle, num_workers=workers, persistent_workers=workers > 0)


def named(loader: Batches) -> tuple[Sequence[str], Sequence[str]]:
    """The paths of what `photos` made, in its order, and the classes."""
    dataset: Any = loader.dataset
    return [path for path, _ in dataset.samples], dataset.classes
