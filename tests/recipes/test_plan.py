"""Plans: how many steps, at which sizes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from plusx.errors import UsageError
from plusx.recipes import plan, recipe
from plusx.recipes.plan import Plan

COST = {48: 0.1, 64: 0.2, 80: 0.4}


def timed(seconds: float, overhead: float = 0.0) -> Plan:
    config = recipe("fast").model_copy(update={"time": 600.0})
    return plan.timed(config, 100, COST, seconds, overhead)


def test_epochs_are_counted_in_whole_steps() -> None:
    assert plan.counted(recipe("textbook"), 25, 10) == Plan(250, 25, ((1.0, 224),))


def test_sizes_grow_by_their_shares() -> None:
    sizes = [plan.counted(recipe("fast"), 100, 8).size_at(step) for step in range(800)]
    assert (sizes.count(48), sizes.count(64), sizes.count(80)) == (400, 300, 100)
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("model", "size", "sizes"),
    [
        ("resnet18", 80, ((0.5, 48), (0.375, 64), (0.125, 80))),
        ("resnet18", 48, ((0.875, 32), (0.125, 48))),  # 0.6 and 0.8 of it are both below what the network takes
        ("alexnet", 80, ((0.875, 64), (0.125, 80))),
        ("alexnet", 63, ((1.0, 63),)),
        ("resnet18", 50, ((0.875, 32), (0.125, 50))),  # the last size is the one asked for
    ],
)
def test_no_size_is_below_what_the_network_takes(model: str, size: int, sizes: tuple[tuple[float, int], ...]) -> None:
    config = recipe("fast", model).model_copy(update={"size": size})
    assert plan.training_sizes(config) == sizes


def test_a_timed_plan_fills_its_budget_and_no_more() -> None:
    made = timed(175.0)
    assert 170 < made.seconds_from(0) <= 175.5
    assert made.total_steps == 1000


def test_validation_between_epochs_is_part_of_the_budget() -> None:
    made = timed(175.0, overhead=1.7)
    assert (made.total_steps, made.validate_every) == (911, 1)


def test_validation_that_takes_long_happens_after_several_epochs() -> None:
    made = timed(1750.0, overhead=17.0)  # about as long as the steps of an epoch
    assert made.validate_every == 10
    assert made.total_steps == 9114


def test_a_stalled_plan_brings_its_schedule_to_its_end() -> None:
    made = timed(175.0)
    shorter = made.wound_down_at(400)
    assert shorter is not None
    assert (shorter.revisions, shorter.stalled_at) == (((400, 500),), 400)
    assert (shorter.progress(400), shorter.progress(500)) == (0.4, 1.0)
    assert replace(made, stalled_at=100).wound_down_at(400) is None  # once
    assert made.wound_down_at(900) is None  # its end is near
    later = made.wound_down_at(800)
    assert later is not None
    assert later.last_step == 920


def test_no_plan_is_longer_than_the_most_epochs() -> None:
    assert timed(1e9).total_steps == 200 * 100


def test_a_budget_of_less_than_an_epoch_is_used() -> None:
    assert timed(10.0).total_steps == 57


def test_a_budget_below_fifty_steps_is_refused_with_what_is_needed() -> None:
    with pytest.raises(
        UsageError, match=r"--time 600s is too short: .* 50 steps of training need about 604 s on this machine; give"
    ):
        timed(5.0)


def test_a_late_run_is_cut_at_most_twice_and_keeps_its_end() -> None:
    made = timed(175.0)
    assert made.revised_at(500, made.seconds_from(500) + 0.1, 1.0) is None
    shorter = made.revised_at(500, 60.0, 1.0)
    assert shorter is not None
    assert shorter.revisions == ((500, shorter.last_step),)
    assert shorter.seconds_from(500) <= 61.0
    assert (shorter.progress(500), shorter.progress(shorter.last_step)) == (0.5, 1.0)
    again = shorter.revised_at(600, 10.0, 1.0)
    assert again is not None
    assert again.revised_at(610, 1.0, 1.0) is None  # a third cut


def test_an_early_run_grows_at_most_twice_and_never_beyond_the_most_epochs() -> None:
    made = replace(timed(175.0), most_steps=2000)
    grown = made.revised_at(200, 2 * made.seconds_from(200), 1.0)
    assert grown is not None
    assert grown.revisions == ((200, 1800),)
    assert (grown.progress(200), grown.progress(1800)) == (0.2, 1.0)
    assert grown.revised_at(300, 1.04 * grown.seconds_from(300), 1.0) is None  # not worth it
    most = grown.revised_at(300, 9e9, 1.0)
    assert most is not None
    assert most.last_step == 2000
    assert most.revised_at(400, 9e9, 1.0) is None
    cut = most.revised_at(400, 10.0, 1.0)
    assert cut is not None
    assert cut.last_step < 600


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    made = timed(175.0)
    (tmp_path / "plan.json").write_text(json.dumps(made.to_json()))
    assert plan.read_plan(tmp_path / "plan.json") == made


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"total_steps": "x"}'])
def test_another_file_is_no_plan(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(UsageError, match=r"p\.json cannot be read as a plan\.json of plusx: "):
        plan.read_plan(tmp_path / "p.json")
