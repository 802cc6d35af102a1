"""Shattering: the measurement against other computations, the theorems, and the direction on networks of the lab."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from plusx.lab import fully_connected as small
from plusx.lab import shattering
from plusx.lab.autocorrelation import autocorrelation, correlation, crossing, exponential, over_pairs, power
from plusx.lab.fully_connected import Stack
from plusx.lab.input_gradients import freeze_statistics, line_gradients
from plusx.lab.laboratory import Lab
from plusx.lab.network import Network
from plusx.lab.shattering import Measured, Noise, Shattered, Theory
from plusx.lab.shattering_findings import findings
from plusx.models import create_model
from plusx.models.normalise import Normalised
from tests.lab.conftest import SIZE


def walk(points: int = 400, coordinates: int = 3) -> np.ndarray:
    return np.cumsum(np.random.default_rng(0).standard_normal((points, coordinates)), axis=0)


def test_autocorrelation_is_the_textbook_one_and_sums_over_coordinates() -> None:
    from scipy.signal import correlate

    signal = walk(coordinates=1)
    centred = signal[:, 0] - signal[:, 0].mean()
    whole = correlate(centred, centred, method="fft")[len(centred) - 1 :]
    assert autocorrelation(signal, [0, 1, 7, 50]) == pytest.approx(whole[[0, 1, 7, 50]] / whole[0])
    many = walk()
    sums = [correlate(c, c)[len(c) - 1 :] for c in (many - many.mean(axis=0)).T]
    assert autocorrelation(many, [9]) == pytest.approx([sum(s[9] for s in sums) / sum(s[0] for s in sums)])


def test_cosines_are_those_of_scikit_learn() -> None:
    from sklearn.metrics.pairwise import cosine_similarity

    gradients = np.random.default_rng(1).standard_normal((20, 5)) + 0.5
    table = cosine_similarity(gradients)
    assert correlation(gradients, 3) == pytest.approx(np.diag(table, 3).mean())
    assert over_pairs(gradients) == pytest.approx(table[np.triu_indices(20, 1)].mean())


def test_white_and_brown_noise_are_told_apart() -> None:
    white, brown = (
        np.mean([autocorrelation(noise(seed), [1, 5]) for seed in range(20)], axis=0)
        for noise in (small.white_noise, small.brown_noise)
    )
    assert np.abs(white).max() < 0.05
    assert brown.min() > 0.8


def test_fitted_laws_are_those_the_values_were_made_by() -> None:
    depths = [8, 20, 32, 56, 110]
    fit = exponential(depths, [0.9 * 0.99**d for d in depths])
    assert fit is not None
    assert (fit.rate, fit.r2) == pytest.approx((0.99, 1.0))
    law = power(depths, [d**-0.5 for d in depths])
    assert law is not None
    assert (law.rate, law.r2) == pytest.approx((-0.5, 1.0))
    assert exponential(depths, [0.5, 0.1, 0.019, 0.001, -0.2]) is None, "two values above the noise make no fit"
    assert crossing([10, 20], [0.8, 0.2]) == pytest.approx(10 + 10 * np.log(1.6) / np.log(4))
    assert crossing([10, 20], [0.8, 0.6]) is None
    assert crossing([10, 20], [0.4, 0.2]) == 10, "below from the start, which is not never"
    assert crossing([10, 20, 30], [0.9, 0.7, -0.1]) == pytest.approx(20 + 10 * np.log(1.4) / np.log(35))


@pytest.mark.parametrize("kind", [small.PLAIN, small.RESIDUAL, small.POST])
@pytest.mark.parametrize("norm", [small.BATCH, small.NONE])
def test_a_gradient_is_the_slope_of_the_output(kind: str, norm: str) -> None:
    """Finite differences of the network with its statistics held: a chunk of the inputs would have others."""
    stack, inputs = Stack(kind, 2, norm, seed=3), small.line()
    held: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Held(Stack):
        def _norm(self, values: torch.Tensor) -> torch.Tensor:
            if self.norm == small.NONE:
                return values
            if len(held) < self.calls:
                held.append((values.mean(dim=0), values.std(dim=0, correction=0) + small.EPSILON))
            mean, deviation = held[next(self.turn)]
            return (values - mean) / deviation

        calls = 10**6
        turn = iter(())

    probe = Held(kind, 2, norm, seed=3)
    object.__setattr__(probe, "turn", iter(range(100)))
    whole = probe.output(inputs)
    object.__setattr__(probe, "calls", 0)
    object.__setattr__(probe, "turn", iter(range(100)))
    step = 1e-7
    slopes = ((probe.output(inputs + step) - whole) / step).numpy()
    found = stack.gradients(inputs)[:, 0]
    smooth = np.abs(slopes - found) < 1e-3 * np.abs(found).max()
    assert smooth.mean() > 0.98, "all but the points at a kink"


def test_plain_layers_halve_the_correlation_and_shortcuts_save_it() -> None:
    """Theorems 1 and 3 of Balduzzi et al. 2017, on the independent inputs they are about."""

    def cosine(kind: str, depth: int) -> float:
        stacks = [Stack(kind, depth, seed=seed) for seed in range(4)]
        return float(np.mean([over_pairs(s.gradients(small.independent_inputs(s.seed))) for s in stacks]))

    found = [cosine(small.PLAIN, depth) for depth in (0, 1, 2, 3)]
    assert found == pytest.approx([1 / 2, 1 / 4, 1 / 8, 1 / 16], abs=0.035)
    assert cosine(small.RESIDUAL, 8) > 0.1
    assert cosine(small.PLAIN, 8) < 0.02


def network(name: str) -> Normalised:
    torch.manual_seed(0)
    return Normalised(create_model(name, 3, width=0.25), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def pixels(count: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(2).integers(0, 255, (count, 3, 16, 16), dtype=np.uint8))


def test_gradients_on_the_line_are_those_of_each_point_alone() -> None:
    built, photos = network("resnet8"), pixels(40)
    freeze_statistics(built, photos)
    assert not built.training
    together = line_gradients(built, photos[0], photos[1], label=2, points=7)
    assert together.shape == (7, 3 * 16 * 16)
    point = (0.5 * photos[0].float() + 0.5 * photos[1].float()).requires_grad_(True)
    built(point[None])[0, 2].backward()
    assert point.grad is not None
    assert together[3] == pytest.approx(point.grad.flatten().numpy(), rel=1e-3, abs=1e-7)


def test_the_statistics_are_those_of_the_photos() -> None:
    built, photos = network("plain8"), pixels(40)
    freeze_statistics(built, photos)
    first = built.network.bn1
    assert isinstance(first, nn.BatchNorm2d)
    responses = built.network.conv1(built.normalise(photos)).detach()
    assert first.running_mean is not None
    assert first.running_var is not None
    assert first.running_mean.numpy() == pytest.approx(responses.mean(dim=(0, 2, 3)).numpy(), abs=1e-5)
    assert first.running_var.numpy() == pytest.approx(responses.var(dim=(0, 2, 3)).numpy(), rel=1e-3)


def measured(near: dict[tuple[str, str, int], list[float]], far: float = 0.5) -> Measured:
    """As if it had been measured: `near` by cell, `far` falling as depth to the power of minus `far`."""
    photos = [
        Shattered(kind, norm, depth, seed, [1.0, value], value, depth**-far)
        for (kind, norm, depth), values in near.items()
        for seed, value in enumerate(values)
    ]
    laws: dict[tuple[str, str], Callable[[int], float]] = {
        (small.PLAIN, small.BATCH): lambda depth: 0.5 * 0.5**depth,
        (small.RESIDUAL, small.BATCH): lambda depth: 0.5 * (depth + 1) ** -0.7,
        (small.RESIDUAL, small.SCALE): lambda depth: 0.5 * (depth + 1) ** -0.5,
        (small.POST, small.BATCH): lambda depth: 0.5 * 0.8**depth,
    }
    theory = [Theory(k, n, d, [law(d)] * 2) for (k, n), law in laws.items() for d in shattering.THEORY_DEPTHS]
    return Measured(tuple(photos), (), tuple(theory), (Noise("white noise", 0, small.NONE, [1.0, 0.0]),), {})


def cells(plain: float, residual: float, none: float) -> dict[tuple[str, str, int], list[float]]:
    """Correlations that fall by these factors a layer, of two seeds."""
    rates = {("plain", "batch"): plain, ("resnet", "batch"): residual, ("plain", "none"): none, ("resnet", "none"): 1.0}
    return {(*cell, d): [rate**d, rate**d * 0.98] for cell, rate in rates.items() for d in shattering.DEPTHS}


def test_correlations_as_published_agree_with_the_paper() -> None:
    found = findings(measured(cells(0.95, 0.995, 0.97)))
    assert [f.agrees for f in found] == [True] * 6
    assert "each plain layer multiplies the correlation of gradients by 0.500 (R² 1.000, mean of 2 networks)" in (
        found[2].sentence
    )
    assert "to the power of -0.70 from 3 blocks on" in found[3].sentence
    assert "the exponent is -0.50" in found[3].why
    assert found[0].sentence == (
        "A 64th of the way from photo to photo, gradients of untrained networks of 56 layers with batch norm have a "
        "correlation of 0.056 ± 0.001 without shortcuts and 0.748 ± 0.011 with them (2 seeds)."
    )
    assert found[1].sentence == (
        "That correlation falls below one half at 13 ± 0 layers without shortcuts and at more than 110 with them "
        "(2 seeds); fitted, each residual layer multiplies it by 0.9950."
    )


def test_correlations_of_the_other_direction_do_not_agree() -> None:
    found = findings(measured(cells(0.995, 0.95, 0.9), far=1.0))
    assert [f.agrees for f in (found[0], found[1], found[4], found[5])] == [False] * 4
    assert "to the power of -1.00" in found[4].sentence
    assert "batch norm takes means away" in found[4].why


def test_what_is_below_one_half_from_the_start_is_not_said_to_stay_above_it() -> None:
    found = findings(measured(cells(0.9, 0.995, 0.97)))[1]
    assert "falls below one half at 8 or fewer layers without shortcuts and at more than 110 with them" in (
        found.sentence
    )
    assert found.agrees is True


def test_seeds_on_both_sides_of_the_deepest_network_are_told_by_their_range() -> None:
    mixed = cells(0.95, 0.995, 0.97)
    for depth in shattering.DEPTHS:
        mixed["resnet", "batch", depth][1] = 0.966**depth
    assert "shortcuts and at 20 to more than 110 with them" in findings(measured(mixed))[1].sentence


def test_seeds_that_disagree_tell_nothing() -> None:
    mixed = cells(0.95, 0.995, 0.97)
    mixed["plain", "batch", 56] = [0.9, 0.1]
    assert findings(measured(mixed))[0].agrees is None


def test_plain_gradients_shatter_and_residual_ones_do_not_in_the_lab(
    open_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"DEPTHS": (8, 20, 56), "THEORY_DEPTHS": (0, 1, 2, 3, 4, 8), "THEORY_RUNS": 1}.items():
        monkeypatch.setattr(shattering, name, value)
    for name, few in {"LINE_DEPTHS": (2, 4), "LINE_RUNS": 1, "LINES": 1}.items():
        monkeypatch.setattr(shattering, name, few)
    told: list[object] = []
    lab = open_lab("shattering", told, replace(SIZE, seeds=1))
    result = shattering.run(lab)
    assert result.findings[0].agrees is True
    assert result.findings[1].agrees is True
    assert {figure.name for figure in result.figures} >= {"depth", "autocorrelation-plain", "theory", "line-residual"}
    assert [row[0] for row in result.tables[0].rows] == ["8", "20", "56"]
    assert len(result.tables) == 2, "nothing is trained, so nothing is said of trained networks"
    before = len(told)
    assert shattering.run(lab).to_json() == result.to_json()
    assert len(told) == before + 1, "what was measured is remembered"


def test_a_seed_has_the_same_lines_however_many_seeds_there_are(
    open_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shattering, "line_gradients", lambda _, start, end: torch.stack([start, end]).double().numpy())
    for name in ("autocorrelation", "correlation"):
        monkeypatch.setattr(shattering, name, lambda ends, _: float(ends.sum()))
    alone, beside = (open_lab("shattering", size=replace(SIZE, seeds=seeds)) for seeds in (1, 3))
    built = alone.build(Network("plain8"))
    assert shattering._along_lines(built, alone, 0) == shattering._along_lines(built, beside, 0)


def test_trained_networks_are_looked_at_where_there_are_some(
    open_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shattering, "DEPTHS", (8,))
    monkeypatch.setattr(shattering, "TRAINED_DEPTHS", (8,))
    monkeypatch.setattr(shattering, "LINES", 1)
    lab = open_lab("shattering", size=replace(SIZE, seeds=1))
    assert list(shattering._trained(lab)) == []
    for name in ("plain8", "resnet8"):
        run = lab.run(Network(name))
        run.path.mkdir(parents=True)
        run.model.touch()  # what a finished run has
    monkeypatch.setattr(Lab, "load", lambda lab, network: lab.build(network).eval())
    rows = list(shattering._trained(lab))
    assert [(row.kind, row.depth) for row in rows] == [("plain", 8), ("resnet", 8)]
    assert all(0 < row.near <= 1 for row in rows)
