"""What the measured correlations of gradients say, beside the theorems of Balduzzi et al. 2017 (arXiv 1702.08591)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING

from plusx.lab import fully_connected as small
from plusx.lab.autocorrelation import Decay, crossing, exponential, power
from plusx.lab.results import Finding, direction, seeds_said, spread

if TYPE_CHECKING:
    from plusx.lab.shattering import Measured, Shattered

DEEP = 56
COMPARED = 8  # blocks
ASYMPTOTIC = 3  # blocks, from which on (blocks + 1) to a power is fitted
CLOSE, ROUGH = 0.05, 0.15  # how far a measured rate may be from that of a theorem, in theory and on photos
NOT_FITTED = "Too few depths have a correlation to fit."
EXPECTED = {
    "plain": "Each layer of a plain network halves the correlation (Balduzzi et al. 2017, theorem 1).",
    "residual": "With shortcuts and batch norm it falls sublinearly, as one over the root of depth (theorem 3).",
    "photos": "Gradients of deep plain networks are like white noise, those of residual networks far more resistant "
    "(Balduzzi et al. 2017, section 2).",
    "half": "Depth costs plain networks their correlation exponentially, residual ones far slower (theorems 1 and 3).",
    "root": "One over the root of depth, an exponent of -0.5 (theorem 3).",
    "norm": "The theorem supposes that responses to different inputs stay different, as batch norm sees to; without it "
    "they grow alike with depth (Cho and Saul 2009, arc-cosine kernels), so gradients do, too.",
}


def findings(measured: Measured) -> tuple[Finding, ...]:
    """The networks of the lab first, as they tell most; then the theory, and what batch norm does."""
    return (
        _on_photos(measured),
        _halved(measured),
        _theory_plain(measured),
        _theory_residual(measured),
        _root(measured),
        _norms(measured),
    )


def _theory_plain(measured: Measured) -> Finding:
    depths, values = _theory(measured, small.PLAIN, small.BATCH)
    fit = exponential(depths, values)
    if fit is None:
        return Finding(NOT_FITTED, EXPECTED["plain"], None)
    said = (
        f"Fully connected, {small.WIDTH} units, batch norm, independent inputs: each plain layer multiplies the "
        f"correlation of gradients by {fit.rate:.3f} (R² {fit.r2:.3f}, {_networks(measured)})."
    )
    return Finding(said, EXPECTED["plain"], abs(fit.rate - 0.5) < CLOSE)


def _theory_residual(measured: Measured) -> Finding:
    """The exponent, and what the means that batch norm takes away have to do with it."""
    batch, scale = (_law(measured, small.RESIDUAL, norm) for norm in (small.BATCH, small.SCALE))
    if batch is None or scale is None:
        return Finding(NOT_FITTED, EXPECTED["residual"], None)
    said = (
        f"The same with shortcuts: the correlation falls as (blocks + 1) to the power of {batch.rate:.2f} from "
        f"{ASYMPTOTIC} blocks on (R² {batch.r2:.3f}, {_networks(measured)}). At {COMPARED} blocks it is "
        f"{_at(measured, small.RESIDUAL):.3f}, with the ReLU behind the addition, as in He et al. 2015, "
        f"{_at(measured, small.POST):.3f}, and at as many plain layers {_at(measured, small.PLAIN):.3f}."
    )
    why = (
        f"The theorem counts the whole square of a response, batch norm divides by the deviation around its mean: with "
        f"division by the root mean square instead, the exponent is {scale.rate:.2f}."
    )
    return Finding(said, EXPECTED["residual"], -1.0 < batch.rate < 0.0, why)


def _law(measured: Measured, kind: str, norm: str) -> Decay | None:
    depths, values = _theory(measured, kind, norm)
    kept = [(depth + 1, value) for depth, value in zip(depths, values, strict=True) if depth >= ASYMPTOTIC]
    return power([depth for depth, _ in kept], [value for _, value in kept])


def _at(measured: Measured, kind: str) -> float:
    depths, values = _theory(measured, kind, small.BATCH)
    return dict(zip(depths, values, strict=True))[COMPARED]


def _theory(measured: Measured, kind: str, norm: str) -> tuple[list[int], list[float]]:
    rows = [row for row in measured.theory if (row.kind, row.norm) == (kind, norm)]
    return [row.depth for row in rows], [mean(row.correlations) for row in rows]


def _networks(measured: Measured) -> str:
    return f"mean of {len(measured.theory[0].correlations)} networks"


def _on_photos(measured: Measured) -> Finding:
    plain, residual = (measured.of(kind, "batch", DEEP) for kind in ("plain", "resnet"))
    said = (
        f"A 64th of the way from photo to photo, gradients of untrained networks of {DEEP} layers with batch norm have "
        f"a correlation of {_said(plain, 'near')} without shortcuts and {_said(residual, 'near')} with them "
        f"({seeds_said(len(plain))})."
    )
    return Finding(said, EXPECTED["photos"], _above(residual, plain, "near"))


def _halved(measured: Measured) -> Finding:
    """The depth at which the correlation is below one half, seed by seed."""
    plain, residual = ([crossing(*own) for own in _by_seed(measured, kind, "near")] for kind in ("plain", "resnet"))
    known = [row.depth for row in measured.photos]
    ends = min(known), max(known)
    fits = [exponential(depths, values) for depths, values in _by_seed(measured, "resnet", "near")]
    rates = [fit.rate for fit in fits if fit]
    aside = f"; fitted, each residual layer multiplies it by {mean(rates):.4f}" if rates else ""
    said = (
        f"That correlation falls below one half at {_depths(plain, *ends)} layers without shortcuts and at "
        f"{_depths(residual, *ends)} with them ({seeds_said(len(plain))}){aside}."
    )
    later = [(r or 2 * ends[1]) - (p or 2 * ends[1]) for p, r in zip(plain, residual, strict=True)]
    return Finding(said, EXPECTED["half"], direction(later))


def _depths(found: Sequence[float | None], shallowest: int, deepest: int) -> str:
    """Depths of all seeds: beyond the deepest that was measured, and down to the shallowest, they are not known."""
    known = [depth for depth in found if depth is not None]
    if not known:
        return f"more than {deepest}"
    least = f"{shallowest} or fewer" if min(known) == shallowest else f"{min(known):.0f}"
    if len(known) < len(found):
        return f"{least} to more than {deepest}"
    return least if max(known) == shallowest else spread(known, unit="", scale=1.0, digits=0)


def _root(measured: Measured) -> Finding:
    """The exponent where inputs are well apart, as the theorem has them."""
    fits = [fit for depths, values in _by_seed(measured, "resnet", "far") if (fit := power(depths, values))]
    if not fits:
        return Finding(NOT_FITTED, EXPECTED["root"], None)
    rate, r2 = mean(fit.rate for fit in fits), mean(fit.r2 for fit in fits)
    said = (
        f"An eighth of the way, the correlation in residual networks with batch norm falls as layers to the power of "
        f"{rate:.2f} (R² {r2:.3f}, {seeds_said(len(fits))})."
    )
    agrees = abs(rate + 0.5) < ROUGH
    why = (
        "These blocks have a ReLU behind the addition and a norm at the end of the branch, and batch norm takes means "
        "away, none of which the theorem has; and inputs on one line are not independent."
    )
    return Finding(said, EXPECTED["root"], agrees, "" if agrees else why)


def _norms(measured: Measured) -> Finding:
    batch, none = (measured.of("plain", norm, DEEP) for norm in ("batch", "none"))
    said = (
        f"Without batch norm the same plain networks of {DEEP} layers have a correlation of {_said(none, 'near')} "
        f"instead of {_said(batch, 'near')}; what they suffer from instead, plusx lab signals shows."
    )
    return Finding(said, EXPECTED["norm"], _above(none, batch, "near"))


def _by_seed(measured: Measured, kind: str, what: str) -> list[tuple[list[int], list[float]]]:
    """Depths and correlations of the networks with batch norm, seed by seed."""
    rows = [row for row in measured.photos if (row.kind, row.norm) == (kind, "batch")]
    seeds = sorted({row.seed for row in rows})
    own = [[row for row in rows if row.seed == seed] for seed in seeds]
    return [([row.depth for row in some], [getattr(row, what) for row in some]) for some in own]


def _above(higher: Sequence[Shattered], lower: Sequence[Shattered], what: str) -> bool | None:
    return direction([getattr(h, what) - getattr(low, what) for h, low in zip(higher, lower, strict=True)])


def _said(rows: Sequence[Shattered], what: str) -> str:
    return spread([getattr(row, what) for row in rows], unit="", scale=1.0, digits=3)
