"""What the experiment on loss surfaces says of numbers that it is given, and of networks that it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from plusx.engines.torch_engine import build
from plusx.lab import landscape
from plusx.lab.curvature import Ends, ends, filter_scales, hessian_product
from plusx.lab.laboratory import Lab
from plusx.lab.landscape import Detail
from plusx.lab.landscape_findings import Curvature, Measured, Surface, findings, tables
from plusx.lab.loss_surface import filters, offsets
from plusx.lab.photos import Photos
from plusx.lab.results import Result
from tests.lab.conftest import SIZE, train_here
from tests.lab.test_chain import LABELS, PIXELS, network

STEPS = tuple(offsets(9))
KINDS = (("plain", 20), ("resnet", 20), ("plain", 56), ("resnet", 56))


def curvature(sharpness: float, loss: float = 1.2, downward: float = 0.02, batch: float | None = None) -> Curvature:
    batch = sharpness / 10 if batch is None else batch
    return Curvature(loss, sharpness, downward, 0.0, 0.01, loss, batch, downward, 0.0, 0.01)


def bowl(steepness: float, *, hollows: bool = False) -> Surface:
    x, y = np.meshgrid(STEPS, STEPS)
    heights = 1.2 + steepness * (x**2 + y**2)
    if hollows:
        heights[2, 2] = heights[6, 5] = 1.3
    return Surface(STEPS, heights, tuple(1.2 + 0.5 * abs(t) for t in STEPS))


def measured(**sharpness: Any) -> Measured:
    """As in the paper, unless told otherwise: two seeds, sharpness 100 but in the deep plain networks."""
    values = {"plain20": 100.0, "resnet20": 100.0, "plain56": 3000.0, "resnet56": 80.0} | sharpness
    curvatures = {(k, d): [curvature(values[f"{k}{d}"]), curvature(1.1 * values[f"{k}{d}"])] for k, d in KINDS}
    surfaces = {kind: bowl(2.0) for kind in KINDS} | {("plain", 56): bowl(200.0, hollows=True)}
    return Measured(curvatures, surfaces, 10)


def test_numbers_as_published_agree_with_the_paper_in_every_sentence() -> None:
    found = findings(measured(), "After 7 steps")
    assert [f.agrees for f in found] == [True] * 5
    assert found[0].sentence == (
        "After 7 steps, the sharpness at the trained weights goes from 105 (100 to 110) at 20 layers to 3,146 (3,000 "
        "to 3,300) at 56 in plain networks, 30.0 times as much, and from 105 (100 to 110) at 20 layers to 83.9 (80.0 "
        "to 88.0) at 56 in residual networks, 0.8 times as much (2 seeds)."
    )
    assert found[0].why == ""
    assert found[1].sentence == (
        "Of 56 layers, the plain network is 37.5 times as sharp as its residual twin: 3,146 (3,000 to 3,300) against "
        "83.9 (80.0 to 88.0) (2 seeds)."
    )
    assert "better than guessing goes from 30.9 % to 3.7 % in the plain network" in found[2].sentence
    assert "local minima at 3 points and losses up to 401, the residual one at 1 and up to 5.2" in found[2].sentence
    assert "the highest loss along the first direction from 201 to 1.7 in the plain network of 56" in found[3].sentence
    assert found[3].why == "Its cliffs, then, are mostly activations that have outgrown the running statistics."
    assert "is at least 2.0 % (plain, 20), 2.0 % (residual, 20)" in found[4].sentence
    assert "with the error of each measurement on top 3.0 % at most (the largest of 2 seeds)" in found[4].sentence


def test_numbers_of_the_other_direction_do_not_agree() -> None:
    other = measured(plain56=50.0, resnet56=4000.0)
    surfaces = {**other.surfaces, ("plain", 56): bowl(2.0), ("resnet", 56): bowl(200.0, hollows=True)}
    curvatures = {kind: [replace(one, downward=0.5) for one in found] for kind, found in other.curvatures.items()}
    found = findings(Measured(curvatures, surfaces, 10), "After 7 steps")
    assert [f.agrees for f in found] == [False] * 5
    assert all(f.expected for f in found)
    assert "50.0 % (plain, 20)" in found[4].sentence


def test_what_is_known_too_poorly_is_not_said_to_be_nearly_convex() -> None:
    vague = {kind: [replace(one, lower_error=0.2) for one in some] for kind, some in measured().curvatures.items()}
    assert findings(Measured(vague, measured().surfaces, 10), "")[4].agrees is False


@pytest.mark.parametrize(("upward", "share"), [(8.0, 0.25), (-1.0, 2e9)])
def test_downward_curvature_is_told_with_its_error_where_nothing_curves_upward_too(
    upward: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landscape, "ends", lambda *_: Ends(-2.0, upward, (0.5, 0.1)))
    found = landscape._at_the_weights(network("plain8"), Photos(PIXELS, LABELS))
    assert (found["downward"], found["lower_error"]) == pytest.approx((share, share / 4))


def test_seeds_that_disagree_tell_nothing() -> None:
    mixed = measured()
    curvatures = {**mixed.curvatures, ("plain", 56): [curvature(3000.0, batch=5.0), curvature(9.0, batch=500.0)]}
    found = findings(Measured(curvatures, mixed.surfaces, 10), "")
    assert [f.agrees for f in found] == [None, None, True, None, True]


def test_batch_statistics_may_tell_another_story() -> None:
    other = measured()
    curvatures = {**other.curvatures, ("plain", 56): [curvature(3000.0, batch=1.0), curvature(3300.0, batch=1.1)]}
    found = findings(Measured(curvatures, other.surfaces, 10), "")
    assert (found[0].agrees, found[3].agrees) == (True, False)
    assert "from 10.5 (10.0 to 11.0) to 1.0 (1.0 to 1.1) in plain ones" in found[3].sentence


def test_it_is_said_where_training_got_stuck() -> None:
    stuck = measured()
    curvatures = {**stuck.curvatures, ("plain", 56): [curvature(3000.0, loss=2.2), curvature(3000.0, loss=2.1)]}
    why = findings(Measured(curvatures, stuck.surfaces, 10), "")[0].why
    assert why == (
        "The plain networks of 56 layers have a loss of 2.15 there, and guessing has 2.30: the surface is that around "
        "where training got stuck, not around a minimum."
    )


def test_without_weights_there_is_nothing_to_tell() -> None:
    nothing = Measured({kind: [] for kind in KINDS}, {}, 10)
    found = findings(nothing, "After 7 steps")
    assert [f.agrees for f in found] == [None]
    assert found[0].sentence == (
        "After 7 steps, a network of every seed has diverged, so there are no weights to look around."
    )
    assert tables(nothing) == ()


def test_tables_have_every_network() -> None:
    curvatures, plane = tables(measured())
    assert curvatures.rows[2][:3] == ("plain, 56 layers", "1.20 ± 0.00", "3,146 (3,000 to 3,300)")
    assert plane.rows[2] == ("plain, 56 layers", "1.20", "164", "401", "3.7 %", "3")


def test_it_is_run_from_photos_to_tables_figures_and_sentences(
    open_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landscape, "DEPTHS", (8, 20))
    monkeypatch.setattr(Lab, "trained", train_here)
    lab = open_lab("landscape", size=replace(SIZE, seeds=1, steps=3))
    detail = Detail(photos=16, points=5)
    result = landscape.run(lab, detail)
    assert [row[0] for row in result.tables[0].rows] == [
        "plain, 8 layers",
        "residual, 8 layers",
        "plain, 20 layers",
        "residual, 20 layers",
    ]
    assert [figure.name for figure in result.figures][:2] == ["contour-plain8", "surface-plain8"]
    assert result.figures[-1].name == "lines"
    assert len(result.figures) == 9
    assert result.findings[0].sentence.startswith(
        "After 3 steps, at this size, the sharpness at the trained weights goes"
    )
    assert "that of 16 training photos" in result.conditions
    surface = result.raw["plain20"]["surface"]
    assert (len(surface["losses"]), len(surface["losses"][0])) == (5, 5)
    assert all(one["lower_error"] >= 0 for network in result.raw.values() for one in network["curvature"])
    assert surface["losses"][2][2] == pytest.approx(result.raw["plain20"]["curvature"][0]["loss"], abs=1e-6)
    goes_on_where_it_was_stopped(lab, detail, result)


def goes_on_where_it_was_stopped(lab: Lab, detail: Detail, result: Result) -> None:
    """Rows that are there are read and not measured; those that are not are."""
    rows = sorted((lab.folder / "measured").glob("*/plain20*-row-*.json"))
    assert len(rows) == 5
    rows[1].write_text("[7.0, 7.0, 7.0, 7.0, 7.0]")
    rows[3].unlink()
    again = landscape.run(lab, detail).raw["plain20"]["surface"]["losses"]
    assert again[1] == [7.0] * 5
    assert again[3] == result.raw["plain20"]["surface"]["losses"][3]


def test_a_diverged_seed_is_left_out(open_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lab, "trained", lambda *_: None)
    monkeypatch.setattr(Lab, "diverged", lambda _, network: 3 if network.model == "plain56" else None)
    result = landscape.run(open_lab("landscape"), Detail(4, 3))
    assert (result.tables, result.figures) == ((), ())
    assert [finding.agrees for finding in result.findings] == [None]


def sharpness(name: str) -> float:
    """Of a network of two channels after twenty steps on slopes of two directions at 8 px."""
    made = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = build({"name": name, "width": 0.125}, 2, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    labels = torch.arange(32) % 2
    slope = torch.linspace(0, 127, 8)
    slopes = torch.where(labels.view(-1, 1, 1, 1) == 0, slope.view(1, 1, 8, 1), slope.view(1, 1, 1, 8))
    pixels = torch.randint(0, 128, (32, 3, 8, 8), generator=made) + slopes
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for step in range(20):
        part = slice(16 * (step % 2), 16 * (step % 2) + 16)
        optimizer.zero_grad()
        F.cross_entropy(network(pixels[part]), labels[part]).backward()
        optimizer.step()
    weights = filters(network.eval())
    product = hessian_product(network, weights, filter_scales(weights), pixels, labels)
    return ends(product, sum(w.numel() for w in weights.values()), torch.device("cpu"), products=5).largest


def test_trained_twins_show_the_direction() -> None:
    found = {kind: sharpness(f"{kind[0]}{kind[1]}") for kind in KINDS}
    assert found["plain", 56] > 100 * found["resnet", 56]
    assert found["plain", 56] / found["plain", 20] > 100 * found["resnet", 56] / found["resnet", 20]
