"""What the experiment on degradation says of errors that it is given, and of networks that it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from plusx.lab import conduct, degradation
from plusx.lab.conduct import LabWish
from plusx.lab.degradation import Course, findings, grouped
from plusx.lab.laboratory import Lab
from plusx.lab.twins import TWINS
from tests.lab.conftest import SIZE, train_here


def courses(*errors: tuple[float, float]) -> list[Course]:
    return [
        Course(f"n-{i}", 10, ((1, 0.9),), ((1, 0.9),), train, test, 5_000, 100)
        for i, (train, test) in enumerate(errors)
    ]


def rows(plain20: float, plain56: float, residual20: float, residual56: float) -> dict[tuple[str, int], list[Course]]:
    made = {("plain", 20): plain20, ("plain", 56): plain56, ("resnet", 20): residual20, ("resnet", 56): residual56}
    return {key: courses((e, e + 0.02), (e + 0.01, e + 0.03)) for key, e in made.items()}


def test_errors_as_published_agree_with_the_paper_in_every_sentence() -> None:
    found = findings(rows(0.3, 0.4, 0.25, 0.22), "After 7 steps", 5.76)
    assert [f.agrees for f in found] == [True, True, True, True]
    assert found[0].sentence == (
        "After 7 steps, plain networks of 56 layers have a training error of 40.50 ± 0.71 %, those of 20 layers "
        "30.50 ± 0.71 %: deeper is 10.00 points higher (2 seeds)."
    )
    assert found[1].sentence.endswith("deeper is 3.00 points lower (2 seeds).")
    assert "from 40.50 ± 0.71 % to 22.50 ± 0.71 %, by 18.00 points (2 seeds)" in found[2].sentence
    assert found[3].sentence == (
        "After 7 steps, from 20 to 56 plain layers the training error changes by +10.00 points and the test error by "
        "+10.00; test error less training error is 2.00 points at 20 layers and 2.00 at 56."
    )


def test_errors_of_the_other_direction_do_not_agree() -> None:
    found = findings(rows(0.4, 0.3, 0.2, 0.35), "After 7 steps", 5.76)
    assert [f.agrees for f in found] == [False, False, False, False]
    assert "deeper is 10.00 points lower" in found[0].sentence
    assert found[1].why == (
        "5.8 passes over the photos are few, the paper makes 182: deep residual networks are behind at first, and with "
        "more steps the gap narrows."
    )
    assert findings(rows(0.4, 0.3, 0.2, 0.35), "", 150)[1].why == "", "that is no reason after so many"


def test_a_network_that_blew_up_is_named_and_is_no_degradation() -> None:
    made = rows(0.3, 0.4, 0.25, 0.22)
    made["plain", 56][1] = replace(made["plain", 56][1], diverged=17)
    found = findings(made, "", 200)
    assert [f.agrees for f in found] == [None, True, None, None]
    assert found[0].why == "n-1 diverged at step 17: it counts as a guess here, and is no degradation."
    table = degradation._tables(made, full=False)[0]
    assert table.rows[1][2].endswith(" %, 1 of 2 diverged")


def test_the_full_size_is_that_of_the_paper() -> None:
    full = LabWish(full=True)
    size = conduct._size("degradation", full)
    config = conduct._config(size, full)
    assert (size.steps, size.amount.train, config.batch_size, config.learning_rate) == (64_000, 45_000, 128, 0.1)
    assert (config.size, config.width, config.milestones, config.pad) == (32, 1.0, (0.5, 0.75), 0.125)
    lab = SimpleNamespace(full=True, seeds=(0,))
    made = degradation.networks(lab)  # type: ignore[arg-type]
    assert [n.model for n in made[:4]] == ["plain20", "resnet20", "plain56", "resnet56"], "those that tell most"
    assert {n.model for n in made} == {f"{kind}{depth}" for kind in TWINS for depth in (20, 32, 44, 56, 110)}
    warm = {n.model: n.config(config).warmup for n in made}
    assert {name: share for name, share in warm.items() if share} == dict.fromkeys(("plain110", "resnet110"), 1 / 160)


def test_full_errors_stand_beside_those_published() -> None:
    made = {(kind, depth): courses((0.1, 0.0823)) for kind in TWINS for depth in degradation.FULL_DEPTHS}
    table = degradation._tables(made, full=True)[1]
    assert table.header == ("layers", "here, last step", "He et al. 2015, table 6", "Idelbayev, best of a run")
    assert table.rows[0] == ("20", "8.23 %", "8.75 %", "8.27 %")
    assert [row[2] for row in table.rows] == ["8.75 %", "7.51 %", "7.17 %", "6.97 %", "6.43 %"]


def test_seeds_that_disagree_tell_nothing() -> None:
    mixed = rows(0.3, 0.4, 0.25, 0.22) | {("plain", 56): courses((0.2, 0.3), (0.5, 0.6))}
    assert [f.agrees for f in findings(mixed, "", 200)] == [None, True, None, None]


def test_a_difference_that_could_be_chance_tells_nothing() -> None:
    made = rows(0.30, 0.302, 0.25, 0.22)
    found = findings(made, "", 200)
    assert [f.agrees for f in found] == [None, True, True, None]
    assert found[0].why == "On 5,000 training photos so small a difference could be chance."


def test_a_deeper_network_that_over_fits_is_not_called_degraded() -> None:
    over = rows(0.3, 0.4, 0.2, 0.1) | {("plain", 56): courses((0.31, 0.6), (0.32, 0.6))}
    assert findings(over, "", 200)[3].agrees is None, "its training error is higher, and its gap as well"


def test_curves_are_means_of_neighbours() -> None:
    assert grouped([(1, 0.0), (2, 1.0), (3, 0.5)], 2) == ((1.5, 0.5), (3, 0.5))


def test_it_is_run_from_photos_to_tables_figures_and_sentences(open_lab: Callable[..., Lab]) -> None:
    lab = open_lab(size=replace(SIZE, seeds=1, steps=4))
    result = degradation.run(lab)
    assert [row[0] for row in result.tables[0].rows] == ["8", "20", "56"]
    plain, residual = result.raw["plain20"][0], result.raw["resnet20"][0]
    assert plain["parameters"] == residual["parameters"]
    assert [figure.name for figure in result.figures] == ["curves-plain", "curves-residual", "depth"]
    assert all("After 4 steps, at this size" in finding.sentence for finding in result.findings[:3])
    assert 0 <= plain["training_error"] <= 1
    assert "64 training and 16 test photos of 2 classes at 16 px" in result.conditions


def test_twins_that_are_trained_show_degradation_and_its_cure(
    open_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lab, "trained", train_here)
    monkeypatch.setattr(degradation, "QUICK_DEPTHS", (20, 56))
    result = degradation.run(open_lab(size=replace(SIZE, seeds=1, steps=32)))
    error = {name: rows[0]["training_error"] for name, rows in result.raw.items()}
    assert error["plain56"] > error["plain20"] + 0.1, "deeper is worse on the photos it learns from"
    assert error["resnet56"] < error["plain56"] - 0.1, "the shortcuts alone mend it"
    assert [finding.agrees for finding in result.findings][::2] == [True, True]
