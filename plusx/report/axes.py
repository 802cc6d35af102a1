"""Axes of a chart: where a value lies, which values are labelled, and how they are said."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from plusx.metrics import percent

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
MOST_TICKS = 7
LEAST_LOG = 1e-4  # where a logarithmic axis ends unless told otherwise: zero has no place on it
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`; `share` labels fractions as percent, `log` spaces powers of ten evenly."""

    label: str
    low: float
    high: float
    log: bool = False
    share: bool = False

    @classmethod
    def around(
        cls, label: str, values: Iterable[float], *, log: bool = False, share: bool = False, least: float = LEAST_LOG
    ) -> Axis:
        """An axis that holds all of `values`, with round ends; without values from 0 to 1.

        A logarithmic one ends at `least` at the latest.
        """
        finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        if log:
            low, high = max(low, least), max(high, least)
            low, high = _round_down(low), -_round_down(-high)
            return cls(label, low, high if high > low else 10 * low, log, share)
        step = _step(high - low or abs(high) or 1.0)
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
        return cls(label, low, high if high > low else low + step, log, share)

    def place(self, value: float) -> float:
        """Where `value` lies between the ends, in [0, 1]; what lies outside is at an end."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        return min(1.0, max(0.0, (self._scaled(value) - low) / (high - low)))

    def between(self, count: int) -> list[float]:
        """`count` values that part the axis evenly, its ends left out, rounded to two digits."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        inner = [low + (high - low) * (k + 1) / (count + 1) for k in range(count)]
        return sorted({float(f"{10**at if self.log else at:.2g}") for at in inner})

    def ticks(self) -> list[float]:
        """About five round values between the ends; on a logarithmic axis numbers of one digit."""
        if self.log:
            return self._log_ticks()
        step = _step(self.high - self.low)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def said(self, value: float) -> str:
        """A tick's label."""
        if self.log and value > 0 and not 1e-3 <= value < 1e5:
            return _power(value)
        if not self.share:
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        step = _step(self.high - self.low) if not self.log else value
        return percent(value, 0 if step > 0.0099 else 1 if step > 0.00099 else 2).replace(" ", "\u202f")

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.log else value

    def _log_ticks(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5), (1, 2, 5), (1,)):
            ticks = [digit * 10.0**power for power in powers for digit in digits]
            within = [t for t in ticks if self.low * (1 - 1e-9) <= t <= self.high * (1 + 1e-9)]
            if len(within) <= MOST_TICKS:
                return within
        return within[:: -(-len(within) // MOST_TICKS)]


def _power(value: float) -> str:
    """A number far from one as digit and power of ten."""
    digits, exponent = f"{value:.1e}".split("e")
    raised = f"10{str(int(exponent)).translate(_RAISED)}"
    return raised if digits == "1.0" else f"{digits.removesuffix('.0')}·{raised}"


def _round_down(value: float) -> float:
    """The next number of one digit below; of a negative one the next further from zero."""
    power = 10.0 ** math.floor(math.log10(abs(value)) + 1e-9)
    return math.floor(value / power + 1e-9) * power


def _step(span: float) -> float:
    """A round distance of about a fifth of `span` (Heckbert 1990, "Nice numbers for graph labels")."""
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(s * power for s in _STEPS if s * power >= rough * (1 - 1e-9))
