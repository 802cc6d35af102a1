"""What the experiment on signals says of trainings that it is given, and of trainings that it watches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from plusx.lab import signals
from plusx.lab.laboratory import Lab
from plusx.lab.signals import Course, Measured, Untrained, Watched, carry, course, default_weights_, reach
from plusx.lab.signals_figures import figures, middle
from plusx.lab.signals_findings import findings, growth_per_block
from plusx.lab.signals_tables import about, outcome, tables
from plusx.models import create_model
from tests.lab.conftest import SIZE, train_here

LAYERS = ["conv1", *(f"layer1.{i // 2}.conv{i % 2 + 1}" for i in range(54))]


def moment(gradient: Sequence[float | None], response: Sequence[float | None], step: int = 1) -> dict[str, Any]:
    same = {"weight_gradient": [1.0] * len(response), "update": [0.01] * len(response)}
    return {"step": step, "loss": 2.0, "response": list(response), "response_gradient": list(gradient), **same}


def watched(cell: tuple[str, str, int], seed: int, start: float, settled: float, end: dict[str, Any]) -> Watched:
    """A training whose first layer gets `start` of the last's gradient at the first step, and `settled` later on."""
    rows = [moment([r * 0.01, *[0.01] * 54], [end.get("growth", 1.0) ** (i / 2) for i in range(55)]) for r in (start,)]
    later = moment([settled * 0.01, *[0.01] * 54], [1.0] * 55, 1200)
    lost = end.get("diverged")
    kept = None if lost else later
    error, response = end.get("error", 0.9), None if lost else [end.get("response", 1.0)] * 55
    known = course(rows if lost else [*rows, later])
    return Watched(*cell, seed, lost, LAYERS, rows[0], kept, kept, known, error, error, response)


def measured(**changed: dict[str, Any]) -> Measured:
    """Two seeds of every cell as the literature has them; `changed` are other values, such as of plain_batch_56."""
    usual: dict[str, dict[str, Any]] = {
        "plain_batch_56": {"start": 3600.0, "settled": 0.4, "error": 0.8, "response": 1.2},
        "plain_batch_20": {"start": 30.0, "settled": 3.0, "error": 0.5, "response": 1.1},
        "resnet_batch_56": {"start": 20.0, "settled": 3.0, "error": 0.5, "response": 0.6},
        "resnet_batch_20": {"start": 8.0, "settled": 3.0, "error": 0.4, "response": 0.8},
        "plain_none_56": {"start": 0.006, "settled": 0.0, "error": 0.9, "growth": 0.8},
        "plain_none_20": {"start": 0.1, "settled": 0.01, "error": 0.9, "growth": 0.9},
        "resnet_none_56": {"start": 3000.0, "settled": 0.0, "diverged": 2, "growth": 1.35},
        "resnet_none_20": {"start": 7.0, "settled": 0.0, "error": 0.9, "growth": 1.3},
    }
    rows = []
    for name, values in usual.items():
        kind, norm, depth = name.split("_")
        for seed in (0, 1):
            own = values | changed.get(name, {})
            end = own | changed.get(f"{name}_seed_{seed}", {})
            rows.append(watched((kind, norm, int(depth)), seed, end.pop("start"), end.pop("settled"), end))
    weights = [
        Untrained(how, depth, seed, (0.7 if how == "He" else 0.37) ** depth * (1 + seed / 10), 1.0)
        for how in ("He", "PyTorch")
        for depth in signals.BUILT
        for seed in (0, 1)
    ]
    return Measured(tuple(rows), tuple(weights), 0.9)


