"""What the experiment on the family says of answers that it is given, and of networks that it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from plusx.errors import UsageError
from plusx.lab import conduct, estimate, family
from plusx.lab.conduct import LabWish, Size
from plusx.lab.family_told import Family, Member, Trained, figures, findings, tables
from plusx.lab.job import settled
from plusx.lab.laboratory import Lab
from plusx.lab.network import Network
from plusx.lab.photos import Amount
from plusx.metrics import interval95
from tests.lab.conftest import train_here

TINY = {**family._FLAGS, "size": 64, "width": 0.1, "batch_size": 16, "device": "cpu", "workers": 0, "log_every": 1}
SIZE = Size(TINY, Amount(64, 16), seeds=1)
NETWORK = family._network
# accuracy in percent, in the order of the literature
AS_PUBLISHED = {"alexnet": 60, "vgg16": 65, "plain34": 67, "resnet18": 80, "resnet34": 82, "resnet50": 95}
OPERATIONS = {"alexnet": 14, "vgg16": 174, "plain34": 41, "resnet18": 22, "resnet34": 41, "resnet50": 45}


def answers(percent: int, n: int = 400) -> Trained:
    """The first photos are answered rightly, so that of two networks the better one is right wherever the other is."""
    return Trained(12.0, tuple(i < percent * n // 100 for i in range(n)), 0.9, 2)


def given(accuracies: dict[str, int], seeds: int = 1, **departures: Any) -> Family:
    members = tuple(
        Member(
            name,
            parameters=1000,
            operations=OPERATIONS[name] * 10**6,
            rate=0.1,
            speed=20_000 / OPERATIONS[name],
            by_epochs=(answers(accuracies[name]),) * seeds,
            by_time=(replace(answers(accuracies[name]), epochs=500 / OPERATIONS[name]),) * seeds,
        )
        for name in accuracies
    )
    changed = tuple(replace(member, **departures.get(member.name, {})) for member in members)
    return Family(changed, epochs=12, seconds=45.0, size=64, full=False)


def test_answers_as_published_agree_with_the_papers() -> None:
    found = findings(given(AS_PUBLISHED))
    assert [f.agrees for f in found] == [True] * 6 + [None]
    assert found[0].sentence == (
        "After 12 epochs each, at this size, ResNet-34 answers 82.0 % of 400 test photos rightly, plain-34 67.0 %, "
        "with 41 and 41 million operations a photo (one seed, p = 1.7e-18)."
    )
    assert found[1].sentence.startswith("After 45 seconds each, at this size, ResNet-34 answers 82.0 % of 400 test")
    assert "with 41 and 174 million operations a photo" in found[2].sentence
    assert found[6].sentence == (
        "After 45 seconds each, at this size, from the best down: ResNet-50 95.0 %, ResNet-34 82.0 %, ResNet-18 80.0 "
        "%, plain-34 67.0 %, VGG-16 65.0 %, AlexNet 60.0 %; AlexNet saw the photos 35.7 times in that time and VGG-16 "
        "2.9 times (one seed)."
    )
    published = findings(replace(given(AS_PUBLISHED), full=True))
    assert published[0].sentence.startswith("After 12 epochs each, ResNet-34 answers")


def test_answers_of_the_other_direction_do_not_agree_and_say_how_far_training_was() -> None:
    found = findings(given({name: 155 - percent for name, percent in AS_PUBLISHED.items()}))
    assert [f.agrees for f in found] == [False] * 6 + [None]
    assert found[0].why == (
        "On training crops they reach 90.0 % and 90.0 %: the budget is far from what the literature spends."
    )


def test_small_differences_tell_nothing() -> None:
    found = findings(given(dict.fromkeys(AS_PUBLISHED, 80) | {"plain34": 79}))
    assert [f.agrees for f in found] == [None] * 7
    assert found[0].why == "A difference of this size is within chance on so many photos."
    assert "p = 0.12" in found[0].sentence, "four photos in one direction: 2 / 2 ** 4"


def of_seeds(*percents: int | None) -> dict[str, tuple[Trained, ...]]:
    """Runs under so many seeds, of such accuracy; None for one that diverged."""
    return {"by_epochs": tuple(Trained(0.3, None, None, 2) if p is None else answers(p) for p in percents)}


def test_seeds_tell_by_agreeing_as_their_answers_are_to_the_same_photos() -> None:
    same = dict.fromkeys(AS_PUBLISHED, 80)
    agreeing = findings(given(same, seeds=3, plain34=of_seeds(79, 79, 78)))[0]
    assert agreeing.agrees is True
    assert "80.0 % of 400 test photos rightly, plain-34 78.7 %" in agreeing.sentence
    assert agreeing.sentence.endswith("(the former ahead under 3 of 3 seeds).")
    other = findings(given(same, seeds=3, plain34=of_seeds(70, 70, 81)))[0]
    assert (other.agrees, other.why) == (None, "The seeds do not agree on which is better.")
    assert other.sentence.endswith("(the former ahead under 2 of 3 seeds).")
    assert findings(given(same, seeds=3, plain34=of_seeds(90, 90, 90)))[0].agrees is False


def test_the_interval_of_several_seeds_is_their_range_and_diverged_ones_are_in_it_and_named() -> None:
    made = given(
        dict.fromkeys(AS_PUBLISHED, 80), seeds=3, plain34=of_seeds(70, None, 81), resnet34=of_seeds(82, 84, 86)
    )
    table = tables(made)[1]
    assert table.header[3] == "range over seeds"
    assert table.rows[2][2:5] == ("67.0 % (1 of 3 diverged)", "50.0 % to 81.0 %", "400")
    assert table.rows[4][2:5] == ("84.0 %", "82.0 % to 86.0 %", "400")
    assert "with the range over seeds" in figures(made)[0].caption
    found = findings(made)[0]
    assert found.agrees is True
    assert "plain-34 67.0 % (1 of 3 diverged), with" in found.sentence
    lost = findings(given(dict.fromkeys(AS_PUBLISHED, 80), seeds=3, resnet34=of_seeds(70, None, 70)))[0]
    assert (lost.agrees, lost.why) == (False, "One of them diverged.")


def test_a_network_that_diverged_is_worse_than_any_other() -> None:
    lost = Trained(0.3, None, None, 2)
    one = given(AS_PUBLISHED, plain34={"by_epochs": (lost,), "by_time": (lost,)})
    assert [f.agrees for f in findings(one)][:2] == [True, True]
    rows = tables(one)[1].rows
    assert rows[2] == ("plain-34", "0.3", "diverged", "", "0", "")
    other = findings(given(AS_PUBLISHED, resnet34={"by_epochs": (lost,)}))
    assert (other[0].agrees, other[0].why) == (False, "One of them diverged.")
    both = findings(given(AS_PUBLISHED, plain34={"by_epochs": (lost,)}, resnet34={"by_epochs": (lost,)}))
    assert both[0].agrees is None


def test_tables_and_figures_carry_intervals() -> None:
    costs, epochs, time = tables(given(AS_PUBLISHED))
    assert costs.rows[1] == ("VGG-16", "1,000", "174.0", "0.1", "115")
    low, high = interval95(260, 400)
    assert epochs.rows[1] == ("VGG-16", "12.0", "65.0 %", f"{100 * low:.1f} % to {100 * high:.1f} %", "400", "90.0 %")
    assert (epochs.title, time.title) == ("After 12 epochs", "After 45 seconds")
    drawn = {figure.name: figure.svg for figure in figures(given(AS_PUBLISHED))}
    assert list(drawn) == ["operations", "accuracy", "speed"]
    assert "photos a second, ResNet-50: 444 " in drawn["speed"]
    assert all("ResNet-34" in svg for svg in drawn.values())


def counted(lab: Lab, name: str, seed: int, timed: bool) -> Network:
    """Epochs in the place of seconds, of which nobody can be sure here."""
    return replace(NETWORK(lab, name, seed, timed), time=None, epochs=2 if timed else 1)


def test_it_is_run_from_photos_to_tables_figures_and_sentences(
    open_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lab, "trained", train_here)
    monkeypatch.setattr(family, "_network", counted)
    lab = open_lab("family", size=replace(SIZE, amount=Amount(32, 16)))
    result = family.run(lab)
    assert "32 training and 16 test photos of 2 classes at 64 px" in result.conditions
    raw = result.raw
    assert [raw[name]["by_epochs"][0]["epochs"] for name in family.NAMES] == [1.0] * 6
    assert [raw[name]["by_time"][0]["epochs"] for name in family.NAMES] == [2.0] * 6
    assert all(raw[name]["by_time"][0]["n"] == 16 for name in family.NAMES)
    run = lab.run(counted(lab, "resnet50", 0, timed=True)).read("metrics")["validation"]
    assert raw["resnet50"]["by_time"][0]["accuracy"] == run["accuracy"]
    assert raw["resnet50"]["by_time"][0]["accuracy_ci95"] == run["accuracy_ci95"]
    assert all(raw[name]["speed"] > 0 for name in family.NAMES)
    assert raw["plain34"]["parameters"] == raw["resnet34"]["parameters"] < raw["vgg16"]["parameters"]
    assert raw["alexnet"]["operations"] < raw["resnet18"]["operations"] < raw["vgg16"]["operations"]
    assert [row[3] for row in result.tables[0].rows] == ["0.01", "0.01", "0.1", "0.1", "0.1", "0.1"]
    assert "plain-34 with that of ResNet-34, its twin but for the shortcut" in result.conditions


@pytest.mark.parametrize("sets", [(), ("learning_rate=0.03",), ("optimizer=adamw",)])
@pytest.mark.parametrize("timed", [False, True])
def test_twins_differ_by_the_shortcut_alone_whatever_rate_is_wished(
    open_lab: Callable[..., Lab], sets: tuple[str, ...], timed: bool
) -> None:
    lab = open_lab("family", size=SIZE, sets=sets)
    plain, residual = (family._network(lab, name, 0, timed) for name in ("plain34", "resnet34"))
    ones, others = (settled(network.config(lab.config)).model_dump() for network in (plain, residual))
    assert {key for key in ones if ones[key] != others[key]} == {"model", "shortcut"}
    weights, same = (dict(lab.build(network).named_parameters()) for network in (plain, residual))
    assert weights.keys() == same.keys()
    assert all(weights[name].equal(same[name]) for name in weights)
    assert dict(family._network(lab, "resnet50", 0, timed).settings) == {}, "it keeps the published projections"


@pytest.mark.parametrize("name", ["family", "degradation"])
def test_no_test_photo_ends_a_training_or_chooses_its_weights(open_lab: Callable[..., Lab], name: str) -> None:
    lab = open_lab(name, size=conduct._experiment(name).QUICK if name == "family" else conduct.QUICK)
    assert (lab.config.patience, lab.config.keep) == (None, "last")


@pytest.mark.parametrize("setting", ["keep=best", "patience=3", "max_epochs=2"])
def test_settings_that_choose_on_test_photos_are_refused(open_lab: Callable[..., Lab], setting: str) -> None:
    told = f"^--set {setting.partition('=')[0]} is what the experiments themselves decide; leave it out"
    with pytest.raises(UsageError, match=told):
        open_lab("family", sets=(setting,))


def test_equal_time_is_of_the_whole_machine_and_equal_epochs_are_counted(open_lab: Callable[..., Lab]) -> None:
    made = family.networks(open_lab("family", size=SIZE))
    assert [network.model for network in made] == [*family.NAMES, *family.NAMES]
    assert [(n.epochs, n.time, n.alone) for n in made] == [(12, None, False)] * 6 + [(None, 45.0, True)] * 6


def test_a_residual_network_is_ahead_of_its_plain_twin(
    open_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = open_lab("family", size=SIZE)
    twins = [replace(family._network(lab, name, 0, timed=False), epochs=6) for name in ("resnet34", "plain34")]
    train_here(lab, twins)
    residual, plain = (family._trained(lab, network) for network in twins)
    assert residual.accuracy > plain.accuracy


def test_an_estimate_counts_epochs_and_keeps_to_times(
    open_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = open_lab("family", size=SIZE)
    monkeypatch.setattr(estimate, "open_lab", lambda *_: lab)
    monkeypatch.setattr(family, "NAMES", ("alexnet", "resnet18"))
    found = estimate.estimate("family", [], LabWish(processes=2), lambda _: None)
    assert [(cost.network, cost.alone) for cost in found.costs] == [
        ("alexnet-12-epochs", False),
        ("resnet18-shortcut-identity-12-epochs", False),
        ("alexnet-45-seconds", True),
        ("resnet18-shortcut-identity-45-seconds", True),
    ]
    assert [cost.steps for cost in found.costs[:2]] == [12 * 4] * 2, "12 epochs of 64 photos by 16"
    assert all(44 < cost.steps * cost.seconds <= 45 for cost in found.costs[2:])
    together = sum(cost.steps * cost.seconds for cost in found.costs[:2])
    assert found.seconds == pytest.approx(together / 2 + 90, abs=2)
