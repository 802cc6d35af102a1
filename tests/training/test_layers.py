"""Layers from the input to the head: their rates, and the time in which only the head learns."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from toy_training import Photos, network, run, settings, training

from plusx.training.events import StepDone
from plusx.training.layers import head, is_frozen, layers, rate_shares
from plusx.training.loop import fit
from plusx.training.optimizer import build_optimizer, set_rate
from plusx.training.step import State, train_step

TOTAL = 12
TUNED = {"frozen": 0.5, "input_rate": 0.04}


def test_layers_go_from_the_input_to_the_head_and_a_norm_belongs_to_the_layer_before() -> None:
    assert layers(network()) == [
        ["conv1.weight", "bn1.weight", "bn1.bias"],
        ["block.conv1.weight", "block.bn1.weight", "block.bn1.bias"],
        ["fc.weight", "fc.bias"],
    ]
    assert head(network()) == ["fc.weight", "fc.bias"]


def test_rates_grow_by_one_factor_from_layer_to_layer() -> None:
    shares = rate_shares(network(), 0.04)
    assert [shares[name] for name in ("conv1.weight", "block.bn1.bias", "fc.bias")] == pytest.approx([0.04, 0.2, 1.0])
    assert set(rate_shares(network(), 1.0).values()) == {1.0}


def test_every_group_of_the_optimizer_gets_the_rate_of_its_layer() -> None:
    model, how = network(), settings(TOTAL, schedule="constant", input_rate=0.04, norm_bias_rate=2.0)
    optimizer = build_optimizer(model, how)
    assert set_rate(optimizer, how, 0) == 0.05
    names = {id(value): name for name, value in model.named_parameters()}
    rates = {names[id(p)]: group["lr"] / 0.05 for group in optimizer.param_groups for p in group["params"]}
    assert rates == pytest.approx(
        {
            **{"conv1.weight": 0.04, "bn1.weight": 0.04, "bn1.bias": 0.08},
            **{"block.conv1.weight": 0.2, "block.bn1.weight": 0.2, "block.bn1.bias": 0.4},
            **{"fc.weight": 1.0, "fc.bias": 1.0},
        }
    )


def moved(before: dict[str, torch.Tensor], model: torch.nn.Module) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_frozen_network_learns_with_its_head_alone_and_then_with_all_of_it(optimizer: str) -> None:
    how, photos = settings(TOTAL, schedule="constant", optimizer=optimizer, **TUNED), Photos()
    state = State.fresh(network(), how)
    whole = set(state.model.state_dict())
    for step in range(TOTAL):
        before = {name: value.clone() for name, value in state.model.state_dict().items()}
        train_step(state, photos.batch(step), how)
        assert moved(before, state.model) == ({"fc.weight", "fc.bias"} if step < 6 else whole)
    assert [is_frozen(how, step) for step in (0, 5, 6, 11)] == [True, True, False, False]


def test_a_frozen_step_is_that_of_a_linear_classifier_on_what_the_network_gives() -> None:
    how = settings(TOTAL, schedule="constant", frozen=1.0, clip_norm=None, accumulate=1, average="none")
    state, batch = State.fresh(network(), how), Photos().batch(0)
    state.model.drop = torch.nn.Identity()
    reference = network().eval()
    reference.drop = torch.nn.Identity()
    for name, parameter in reference.named_parameters():
        parameter.requires_grad_(name.startswith("fc."))
    loss = torch.nn.functional.cross_entropy(reference(batch.images), batch.targets, label_smoothing=0.1)
    assert train_step(state, batch, how).loss == loss.item()


def test_what_was_frozen_from_the_start_stays_so() -> None:
    how, photos = settings(TOTAL, **TUNED), Photos()
    model = network()
    model.conv1.weight.requires_grad_(False)
    state, before = State.fresh(model, how), model.conv1.weight.clone()
    for step in range(TOTAL):
        train_step(state, photos.batch(step), how)
    assert torch.equal(before, model.conv1.weight)
    assert model.block.conv1.weight.requires_grad


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_run_resumed_frozen_thawing_or_thawed_ends_with_equal_bits(optimizer: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    how = settings(TOTAL, checkpoint_every=1, optimizer=optimizer, **TUNED)
    one, photos = training(tmp_path / "whole", how), Photos()

    def copy(event: object) -> None:
        if isinstance(event, StepDone):
            one.save()
            shutil.copytree(tmp_path / "whole", tmp_path / f"step-{event.step}")

    one.listen = copy
    fit(one, photos, photos.validate)
    whole = run(tmp_path / "again", how)
    for step in (2, 5, 6, 7, 9):
        assert run(tmp_path / f"step-{step}", how, resume=True) == whole
    assert run(tmp_path / "thawed", settings(TOTAL, optimizer=optimizer, input_rate=0.04)) != whole
