"""Keeping a time budget, with a clock of our own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from plusx.errors import DiskError, UsageError
from plusx.recipes.plan import Plan, read_plan
from plusx.run_folder import RunFolder
from plusx.verbs import pace
from plusx.verbs.pace import DecodingPace, Pacer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    ours = Clock()
    monkeypatch.setattr(pace, "time", ours)
    monkeypatch.setattr(pace, "RESERVE", 4.0)  # what the budgets below leave for the end
    return ours


def planned(steps: int, budget: float | None) -> Plan:
    return Plan(steps, 100, ((1.0, 64),), budget_seconds=budget, seconds_per_step=((64, 0.1),))


def trained_at(pacer: Pacer, clock: Clock, seconds_per_step: float) -> list[int]:
    """Run the plan to its end at a steady pace; returns the steps at which it was revised."""
    cuts, step = [], 0
    while step < pacer.plan.last_step:
        if pacer.revise(step) is not None:
            cuts.append(step)
        clock.now += seconds_per_step
        step += 1
    return cuts


@pytest.mark.parametrize(
    ("seconds_per_step", "cuts"),
    [
        (0.1, []),  # as measured
        (0.05, [150, 729]),  # twice as fast: grown half way, then to the full
        (0.12, [500]),  # 20 % slower is seen at half time
        (0.13, [500]),  # at the first review that is not late enough to act on
        (0.3, [150, 233]),  # three times slower is seen at the first, cut half way, and cut again at the second
    ],
)
def test_a_machine_other_than_measured_gets_a_run_of_another_length_that_fills_its_time(
    seconds_per_step: float, cuts: list[int], clock: Clock, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    pacer = Pacer(run, planned(1000, 104.0), started=clock.now)
    begun = clock.now
    assert trained_at(pacer, clock, seconds_per_step) == cuts
    assert clock.now - begun <= 104.0
    assert clock.now - begun > 90.0
    assert (run.plan.exists() and read_plan(run.plan) == pacer.plan) == bool(cuts)


@pytest.mark.parametrize(("slow_from", "cut_at", "seconds"), [(700, 850, 104.0), (860, 950, 106.0)])
def test_a_machine_that_slows_down_late_is_noticed_at_the_last_reviews(
    slow_from: int, cut_at: int, seconds: float, clock: Clock, tmp_path: Path
) -> None:
    pacer, step, begun = Pacer(RunFolder(tmp_path), planned(1000, 104.0), started=clock.now), 0, clock.now
    while step < pacer.plan.last_step:
        assert pacer.revise(step) is None or step == cut_at
        clock.now += 0.1 if step < slow_from else 0.2
        step += 1
    assert [at for at, _ in pacer.plan.revisions] == [cut_at]
    assert 100.0 < clock.now - begun <= seconds


def test_a_plan_never_grows_beyond_the_most_epochs(clock: Clock, tmp_path: Path) -> None:
    short = Plan(1000, 100, ((1.0, 64),), budget_seconds=1e6, most_steps=1000, seconds_per_step=((64, 0.1),))
    pacer = Pacer(RunFolder(tmp_path), short, started=clock.now)
    assert trained_at(pacer, clock, 0.1) == []


@pytest.mark.parametrize(("frozen", "revised"), [(0.1, 500), (0.0, 150)])
def test_the_fast_steps_of_a_frozen_network_say_nothing_of_the_rest(
    frozen: float, revised: int, clock: Clock, tmp_path: Path
) -> None:
    pacer, step, begun, found = Pacer(RunFolder(tmp_path), planned(1000, 104.0), clock.now, frozen), 0, clock.now, []
    while step < pacer.plan.last_step:
        if pacer.revise(step) is not None:
            found.append(step)
        clock.now += 0.02 if step < 100 else 0.1
        step += 1
    assert found[0] == revised
    assert clock.now - begun <= 106.0


def test_the_time_of_the_validation_at_the_end_is_kept_at_every_review(clock: Clock, tmp_path: Path) -> None:
    plan = replace(planned(1000, 134.0), ending=30.0)
    pacer, begun = Pacer(RunFolder(tmp_path), plan, started=clock.now), clock.now
    assert trained_at(pacer, clock, 0.1) == []
    assert clock.now - begun + plan.ending + pace.RESERVE == pytest.approx(134.0)


def test_a_plan_that_was_revised_before_the_run_was_killed_stands(clock: Clock, tmp_path: Path) -> None:
    revised = replace(planned(1000, 104.0), revisions=((150, 800),))
    pacer = Pacer(RunFolder(tmp_path), revised, started=clock.now)
    assert trained_at(pacer, clock, 0.9) == []


def test_a_stalled_run_is_brought_to_its_end_once_whatever_the_clock_says(clock: Clock, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    pacer = Pacer(run, planned(1000, 104.0), started=clock.now)
    assert pacer.revise(400, stalled=True) == ((400, 500),)
    assert read_plan(run.plan) == pacer.plan
    clock.now += 1e6
    assert [pacer.revise(step, stalled=True) for step in range(401, 500)] == [None] * 99


def test_a_plan_that_the_disk_refuses_once_is_revised_at_the_next_review(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pacer, refused = Pacer(RunFolder(tmp_path), planned(1000, 104.0), started=clock.now), list[int]()
    written = RunFolder.write

    def write(run: RunFolder, name: str, value: object) -> None:
        if not refused:
            refused.append(1)
            raise DiskError("Could not write plan.json: Input/output error; check the disk.")
        written(run, name, value)

    monkeypatch.setattr(RunFolder, "write", write)
    cuts, step = [], 0
    while step < pacer.plan.last_step:
        try:
            if pacer.revise(step) is not None:
                cuts.append(step)
        except DiskError:
            refused.append(step)
        clock.now += 0.3
        step += 1
    assert refused == [1, 150]
    assert cuts
    assert cuts[0] == 500


def decoded(clock: Clock, budget: float | None) -> Iterator[int]:
    """A hundred photos, a tenth of a second each."""
    decoding = DecodingPace(budget, clock.now)
    for done in range(1, 101):
        clock.now += 0.1
        decoding.progress(done, 100)
        yield done


def test_decoding_that_would_eat_up_the_budget_is_refused_as_soon_as_its_rate_is_known(clock: Clock) -> None:
    assert [list(decoded(clock, budget))[-1] for budget in (None, 13.0)] == [100, 100]
    photos = decoded(clock, 12.0)
    assert [next(photos) for _ in range(49)][-1] == 49
    with pytest.raises(UsageError, match=r"--time 12s is too short: .* need about 1[23] s on this machine; give"):
        [next(photos) for _ in range(3)]


def test_runs_of_epochs_and_resumed_runs_are_never_cut(clock: Clock, tmp_path: Path) -> None:
    by_epochs = Pacer(RunFolder(tmp_path), planned(1000, None), started=clock.now)
    assert trained_at(by_epochs, clock, 9.9) == []
    (tmp_path / "checkpoints" / "step-000100").mkdir(parents=True)
    resumed = Pacer(RunFolder(tmp_path), planned(1000, 104.0), started=clock.now)
    assert trained_at(resumed, clock, 9.9) == []