def test_trainings_as_published_agree_with_the_literature() -> None:
    found = findings(measured(), "After 1,200 steps")
    assert [f.agrees for f in found] == [True] * 7
    assert found[0].sentence == (
        "After 1,200 steps, plain networks of 56 layers with batch norm have a training error of 80.00 ± 0.00 %, "
        "those of 20 layers have a training error of 50.00 ± 0.00 %. In training the gradient at the first of 56 "
        "layers is 0.4 times that at the last (2 seeds)."
    )
    assert (
        "is 3,600 times that at the last, 1.16 a layer, and with shortcuts 20 times, 1.06 a layer" in found[1].sentence
    )
    assert "0.006 of the gradient arrives at the first" in found[2].sentence
    assert "guessing has 90.00 %" in found[2].sentence
    assert found[3].sentence == (
        "With shortcuts and without norms each of 27 blocks multiplies the variance of responses by 1.8 at the first "
        "step; they diverged at step 2 (2 seeds)."
    )
    assert "a deviation of 0.600 ± 0.000 in the mean over layers, those of plain ones of 56 layers 1.200 ± 0.000" in (
        found[4].sentence
    )
    assert "0.00084 (0.0008 to 0.00088) with He's (2 seeds)" in found[6].sentence


@pytest.mark.parametrize(
    ("changed", "number"),
    [
        ({"plain_batch_56": {"settled": 0.001}}, 0),
        ({"plain_batch_56": {"start": 0.5}}, 1),
        ({"plain_none_56": {"start": 0.7}}, 2),
        ({"resnet_none_56": {"growth": 1.05}}, 3),
        ({"resnet_batch_56": {"response": 1.5}}, 4),
        ({"resnet_batch_56": {"response": 1.0}}, 5),
    ],
)
def test_trainings_of_the_other_direction_do_not_agree(changed: dict[str, Any], number: int) -> None:
    assert findings(measured(**changed), "")[number].agrees is False


def test_responses_that_training_has_hardly_moved_are_said_to_be_so() -> None:
    near = findings(measured(resnet_batch_20={"response": 0.92}, resnet_batch_56={"response": 0.96}), "")[5]
    assert (near.agrees, near.why) == (
        False,
        "All are still near 1, where norms begin: these trainings were too short to tell depths apart by it.",
    )
    far = findings(measured(resnet_batch_20={"response": 0.5}, resnet_batch_56={"response": 0.96}), "")[5]
    assert (far.agrees, far.why) == (False, "")


def test_seeds_that_disagree_tell_nothing() -> None:
    assert findings(measured(plain_batch_56_seed_1={"settled": 0.01}), "")[0].agrees is None
    assert findings(measured(resnet_batch_56_seed_1={"response": 2.0}), "")[4].agrees is None


def test_a_diverged_cell_leaves_comparisons_open() -> None:
    found = findings(measured(plain_batch_56={"diverged": 7}), "After 9 steps")
    assert "have a training error of diverged at step 7" not in found[0].sentence
    one = findings(measured(plain_batch_56_seed_1={"diverged": 7}), "After 9 steps")[0].sentence
    assert (
        "with batch norm diverged at step 7 in 1 of 2 trainings and have a training error of 80.00 % otherwise, those"
    ) in one
    assert (found[4].agrees, found[4].sentence) == (None, "The networks diverged.")


def test_what_is_lost_and_what_is_not_finite_is_told_apart() -> None:
    assert reach(moment([0.5, 0.1, 0.25], [1.0, 1.0, 4.0])) == 2.0
    assert carry(moment([0.5, 0.1, 0.25], [1.0, 1.0, 4.0])) == 4.0
    assert reach(moment([0.0, 0.0], [1.0, 1.0])) == 0.0, "nothing arrives where nothing leaves"
    assert reach(moment([None, 0.1], [1.0, 1.0])) is None
    assert carry(moment([0.1, 0.1], [1.0, None])) is None
    assert course([moment([1.0, 2.0], [1.0, 3.0], 7)]) == [Course(7, 0.5, 3.0, 0.01)]


def not_finite(given: Measured, cell: tuple[str, str], seeds: Sequence[int]) -> Measured:
    """The same where the first gradients and responses of such networks are no numbers."""
    rows = [
        replace(row, course=[replace(row.course[0], reach=None, carry=None), *row.course[1:]])
        if (row.kind, row.norm) == cell and row.seed in seeds
        else row
        for row in given.watched
    ]
    return replace(given, watched=tuple(rows))


@pytest.mark.parametrize(("cell", "number"), [(("plain", "batch"), 1), (("plain", "none"), 2)])
def test_what_is_not_finite_has_not_vanished(cell: tuple[str, str], number: int) -> None:
    assert findings(not_finite(measured(), cell, [0]), "")[number].agrees is True, "the other seed tells"
    assert findings(not_finite(measured(), cell, [0, 1]), "")[number].agrees is None


