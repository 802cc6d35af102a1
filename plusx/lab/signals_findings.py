"""What the signals of trainings say, and what the literature says of them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING

from plusx.lab.results import Finding, direction, seeds_said, spread
from plusx.lab.signals_tables import about, ended, largest_update, mean_responses, ratio

if TYPE_CHECKING:
    from plusx.lab.signals import Measured, Watched

SHALLOW, DEEP = 20, 56
HEALTHY = 0.1  # a first layer that gets less of the gradient than this has lost it
NEAR = 0.2  # responses whose deviation departs from 1 by less are about as wide as before training
DOUBLING = (1.5, 2.5)  # what counts as a doubling of variance
EXPECTED = {
    "healthy": "With batch norm gradients do not vanish in plain networks; that deeper ones are worse all the same is "
    "unlikely to come from vanishing gradients (He et al. 2015, section 4.1).",
    "grows": "Batch norm makes gradients of plain networks with their first weights grow on their way back, by about "
    "1.21 a layer where these are wide and fully connected (Yang et al. 2019, arXiv 1902.08129).",
    "vanish": "Without norms signals vanish or explode with depth and hamper convergence from the beginning "
    "(He et al. 2015, section 1).",
    "explode": "Without norms every residual block doubles the variance of responses (Zhang et al. 2019, Fixup, "
    "arXiv 1901.09321, section 2).",
    "smaller": "Residual networks have generally smaller responses than plain ones (He et al. 2015, figure 7).",
    "deeper": "Deeper residual networks have smaller responses (He et al. 2015, figure 7).",
    "weights": "Weights of variance 2 / fan-in keep signals alive where smaller ones, such as a default of "
    "1 / (3 fan-in), lose them (He et al. 2015, arXiv 1502.01852, section 2.2): the first cure.",
}


def findings(measured: Measured, after: str) -> tuple[Finding, ...]:
    """In the order of the story; `after` says how long was trained."""
    return (
        _healthy(measured, after),
        _grows(measured),
        _vanish(measured, after),
        _explode(measured),
        _smaller(measured, after),
        _deeper(measured, after),
        _weights(measured),
    )


def _healthy(measured: Measured, after: str) -> Finding:
    deep, shallow = (measured.of("plain", "batch", depth) for depth in (DEEP, SHALLOW))
    settled = [row.settled for row in deep]
    told = (
        f"{after}, plain networks of {DEEP} layers with batch norm {ended(deep)}, those of "
        f"{SHALLOW} layers {ended(shallow)}. In training the gradient at the first of {DEEP} layers is "
        f"{about(settled)} times that at the last ({seeds_said(len(deep))})."
    )
    known = [value for value in settled if value is not None]
    return Finding(told, EXPECTED["healthy"], direction([value - HEALTHY for value in known]))


def _grows(measured: Measured) -> Finding:
    """Not vanishing but growing, at the first step."""
    plain, residual = (measured.of(kind, "batch", DEEP) for kind in ("plain", "resnet"))
    gaps = len(plain[0].layers) - 1
    reached = [_finite([row.course[0].reach for row in rows]) for rows in (plain, residual)]
    if not all(reached):
        return Finding("The gradients of the first step are not finite.", EXPECTED["grows"], None)
    factors = [[value ** (1 / gaps) for value in some] for some in reached]
    agrees = direction([factor - 1 for factor in factors[0]])
    told = (
        f"At the first step the gradient at the first of {DEEP} plain layers with batch norm is {about(reached[0])} "
        f"times that at the last, {mean(factors[0]):.2f} a layer, and with shortcuts {about(reached[1])} times, "
        f"{mean(factors[1]):.2f} a layer{': it grows on its way back' if agrees else ''}. That step changes a plain "
        f"layer by up to {about([largest_update(row) for row in plain])} times its weights."
    )
    return Finding(told, EXPECTED["grows"], agrees)


def _finite(values: Sequence[float | None]) -> list[float]:
    """Without those that are not: they have exploded, which is not to have vanished."""
    return [value for value in values if value is not None]


def _vanish(measured: Measured, after: str) -> Finding:
    rows = measured.of("plain", "none", DEEP)
    reached, carried = [row.course[0].reach for row in rows], [row.course[0].carry for row in rows]
    told = (
        f"Without norms the last of {DEEP} plain layers starts with responses {about(carried)} times as wide as the "
        f"first's, and {about(reached)} of the gradient arrives at the first. {after} they "
        f"{ended(rows)}; guessing has {100 * measured.chance:.2f} %."
    )
    both = [_finite(pair) for pair in zip(reached, carried, strict=True)]
    lost = [HEALTHY - max(values) for values in both if len(values) == 2]
    return Finding(told, EXPECTED["vanish"], direction(lost))


def _explode(measured: Measured) -> Finding:
    rows = measured.of("resnet", "none", DEEP)
    growth = [growth_per_block(row) for row in rows]
    told = (
        f"With shortcuts and without norms each of {len(rows[0].layers) // 2} blocks multiplies the variance of "
        f"responses by {about(growth)} at the first step; they {ended(rows)} ({seeds_said(len(rows))})."
    )
    low, high = DOUBLING
    return Finding(told, EXPECTED["explode"], direction([min(g - low, high - g) for g in growth]))


def growth_per_block(row: Watched) -> float:
    """By what factor the variance of responses at the end of a branch grows from block to block, on average."""
    ends = [value for name, value in zip(row.layers, row.start["response"], strict=True) if name.endswith("conv2")]
    first, last = ends[0], ends[-1]
    return float((last / first) ** (2 / (len(ends) - 1))) if first and last else float("inf")


def _smaller(measured: Measured, after: str) -> Finding:
    plain, residual = (measured.of(kind, "batch", DEEP) for kind in ("plain", "resnet"))
    return _compared(plain, residual, ("plain", "residual"), after, "smaller")


def _deeper(measured: Measured, after: str) -> Finding:
    shallow, deep = (measured.of("resnet", "batch", depth) for depth in (SHALLOW, DEEP))
    return _compared(shallow, deep, ("residual", "residual"), after, "deeper")


def _compared(
    larger: Sequence[Watched], smaller: Sequence[Watched], kinds: tuple[str, str], after: str, what: str
) -> Finding:
    pairs = [(a, b) for a, b in zip(*map(mean_responses, (larger, smaller)), strict=True) if a and b]
    if not pairs:
        return Finding("The networks diverged.", EXPECTED[what], None)
    shown = [spread([pair[i] for pair in pairs], unit="", scale=1.0, digits=3) for i in (0, 1)]
    told = (
        f"{after}, responses of {kinds[1]} networks of {smaller[0].depth} layers have a deviation of {shown[1]} in the "
        f"mean over layers, those of {kinds[0]} ones of {larger[0].depth} layers {shown[0]} "
        f"({seeds_said(len(pairs))})."
    )
    agrees = direction([a - b for a, b in pairs])
    return Finding(
        told, EXPECTED[what], agrees, "" if agrees else _why_not([value for pair in pairs for value in pair])
    )


def _why_not(deviations: Sequence[float]) -> str:
    """Norms begin at a scale of 1, and so do responses."""
    if all(abs(value - 1) < NEAR for value in deviations):
        return "All are still near 1, where norms begin: these trainings were too short to tell depths apart by it."
    return ""


def _weights(measured: Measured) -> Finding:
    found = {
        how: [ratio(row) for row in measured.untrained if (row.how, row.depth) == (how, SHALLOW)]
        for how in ("He", "PyTorch")
    }
    told = (
        f"Untrained and without norms, {about(found['PyTorch'])} of the gradient arrives at the first of {SHALLOW} "
        f"plain layers with PyTorch's default weights, and {about(found['He'])} with He's "
        f"({seeds_said(len(found['He']))})."
    )
    pairs = [_finite(pair) for pair in zip(found["He"], found["PyTorch"], strict=True)]
    ahead = [pair[0] - pair[1] for pair in pairs if len(pair) == 2]
    return Finding(told, EXPECTED["weights"], direction(ahead))
