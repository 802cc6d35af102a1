"""Figures of calibration and of "unsure" as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plusx.errors.processes import not_bit_exact
from plusx.errors.use import not_exact
from plusx.metrics import percent
from plusx.trust.calibration import Calibration
from plusx.trust.novelty import Novelty
from plusx.trust.risk import ClassThreshold, Thresholds, share

# Huang et al. 2020, Self-Adaptive Training, arXiv 2002.10319, table 7: cats and dogs, by the share that is answered
PUBLISHED = {1.0: 0.0301, 0.95: 0.0125, 0.9: 0.0059, 0.85: 0.0025, 0.8: 0.0015}
PUBLISHED_FOR = "VGG-16-BN at 64 px (Self-Adaptive Training, arXiv 2002.10319), on other photos of the same kind"
MANY = 1_000  # test photos from which on a published figure is worth a look
SHOWN_CLASSES = 8  # up to here every class has a line
UNTRUSTED = "no validation photos: probabilities are not calibrated, and no answer is refused as unsure"


def trust_lines(metrics: Mapping[str, Any]) -> list[str]:
    """What the end of a training says of its metrics.json; nothing of a run older than calibration."""
    if "calibration" not in metrics:
        return []
    if metrics["calibration"] is None:
        return [UNTRUSTED]
    calibration = Calibration.from_json(metrics["calibration"])
    novelty = [_novelty(Novelty.from_json(metrics["novelty"]))] if metrics.get("novelty") else []
    return [*_calibration(calibration), *novelty, *_thresholds(Thresholds.from_json(metrics["thresholds"]))]


def exactness_lines(metrics: Mapping[str, Any]) -> list[str]:
    """What metrics.json says of photos, and of the number of processes, that changed while the run was stopped."""
    changes, numbers = metrics.get("accepted_changes"), metrics.get("changed_processes")
    return ([not_exact(changes)] if changes else []) + ([not_bit_exact(numbers)] if numbers else [])


def answered_lines(figures: Mapping[str, Any], thresholds: Mapping[str, Any] | None) -> list[str]:
    """What `evaluate` says of the answers given, and of the error at other coverages."""
    comparable = sorted(figures["classes"]) == ["cat", "dog"] and figures["risk_coverage"][0]["n"] >= MANY
    head = "error where only the surest are answered"
    head += f"; published for {PUBLISHED_FOR}" * comparable
    table = [_surest(row, comparable=comparable) for row in figures["risk_coverage"]]
    return [*_answered(figures["answered"], thresholds), head, *table]


def _surest(row: Mapping[str, Any], *, comparable: bool) -> str:
    line = f"  surest {percent(row['coverage'], 0)}: error {percent(row['error'])}, n = {row['n']:,}"
    return f"{line}; published {percent(PUBLISHED[row['coverage']])}" if comparable else line


def _answered(answered: Mapping[str, Any], thresholds: Mapping[str, Any] | None) -> list[str]:
    if thresholds is None:
        return []
    fitted = Thresholds.from_json(thresholds)
    refused = f", none of these: {answered['none_of_these']:,}" if answered["none_of_these"] else ""
    line = f"answered {percent(answered['coverage'])}, unsure of {answered['unsure']:,}{refused}"
    if answered["n"]:
        low, high = answered["error_ci95"]
        interval = f"(95 % interval {percent(low)} to {percent(high)}, n = {answered['n']:,})"
        line += f"; error of what is answered {percent(answered['error'])} {interval}; asked for: {share(fitted.risk)}"
    return [line, *([fitted.note] if fitted.note else [])]


def _calibration(c: Calibration) -> list[str]:
    if c.note:
        return [f"not calibrated: {c.note}"]
    line = f"temperature {c.temperature:.3f} (fitted on {c.n:,} photos)"
    if c.log_loss_before is None or c.log_loss_after is None or c.ece_before is None or c.ece_after is None:
        return [line]
    changes = f"log loss {c.log_loss_before:.4f} before, {c.log_loss_after:.4f} after"
    errors = f"calibration error {percent(c.ece_before)} before, {percent(c.ece_after)} after"
    return [f"{line}: {changes}; {errors} (on {c.measured_n:,} others)"]


def _novelty(n: Novelty) -> str:
    if n.threshold is None:
        return f'never "none of these": {n.note}'
    refused = "" if n.refused is None else f": {percent(n.refused)} of {n.n:,} validation photos"
    return f'"none of these" where novelty is above {n.threshold:.3g}{refused}'


def _thresholds(t: Thresholds) -> list[str]:
    """Risk and coverage, then the classes; many classes have one line together."""
    fitted = [one for one in t.classes if one.threshold is not None]
    lines = []
    if fitted:
        held = f"risk {share(t.risk)} at {percent(t.confidence, 0)} confidence for each class"
        lines = [f"{held}: {percent(t.coverage)} answered, the others unsure (on {t.n:,} photos)"]
        lines += [_of_class(one) for one in fitted] if len(fitted) <= SHOWN_CLASSES else [_together(fitted)]
    return [*lines, *([t.note] if t.note else [])]


def _of_class(one: ClassThreshold) -> str:
    kept = f"{one.answered:,} of {one.n:,} answered, {one.errors:,} wrong"
    return f"  {one.name}: {f'from {percent(one.threshold)} on' if one.threshold else 'always'} ({kept})"


def _together(fitted: list[ClassThreshold]) -> str:
    values = sorted(one.threshold or 0.0 for one in fitted)
    return f"  thresholds of {len(fitted):,} classes, {percent(values[0])} to {percent(values[-1])}"