def test_first_weights_whose_gradients_are_not_finite_are_not_compared() -> None:
    given = measured()
    lost = tuple(replace(row, first=None) if row.how == "He" else row for row in given.untrained)
    assert findings(replace(given, untrained=lost), "")[6].agrees is None
    assert len(figures(replace(given, untrained=lost))) == len(figures(given))


def test_ratios_are_told_by_their_geometric_mean_and_range() -> None:
    assert about([100.0, 10_000.0]) == "1,000 (100 to 10,000)"
    assert about([0.5]) == "0.5"
    assert about([0.0, 0.1]) == "0 (0 to 0.1)"
    assert about([2e-8, 2e-8]) == "2e-8"
    assert about([None]) == "not finite"
    line = middle("n", [[(1, 1.0), (2, 4.0)], [(1, 100.0)]], 1)
    assert (line.points, line.spread) == ([(1, pytest.approx(10.0))], [(1.0, 100.0)])


def test_a_cell_of_which_some_networks_diverged_says_so() -> None:
    rows = [row for row in measured().watched if (row.kind, row.norm) == ("resnet", "none")]
    assert outcome(rows) == "diverged at step 2 in 2 of 4, else 90.00 ± 0.00 %"
    assert growth_per_block(rows[0]) == pytest.approx(1.35**2)


def test_the_tables_and_figures_hold_every_cell() -> None:
    shown = tables(measured())
    assert [row[:3] for row in shown[0].rows[:4]] == [
        ("56", "plain, batch norm", "80.00 ± 0.00 %"),
        ("56", "residual, batch norm", "50.00 ± 0.00 %"),
        ("56", "plain, no norm", "90.00 ± 0.00 %"),
        ("56", "residual, no norm", "diverged at step 2"),
    ]
    assert shown[0].rows[3][4] == "no training"
    assert shown[1].rows == (("20", "1.100 ± 0.000", "0.800 ± 0.000"), ("56", "1.200 ± 0.000", "0.600 ± 0.000"))
    drawn = {figure.name: figure.svg for figure in figures(measured())}
    assert list(drawn)[:3] == ["live", "live-responses", "live-updates"]
    assert all(drawn[name].count('class="series"') == 4 for name in list(drawn)[:3])
    assert "residual, no norm" in drawn["gradients-start"]
    assert "residual, no norm" not in drawn["gradients-later"], "a network that diverged has no later step"
    assert drawn["responses-sorted"].count('class="series"') == 4


def test_default_weights_are_those_of_pytorch() -> None:
    network = create_model("plain8", 3, width=0.5, norm="none")
    default_weights_(network, seed=5)
    again = create_model("plain8", 3, width=0.5, norm="none")
    default_weights_(again, seed=5)
    weight = network.layer3[0].conv2.weight
    assert torch.equal(weight, again.layer3[0].conv2.weight)
    fan_in = weight[0].numel()
    assert weight.var().item() == pytest.approx(1 / (3 * fan_in), rel=0.05)
    assert weight.abs().max().item() <= fan_in**-0.5


def test_four_cells_are_trained_and_what_their_first_step_shows_is_found(
    open_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One real step of each of the eight, in this process."""

    monkeypatch.setattr(Lab, "trained", train_here)
    monkeypatch.setattr(signals, "BUILT", (8, 20))
    lab = open_lab("signals", size=replace(SIZE, seeds=1, steps=1))
    result = signals.run(lab)
    assert lab.missing(signals.networks(lab)) == []
    grows, vanishes, explodes, weights = (result.findings[i] for i in (1, 2, 3, 6))
    assert [f.agrees for f in (grows, vanishes, explodes, weights)] == [True] * 4
    plain = next(row for row in result.raw["watched"] if (row["kind"], row["depth"]) == ("plain", 56))
    assert [c["step"] for c in plain["course"]] == [1]
    assert len(plain["response"]) == 55
    assert result.conditions.startswith("64 training and ")
