"""What the measured correlations of gradients say, beside the theorems of Balduzzi et al. 2017 (arXiv 1702.08591)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log
from statistics import mean
from typing import TYPE_CHECKING

from plusx.lab import fully_connected as small
from plusx.lab.autocorrelation import Decay, exponential, power
from plusx.lab.results import Finding, direction, spread

if TYPE_CHECKING:
    from plusx.lab.shattering import Measured, Shattered

DEEP = 56
CLOSE, ROUGH = 0.05, 0.15  # how far a measured rate may be from that of a theorem, in theory and on photos
EXPECTED = {
    "plain": "Each layer of a plain network halves the correlation (Balduzzi et al. 2017, theorem 1).",
    "residual": "With shortcuts and batch norm it falls as one over the root of depth (theorem 3).",
    "photos": "Gradients of deep plain networks are like white noise, those of residual networks are far more resistant "
    "(Balduzzi et al. 2017, section 2).",
    "decay": "It falls exponentially with depth in plain networks and far slower with shortcuts (theorems 1 and 3).",
    "root": "One over the root of depth, an exponent of -0.5 (theorem 3).",
    "norm": "The theorem supposes that responses to different inputs stay different, as batch norm sees to; without it "
    "they grow alike with depth (Cho and Saul 2009, arc-cosine kernels), so gradients do, too.",
}
Fit = Callable[[Sequence[float], Sequence[float]], Decay | None]


def findings(measured: Measured) -> tuple[Finding, ...]:
    """In the order of the story: theory, photos, what batch norm does."""
    return (
        _theory_plain(measured),
        _theory_residual(measured),
        _on_photos(measured),
        _decay(measured),
        _root(measured),
        _norms(measured),
    )


def _theory_plain(measured: Measured) -> Finding:
    fit, runs = _fitted(measured, small.PLAIN, exponential, 0)
    if fit is None:
        return Finding("Too few depths have a correlation to fit.", EXPECTED["plain"], None)
    said = (
        f"Fully connected, {small.WIDTH} units, batch norm, independent inputs: each plain layer multiplies the "
        f"correlation of gradients by {fit.rate:.3f} (R² {fit.r2:.3f}, mean of {runs} networks)."
    )
    return Finding(said, EXPECTED["plain"], abs(fit.rate - 0.5) < CLOSE)


def _theory_residual(measured: Measured) -> Finding:
    fit, runs = _fitted(measured, small.RESIDUAL, power, 1)
    post, _ = _fitted(measured, small.POST, power, 1)
    if fit is None:
        return Finding("Too few depths have a correlation to fit.", EXPECTED["residual"], None)
    aside = "" if post is None else f"; with the ReLU behind the addition, as in He et al. 2015, {post.rate:.2f}"
    said = (
        f"The same with shortcuts: the correlation falls as (blocks + 1) to the power of {fit.rate:.2f} "
        f"(R² {fit.r2:.3f}, mean of {runs} networks){aside}."
    )
    return Finding(said, EXPECTED["residual"], abs(fit.rate + 0.5) < 2 * CLOSE)


def _fitted(measured: Measured, kind: str, fit: Fit, added: int) -> tuple[Decay | None, int]:
    rows = [row for row in measured.theory if row.kind == kind]
    depths = [row.depth + added for row in rows]
    return fit(depths, [mean(row.correlations) for row in rows]), len(rows[0].correlations)


def _on_photos(measured: Measured) -> Finding:
    plain, residual = (measured.of(kind, "batch", DEEP) for kind in ("plain", "resnet"))
    said = (
        f"A 64th of the way from photo to photo, gradients of untrained networks of {DEEP} layers with batch norm have "
        f"a correlation of {_said(plain, 'near')} without shortcuts and {_said(residual, 'near')} with them "
        f"({_seeds(plain)})."
    )
    return Finding(said, EXPECTED["photos"], _above(residual, plain, "near"))


def _decay(measured: Measured) -> Finding:
    plain, residual = (_fits(measured, kind, "near", exponential) for kind in ("plain", "resnet"))
    if not plain or not residual:
        return Finding("Too few depths have a correlation to fit.", EXPECTED["decay"], None)
    rates = [mean(fit.rate for fit in fits) for fits in (plain, residual)]
    said = (
        f"Fitted over depth, each plain layer multiplies that correlation by {rates[0]:.3f}, each residual layer by "
        f"{rates[1]:.4f}: it halves every {log(0.5) / log(rates[0]):.0f} layers without shortcuts and every "
        f"{log(0.5) / log(rates[1]):.0f} with them (R² {_r2(plain)} and {_r2(residual)}, {len(plain)} fits each)."
    )
    slower = [r.rate - p.rate for p, r in zip(plain, residual, strict=False)]
    return Finding(said, EXPECTED["decay"], direction(slower))


def _root(measured: Measured) -> Finding:
    """The exponent where inputs are well apart, as the theorem has them."""
    fits = _fits(measured, "resnet", "far", power)
    if not fits:
        return Finding("Too few depths have a correlation to fit.", EXPECTED["root"], None)
    rate = mean(fit.rate for fit in fits)
    said = (
        f"An eighth of the way, the correlation in residual networks with batch norm falls as layers to the power of "
        f"{rate:.2f} (R² {_r2(fits)}, {len(fits)} fits)."
    )
    agrees = abs(rate + 0.5) < ROUGH
    why = (
        "The theorem is about blocks h + W relu(norm(h)) and independent inputs; these have a ReLU behind the addition "
        "and a norm at the end of the branch, and inputs on one line."
    )
    return Finding(said, EXPECTED["root"], agrees, "" if agrees else why)


def _norms(measured: Measured) -> Finding:
    batch, none = (measured.of("plain", norm, DEEP) for norm in ("batch", "none"))
    said = (
        f"Without batch norm the same plain network of {DEEP} layers has a correlation of {_said(none, 'near')} instead "
        f"of {_said(batch, 'near')}: what vanishing gradients it has instead is the experiment on signals."
    )
    return Finding(said, EXPECTED["norm"], _above(none, batch, "near"))


def _fits(measured: Measured, kind: str, what: str, fit: Fit) -> list[Decay]:
    """One fit for each seed; none where one has too few points."""
    rows = [row for row in measured.photos if (row.kind, row.norm) == (kind, "batch")]
    found = []
    for seed in sorted({row.seed for row in rows}):
        own = [row for row in rows if row.seed == seed]
        found.append(fit([row.depth for row in own], [getattr(row, what) for row in own]))
    return [] if None in found else [one for one in found if one]


def _above(higher: Sequence[Shattered], lower: Sequence[Shattered], what: str) -> bool | None:
    return direction([getattr(h, what) - getattr(low, what) for h, low in zip(higher, lower, strict=True)])


def _said(rows: Sequence[Shattered], what: str) -> str:
    return spread([getattr(row, what) for row in rows], unit="", scale=1.0, digits=3)


def _r2(fits: Sequence[Decay]) -> str:
    return f"{mean(fit.r2 for fit in fits):.3f}"


def _seeds(rows: Sequence[Shattered]) -> str:
    return "one seed" if len(rows) == 1 else f"{len(rows)} seeds"
