"""What `lab surgery` measures, and what it says of errors that it is given and of networks that it trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from plusx.lab import chain, surgery, surgery_told
from plusx.lab.chain import blocks, deleted, dialled, swapped, with_new_statistics, wrong
from plusx.lab.conduct import Size
from plusx.lab.laboratory import Lab
from plusx.lab.network import Network
from plusx.lab.photos import Photos
from plusx.lab.surgery_told import Scene
from tests.lab.conftest import SIZE
from tests.lab.test_chain import LABELS, PIXELS, network

PHOTOS = Photos(PIXELS, LABELS)
SCENE = Scene(1_000, 10, 600, full=False)


def operated(untouched: float, after: float, dial: float | None, *, changing: float = 0.02) -> dict[str, Any]:
    """Errors as of one seed: every operation gives `after`, growing a little with the number of blocks."""
    many = {str(count): [after + 0.001 * count] * 5 for count in (1, 2, 4, 8)}
    deleted = [after] * 27
    deleted[9] = deleted[18] = after + changing
    alphas = [] if dial is None else [0.0, 0.9, 1.0]
    dials = [] if dial is None else [dial, (dial + untouched) / 2, untouched]
    return {
        "untouched": untouched,
        "changes_shape": [9, 18],
        "deleted": deleted,
        "pairs": [[i, i + 1] for i in range(22)],
        "swapped": [after] * 22,
        "deleted_many": many,
        "swapped_many": many,
        "alphas": alphas,
        "dial": dials,
        "shortcut_cut": [] if dial is None else [dial] * 27,
        "renewed": {"deleted_many": dict.fromkeys(many, after), "dial": dials},
    }


def raw(residual: float, plain: float, dial: float = 0.9) -> dict[str, Any]:
    return {
        "resnet56": [operated(0.2 + seed, residual + seed, dial) for seed in (0.0, 0.01)],
        "plain56": [operated(0.4 + seed, plain + seed, None) for seed in (0.0, 0.01)],
    }


def test_errors_as_published_agree_with_the_paper_in_every_sentence() -> None:
    found = surgery_told.findings(raw(0.235, 0.8), SCENE)
    assert [f.agrees for f in found] == [True] * 7
    assert found[0].sentence == (
        "After 600 steps, at this size, the error on 1,000 test photos with one of 27 blocks deleted (the median of "
        "all) goes in resnet56 from 20.50 ± 0.71 % to 24.00 ± 0.71 %, which is 5 ± 0 % of its lead over guessing; in "
        "plain56 from 40.50 ± 0.71 % to 80.50 ± 0.71 %, which is 81 ± 1 % of its lead over guessing (2 seeds)."
    )
    assert found[1].sentence == (
        "Without block 10 or 19, which change the shape of maps, the error of resnet56 is 26.00 ± 0.71 % in the mean, "
        "without one of the others 24.00 ± 0.71 % (2 seeds)."
    )
    assert found[2].sentence == (
        "With blocks deleted at random, the error of resnet56 is 20.5 ± 0.7 % with all, 24.1 ± 0.7 % without 1, "
        "24.2 ± 0.7 % without 2, 24.4 ± 0.7 % without 4, 24.8 ± 0.7 % without 8; guessing gives 90 % (2 seeds)."
    )
    assert "with two neighbours swapped (the median of 22) goes in" in found[3].sentence
    assert "with 8 random pairs swapped goes in" in found[4].sentence
    assert found[5].sentence == (
        "Where one block of resnet56 loses its shortcut and keeps its branch, the error is 90.00 ± 0.00 % in the "
        "median of all blocks; where it loses its branch and keeps its shortcut, 24.00 ± 0.71 % (2 seeds)."
    )
    assert found[6].sentence == (
        "With all shortcuts of resnet56 scaled by alpha, its error is 20.5 ± 0.7 % at 1, 55.2 ± 0.4 % at 0.9, 90.0 ± "
        "0.0 % at 0; with statistics of its norms taken anew 20.5 ± 0.7 % at 1, 55.2 ± 0.4 % at 0.9, 90.0 ± 0.0 % at 0 "
        "(2 seeds)."
    )


def test_errors_of_the_other_direction_do_not_agree() -> None:
    other = raw(0.7, 0.42, dial=0.1)
    for seed in other["resnet56"]:
        seed["deleted"][9] = seed["deleted"][18] = 0.1
        seed["deleted_many"] = {"1": [0.7], "2": [0.6], "4": [0.5], "8": [0.4]}
    assert [f.agrees for f in surgery_told.findings(other, SCENE)] == [False] * 7


def test_seeds_that_disagree_tell_nothing() -> None:
    mixed = raw(0.235, 0.8)
    mixed["plain56"][0] = operated(0.4, 0.4, None)
    found = surgery_told.findings(mixed, SCENE)
    assert [f.agrees for f in found] == [None, True, True, None, None, True, True]


def test_blocks_that_change_shapes_must_be_missed_by_more_than_chance() -> None:
    close = {"resnet56": [operated(0.2, 0.25, 0.9, changing=0.009)], "plain56": [operated(0.4, 0.8, None)]}
    found = surgery_told.findings(close, SCENE)[1]
    assert (found.agrees, found.why) == (None, "A difference of less than 1 point could be chance.")


@pytest.mark.parametrize(
    ("errors", "agrees"),
    [((0.25, 0.249, 0.3, 0.4), True), ((0.25, 0.3, 0.27, 0.4), False), ((0.2, 0.201, 0.199, 0.205), None)],
)
def test_one_photo_more_or_less_is_no_fall(errors: tuple[float, ...], agrees: bool | None) -> None:
    given = raw(0.235, 0.8)
    for seed in given["resnet56"]:
        seed["untouched"] = 0.2
        seed["deleted_many"] = {str(2**i): [error] for i, error in enumerate(errors)}
    assert surgery_told.findings(given, SCENE)[2].agrees is agrees


def weak() -> dict[str, Any]:
    return raw(0.235, 0.9) | {"plain56": [operated(0.88, 0.9, None), operated(0.9, 0.9, None)]}


def test_a_network_that_guesses_has_nothing_to_lose() -> None:
    found = surgery_told.findings(weak(), SCENE)
    assert [f.agrees for f in found] == [None, True, True, None, None, True, True]
    assert found[0].why == "A network that answers hardly better than a guess has nothing to lose."
    assert "in plain56 from 89.00 ± 1.41 % to 90.00 ± 0.00 % (2 seeds)." in found[0].sentence


def test_where_the_deepest_plain_network_guesses_shallower_twins_are_compared() -> None:
    shallower = {model.replace("56", "20"): seeds for model, seeds in raw(0.25, 0.7).items()}
    found = surgery_told.findings(weak() | shallower, SCENE)
    assert [f.agrees for f in found] == [True] * 7
    assert "goes in resnet20 from 20.50" in found[0].sentence
    assert found[0].sentence.endswith(
        " plain56 is not compared: its error is 89.00 ± 1.41 % untouched, so there is nothing to lose."
    )
    assert "the error of resnet56 is 20.5 ± 0.7 % with all" in found[2].sentence
    assert "With all shortcuts of resnet56" in found[6].sentence
    drawn = surgery_told.figures(weak() | shallower, SCENE)
    names = ["deleted-56", "deleted-20", "deleted-many-56", "deleted-many-20", "swapped", "swapped-many", "dial"]
    assert [figure.name for figure in drawn] == names
    assert "plain20" in drawn[4].svg
    assert "plain56" not in drawn[4].svg


def test_measurements_are_those_of_single_operations() -> None:
    made = network("resnet20")
    found = surgery.operate(made, PHOTOS, PHOTOS, seed=3)
    n = len(LABELS)
    assert found["untouched"] == wrong(made, [lambda links: links], PIXELS, LABELS)[0] / n
    assert found["deleted"] == [wrong(made, [deleted(i)], PIXELS, LABELS)[0] / n for i in range(9)]
    assert found["pairs"] == [[0, 1], [1, 2], [4, 5], [7, 8]]
    assert found["swapped"] == [wrong(made, [swapped((a, b))], PIXELS, LABELS)[0] / n for a, b in found["pairs"]]
    assert found["changes_shape"] == [3, 6]
    assert found["dial"][-1] == found["untouched"]
    cut = [wrong(made, [dialled(0.0, [i])], PIXELS, LABELS)[0] / n for i in range(9)]
    assert (found["shortcut_cut"], found["dial"][0]) == (cut, wrong(made, [dialled(0.0)], PIXELS, LABELS)[0] / n)
    assert found["renewed"]["dial"][-1] == (
        wrong(with_new_statistics(made, lambda links: links, PIXELS), [lambda links: links], PIXELS, LABELS)[0] / n
    )
    assert {key: len(errors) for key, errors in found["deleted_many"].items()} == {"1": 5, "2": 5, "4": 5}
    assert found == json.loads(json.dumps(found)), "JSON values"


def test_a_plain_network_has_no_dial() -> None:
    found = surgery.operate(network("plain20"), PHOTOS, PHOTOS, seed=3)
    assert found["dial"] == found["shortcut_cut"] == found["renewed"]["dial"] == []


def test_blocks_are_chosen_by_the_seed_and_more_includes_fewer() -> None:
    found = blocks(network("plain20"))
    kept = [0, 1, 2, 4, 5, 7, 8]
    assert surgery.exchangeable(found) == [(0, 1), (0, 2), (1, 2), (4, 5), (7, 8)]
    edits = surgery.several(found, 1)
    again, other = surgery.several(found, 1), surgery.several(found, 2)

    def cut(edit: Any) -> list[int]:
        return [i for i, (new, old) in enumerate(zip(edit(found), found, strict=True)) if new is not old]

    chosen = {count: [cut(edit) for edit in ways] for count, ways in edits["deleted"].items()}
    for draw in range(surgery.DRAWS):
        assert [len(chosen[count][draw]) for count in (1, 2, 4)] == [1, 2, 4]
        assert set(chosen[1][draw]) < set(chosen[2][draw]) < set(chosen[4][draw]) < set(kept)
    assert chosen[4] == [cut(edit) for edit in again["deleted"][4]] != [cut(edit) for edit in other["deleted"][4]]
    assert len({tuple(way) for way in chosen[4]}) > 1
    moved = edits["swapped"][4][0](found)
    assert set(map(id, moved)) == set(map(id, found)), "every block is still there, once"
    assert moved != found


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch, open_lab: Callable[..., Lab]) -> Callable[[Size], Lab]:
    """Opens the lab with twins of 20 layers alone."""
    monkeypatch.setattr(surgery, "DEPTHS", (20,))
    return lambda size: open_lab("surgery", size=size)


def test_trained_networks_are_operated_on_once_and_residual_ones_bear_it(
    twins: Callable[[Size], Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "AT_A_TIME", 16)  # four batches: of photos in the order of classes each has one
    seen: list[Photos] = []
    operate = surgery.operate
    monkeypatch.setattr(surgery, "operate", lambda *given: seen.append(given[2]) or operate(*given))
    lab = twins(replace(SIZE, seeds=1, steps=80))
    found = surgery.run(lab)
    assert all(0.1 < part.float().mean() < 0.9 for others in seen for part in others.labels.split(16))
    assert lab.missing(surgery.networks(lab)) == []
    assert [row[0] for row in found.tables[0].rows] == ["resnet20", "plain20"]
    assert [float(row[0]) for row in found.tables[1].rows] == list(surgery.ALPHAS)
    assert [f.name for f in found.figures] == ["deleted-20", "deleted-many-20", "swapped", "swapped-many", "dial"]
    assert found.findings[0].agrees is True, found.findings[0].sentence
    assert found.findings[0].sentence.startswith("After 80 steps, at this size, the error on 16 test photos")
    residual, plain = found.raw["resnet20"][0], found.raw["plain20"][0]
    assert residual["renewed"]["dial"][-1] == pytest.approx(residual["untouched"], abs=0.1)
    assert sum(residual["deleted"]) < sum(plain["deleted"])
    assert residual["untouched"] == 1 - lab.history(Network("resnet20"))[-1]["validation"]["accuracy"]
    monkeypatch.setattr(surgery, "operate", lambda *_: pytest.fail("measured again"))
    assert surgery.run(lab).raw == found.raw


def test_seeds_of_which_a_network_diverged_are_left_out(
    twins: Callable[[Size], Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = twins(SIZE)
    monkeypatch.setattr(lab, "diverged", lambda network: 7 if network == Network("plain20", 1) else None)
    assert lab.sound(surgery.networks(lab)) == (0,)
    assert "one seed, 1 more left out, since a network diverged," in surgery._conditions(lab, 16)
