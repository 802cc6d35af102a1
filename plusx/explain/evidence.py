"""What an explanation consists of, whoever computes it: evidence, the contrast it speaks for, and who can be asked.

No torch: the network may be one of PyTorch (`explainer`) or an exported file (`exported`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from plusx.classifier import Engine
from plusx.explain import occlusion, windows
from plusx.explain.occlusion import Answer
from plusx.model_file import Header

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

METHODS = ("auto", "cam", "grad-cam", "occlusion")
CLOSER, PLACES = 0.8, 3  # besides its views, maps are made of 3 x 3 windows as near as the view "closer"
BATCH = 32


@dataclass(frozen=True)
class Evidence:
    """`maps` [n, GRID, GRID] say how much each place speaks for the class; `log_odds` [n] what the views add up to.

    `log_odds` is the mean over views of the class's logit less the mean of the others', NaN where no logits can be
    had. Maps of CAM are on that scale, those of occlusion on that of probabilities, those of Grad-CAM on none.
    """

    maps: Floats
    log_odds: Floats

    @classmethod
    def of_parts(cls, parts: list[Evidence]) -> Evidence:
        """The evidence of several batches of photos as one."""
        return cls(np.concatenate([p.maps for p in parts]), np.concatenate([p.log_odds for p in parts]))


class Explains(Protocol):
    """A trained network that is asked why, with one method of explaining it."""

    method: str

    @property
    def engine(self) -> Engine:
        """What answers."""

    def evidence(self, pixels: Pixels, labels: Labels) -> Evidence:
        """Maps for the classes `labels` [n] of preprocessed photos [n, S, S, 3]."""

    def randomised(self, number: int) -> Self | None:
        """The same with fresh weights, which depend on `number` alone; None where there is no network to renew."""

    def features(self, pixels: Pixels) -> Floats32 | None:
        """Unit vectors [n, D] of what the head sees of photos [n, S, S, 3]; None where nothing gives them."""


def batches(count: int) -> list[slice]:
    """Which photos of so many are explained together."""
    return [slice(start, start + BATCH) for start in range(0, count, BATCH)]


def contrasts(labels: Labels, classes: int) -> Floats32:
    """What speaks for a class against the others, as weights of the logits: labels [n] -> [n, classes].

    1 for the class, -1 / (classes - 1) for each other one. Adding the same to all logits changes no softmax, so a
    logit alone says nothing about an answer; with two classes only the difference does, and it is the log of the odds.
    """
    chosen = np.eye(classes, dtype=np.float32)[labels]
    return np.asarray(chosen - (1 - chosen) / np.float32(max(1, classes - 1)))


def occlusions(answer: Answer, pixels: Pixels, labels: Labels, header: Header, steps: int = occlusion.STEPS) -> Floats:
    """Maps [n, GRID, GRID] by covering photos [n, S, S, 3] with the colour that the network sees as nothing."""
    size, fill = pixels.shape[1], mean_colour(header)
    side, stride = max(1, round(occlusion.SHARE * size)), max(1, size // steps)
    rows = zip(pixels, labels.tolist(), strict=True)
    maps = [occlusion.occlusion(answer, photo, label, fill, side, stride) for photo, label in rows]
    return windows.resized(np.stack(maps))


def mean_colour(header: Header) -> tuple[int, ...]:
    """The colour that the network sees as nothing, zero on every channel: RGB 0..255."""
    return tuple(round(255 * value) for value in header.preprocess.mean)
