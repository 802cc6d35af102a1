"""Novelty: how far a photo is from everything the network was trained on, so that it can answer "none of these".

The score is a linear discriminant between descriptors of training photos and those of photos that show nothing of any
class (outlier exposure, Hendrycks et al. 2019, arXiv 1812.04606, with outliers made from the training photos and the
network left as it is). It is held back strongly: made photos are not those it will meet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.model_file import OURS

Floats = npt.NDArray[np.floating[Any]]

REFUSED = 0.04  # of photos like those of the validation, on average
LEAST = 50  # validation photos for a threshold: a twenty-fifth of fewer is less than two
PENALTY = 1e5  # on the squared weights, whose features have a spread of one, against summed log losses
SCORE = "discriminant"
WEIGHTS, BIAS = (f"{OURS}novelty.{name}" for name in ("weights", "bias"))  # tensors of a model file


@dataclass(frozen=True)
class Discriminant:
    """A score linear in the descriptor: `weights` [D] and a `bias`; above zero, more like the made photos."""

    weights: npt.NDArray[np.float32]
    bias: float

    def score(self, descriptors: Floats) -> npt.NDArray[np.float32]:
        """Novelty of descriptors [n, D]: [n]."""
        return np.asarray(descriptors @ self.weights + np.float32(self.bias), dtype=np.float32)

    def tensors(self) -> dict[str, npt.NDArray[np.float32]]:
        """As they lie in a model file."""
        return {WEIGHTS: self.weights, BIAS: np.array([self.bias], dtype=np.float32)}

    @classmethod
    def found(cls, tensors: Mapping[str, npt.NDArray[Any]], size: int | None) -> Discriminant | None:
        """What lies among the tensors of a model file; None where there is none.

        Raises ValueError where it does not fit descriptors of `size` numbers, None for a network without any.
        """
        weights, bias = tensors.get(WEIGHTS), tensors.get(BIAS)
        if weights is None and bias is None:
            return None
        if weights is None or bias is None or weights.shape != (size,) or bias.shape != (1,):
            raise ValueError(f"the score of novelty does not fit descriptors of {size}")
        return cls(weights.astype(np.float32), float(bias[0]))


@dataclass(frozen=True)
class Novelty:
    """The threshold of a score, and what it costs: the share of `n` other validation photos that it refuses.

    `threshold` is None where there were too few photos for one; `note` then says so.
    """

    threshold: float | None
    refused: float | None
    n: int
    score: str = SCORE
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The value as a model file holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Novelty:
        """What `to_json` wrote. Raises TypeError or ValueError where fields are missing, unknown or no numbers."""
        found = cls(**values)
        if found.threshold is not None and not math.isfinite(found.threshold):
            raise ValueError("the threshold of novelty is not finite")
        return found


def fit_discriminant(known: Floats, strange: Floats, penalty: float = PENALTY) -> Discriminant:
    """Logistic regression of descriptors [n, D] against [m, D], each side counting one half, with an L2 penalty.

    Descriptors are first brought to a mean of zero and a spread of one; the result takes them as they are. The loss is
    (n + m) times the mean over sides of their mean log loss, plus penalty / 2 times the squared weights.
    """
    from scipy.optimize import minimize

    both = np.concatenate([known, strange]).astype(np.float64)
    mean, spread = both.mean(axis=0), both.std(axis=0)
    scaled = (both - mean) / np.where(spread > 0, spread, 1.0)
    sign = np.repeat([-1.0, 1.0], [len(known), len(strange)])
    share = np.where(sign > 0, 0.5 / len(strange), 0.5 / len(known)) * len(both)

    def loss(values: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights, margins = values[:-1], sign * (scaled @ values[:-1] + values[-1])
        slope = -sign * share / (1.0 + np.exp(margins))
        gradient = np.append(scaled.T @ slope + penalty * weights, slope.sum())
        return float(share @ np.logaddexp(0.0, -margins) + penalty / 2 * weights @ weights), gradient

    found = minimize(loss, np.zeros(both.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    weights = np.where(spread > 0, found[:-1] / np.where(spread > 0, spread, 1.0), 0.0)
    return Discriminant(weights.astype(np.float32), float(found[-1] - mean @ weights))


def fit_threshold(chosen: Floats, held: Floats, refused: float = REFUSED) -> Novelty:
    """The threshold that refuses a share of all photos on average, by scores `chosen`; the share of `held` it refuses.

    For one threshold the share varies: of 436 photos, it is between 2.3 and 5.9 % nineteen times in twenty.
    """
    if len(chosen) < LEAST:
        note = f"{len(chosen)} validation photos are too few to know what is strange; {LEAST} are needed at least."
        return Novelty(None, None, len(held), note=note)
    rank = math.ceil((1 - refused) * (len(chosen) + 1))  # the share above this order statistic is `refused` on average
    threshold = float(np.sort(chosen)[rank - 1])
    return Novelty(threshold, float((held > threshold).mean()) if len(held) else None, len(held))
