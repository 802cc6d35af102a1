"""What `lab identity` measures in trained networks that are made deeper, and what it says of numbers it is given."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from plusx.lab import identity, identity_told
from plusx.lab.chain import blocks
from plusx.lab.identity_told import BUILT, FRESH, GROWN, KEPT, PLAIN, Scene
from plusx.lab.laboratory import Lab
from plusx.lab.network import Network
from plusx.lab.photos import Photos
from plusx.models.blocks import Block
from plusx.training.events import Notice
from tests.lab.conftest import SIZE
from tests.lab.test_chain import LABELS, PIXELS, network

SCENE = Scene(600, 150, full=False, photos=2_000)


def course(start: float, end: float, *, equal: bool = True, first: float = 1.5) -> dict[str, Any]:
    """One training whose loss and error go from `start` to `end`."""
    points = [{"training_error": e, "training_loss": 2 * e, "test_error": e + 0.01} for e in (start, end)]
    return {
        "bit_equal": equal,
        "largest_difference": 0.0 if equal else 0.25,
        "same_answers": 1.0 if equal else 0.5,
        "start": points[0],
        "end": points[1],
        "losses": [[1, first], [10, 2 * start], [20, 2 * end]],
    }


def raw(*, grown: float = 0.30, fresh: float = 0.60, scratch: float = 0.70, **grown_is: Any) -> dict[str, Any]:
    def two(start: float, end: float, **more: Any) -> list[dict[str, Any]]:
        return [course(start + seed, end + seed, **more) for seed in (0.0, 0.02)]

    same = {"values": 1_000, "equal": 1_000, "zeros": 400, "largest": 0.0}
    return {
        "blocks": {
            "residual": same,
            "signed": same | {"equal": 400, "largest": 1.5},
            "plain": same | {"equal": 400, "zeros": 1_000, "largest": 2.0},
            "built": same,
        },
        "scratch": {
            "plain56": [{"training_error": e, "training_loss": 2 * e, "test_error": e} for e in (scratch, 0.8)]
        },
        "ways": {
            KEPT: two(0.35, 0.31),
            GROWN: two(0.35, grown, **grown_is),
            PLAIN: two(0.40, 0.38),
            FRESH: two(0.90, fresh, equal=False),
            BUILT: two(0.40, 0.39, equal=False),
        },
    }


def test_numbers_as_the_literature_has_them_agree_with_it_in_every_sentence() -> None:
    found = identity_told.findings(raw(), SCENE)
    assert [f.agrees for f in found] == [True] * 5
    assert found[1].sentence == (
        "With F(x) = 0, 1,000 of 1,000 values leave the residual blocks of 20 layers as they came, the largest "
        "difference is 0; with the mean taken off, so that some are negative, 40.0 % do. Of plain blocks all come out "
        "as zeros and 40.0 % as they came; with kernels and norms set by hand all do."
    )
    assert found[0].sentence == (
        "With zero branches added, from 20 layers to 56, the logits of 2,000 test photos are equal bit for bit in 2 of "
        "2 networks (largest difference 0), and so is the loss of the first training step in 2."
    )
    assert found[2].sentence == (
        "After 150 more steps, at this size, the residual network made 56 layers deep has a training loss of 0.620 ± "
        "0.028 and a training error of 31.00 ± 1.41 %, the one of 20 layers that was trained on 0.640 ± 0.028 and "
        "32.00 ± 1.41 %; both began at 0.720 ± 0.028 (2 seeds; losses within 1 % count as equal)."
    )
    assert found[3].sentence == (
        "With fresh blocks added, and statistics of norms taken anew, the training error of the plain network jumps "
        "from 41.00 ± 1.41 % to 91.00 ± 1.41 %; after 150 more steps, at this size, it is 61.00 ± 1.41 %, and 39.00 ± "
        "1.41 % of the plain 20 layers that were trained on (2 seeds)."
    )
    assert found[4].sentence == (
        "Plain 56 layers built by hand answer as the 20 layers in them, but for 50.00 ± 0.00 % of 2,000 test photos, "
        "with a training loss of 0.820 ± 0.028; trained on for 150 steps they come to 0.800 ± 0.028. SGD from scratch "
        "ends at 1.500 ± 0.141 after 600 steps, at this size (2 seeds)."
    )


def test_numbers_of_the_other_direction_do_not_agree() -> None:
    other = raw(grown=0.4, fresh=0.1, equal=False, first=1.6)
    other["scratch"]["plain56"] = [{"training_error": 0.1, "training_loss": 0.2, "test_error": 0.1}] * 2
    other["blocks"]["residual"] = other["blocks"]["signed"]
    assert [f.agrees for f in identity_told.findings(other, SCENE)] == [False] * 5


def test_seeds_that_disagree_tell_nothing_of_what_is_learned() -> None:
    mixed = raw()
    mixed["ways"][GROWN][1] = course(0.37, 0.6)
    mixed["ways"][FRESH][1] = course(0.9, 0.1)
    mixed["scratch"]["plain56"][0] = {"training_error": 0.1, "training_loss": 0.2, "test_error": 0.1}
    assert [f.agrees for f in identity_told.findings(mixed, SCENE)] == [True, True, None, None, None]


def test_no_worse_is_within_one_percent_of_the_loss() -> None:
    assert identity_told.findings(raw(grown=0.312), SCENE)[2].agrees is True
    assert identity_told.findings(raw(grown=0.314), SCENE)[2].agrees is False


def test_the_maps_that_arrive_at_a_block_are_those_of_the_network() -> None:
    made, seen = network("plain20"), []
    stages: Any = made.network
    for block in [*stages.layer1, *stages.layer2[1:], *stages.layer3[1:]]:
        block.register_forward_hook(lambda _, given, __: seen.append(given[0].clone()))
    found = identity.arriving(made, Photos(PIXELS, LABELS))
    seen.clear()
    with torch.inference_mode():
        made(PIXELS)
    assert len(found) == len(seen) == 7
    for (_, maps), expected in zip(found, seen, strict=True):
        assert torch.equal(maps, expected)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, open_lab: Callable[..., Lab]) -> Callable[..., Lab]:
    """Opens the lab with networks of 8 layers, made 20 layers deep."""
    monkeypatch.setattr(identity, "SHALLOW", 8)
    monkeypatch.setattr(identity, "DEEP", 20)
    for name in ("KEPT_RESIDUAL", "GROWN_RESIDUAL", "KEPT_PLAIN", "FRESH_PLAIN", "BUILT_PLAIN"):
        way = getattr(identity, name)
        monkeypatch.setattr(identity, name, replace(way, model=_SHORTER[way.model]))
    names = ("KEPT_RESIDUAL", "GROWN_RESIDUAL", "KEPT_PLAIN", "FRESH_PLAIN", "BUILT_PLAIN")
    monkeypatch.setattr(identity, "WAYS", tuple(getattr(identity, name) for name in names))
    monkeypatch.setattr(identity, "OWN_FILES", (identity.FRESH_PLAIN, identity.BUILT_PLAIN))
    return lambda **how: open_lab("identity", **how)


_SHORTER = {"resnet20": "resnet8", "resnet56": "resnet20", "plain20": "plain8", "plain56": "plain20"}


def test_trained_networks_are_made_deeper_and_trained_on(lab: Callable[..., Lab]) -> None:
    heard: list[Any] = []
    opened = lab(size=replace(SIZE, seeds=1, steps=24), heard=heard)
    found = identity.run(opened)
    assert opened.missing(identity.networks(opened)) == []
    assert not [event for event in heard if isinstance(event, Notice)], "nothing to warn of: no photo chooses anything"
    assert [f.agrees for f in found.findings[:2]] == [True, True], found.findings[1].sentence
    assert found.findings[2].agrees is not False, found.findings[2].sentence
    ways = found.raw["ways"]
    assert ways[GROWN][0]["losses"][0] == ways[KEPT][0]["losses"][0], "the loss of the first step, by `train` itself"
    assert ways[GROWN][0]["losses"][-1] != ways[KEPT][0]["losses"][-1], "then they part"
    assert not ways[FRESH][0]["bit_equal"]
    assert ways[FRESH][0]["largest_difference"] > 0.1 > 1e-3 > ways[BUILT][0]["largest_difference"]
    assert ways[BUILT][0]["same_answers"] == 1.0
    fresh, grown = (identity._begun(opened, way, 0) for way in (identity.FRESH_PLAIN, identity.GROWN_RESIDUAL))
    of_nothing = [[_of_nothing(blocks(made)[place]) for place in (0, 2)] for made in (fresh, grown)]
    assert of_nothing == [[False, False], [False, True]], "fresh blocks have statistics, zero branches need none"
    assert [figure.name for figure in found.figures] == ["going-on", "before-and-after"]
    assert [len(table.rows) for table in found.tables] == [4, 5, 4]
    assert json.loads(json.dumps(found.to_json()["raw"])) == found.raw


def _of_nothing(block: Block) -> bool:
    """Whether a norm has the statistics that it was made with."""
    return bool((block.last_norm.running_var == 1).all())


def test_blocks_of_other_seeds_are_measured_anew(lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_measured_blocks", lambda _, seeds: {"seeds": {"were": list(seeds)}})
    opened = lab()
    assert [identity._blocks(opened, seeds)["seeds"]["were"] for seeds in ((0,), (0, 1))] == [[0], [0, 1]]


def test_single_blocks_are_looked_at_without_changing_the_network() -> None:
    made = network("resnet20")
    before = copy.deepcopy(made.state_dict())
    for block, _ in identity.arriving(made, Photos(PIXELS, LABELS)):
        nn.init.zeros_(block.last_norm.weight)
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


def test_a_network_that_goes_on_is_named_by_the_run_it_comes_from(lab: Callable[..., Lab]) -> None:
    opened = lab()
    grown = identity.going_on(opened, identity.GROWN_RESIDUAL, 1)
    settings = dict(grown.settings)
    assert settings["weights"] == str(opened.run(Network("resnet8", 1)).path)
    assert (settings["zero_init_residual"], grown.model, grown.steps) == (True, "resnet20", 2)
