"""Which parameters decay, and how fast they learn."""

from __future__ import annotations

import pytest
import torch
from toy_training import network

from plusx.training.optimizer import build_optimizer, parameter_groups, set_rate
from plusx.training.settings import Settings


def how(**others: object) -> Settings:
    values = {"total_steps": 10, "steps_per_epoch": 5, "learning_rate": 0.1, "weight_decay": 0.01}
    return Settings(**(values | others))  # type: ignore[arg-type]


def names(group: dict[str, object], model: torch.nn.Module) -> set[str]:
    by_id = {id(p): name for name, p in model.named_parameters()}
    return {by_id[id(p)] for p in group["params"]}  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_weights_decay_and_norms_and_biases_do_not(kind: str) -> None:
    model = network()
    weights, others = build_optimizer(model, how(optimizer=kind)).param_groups
    assert (weights["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    assert names(weights, model) == {"conv1.weight", "block.conv1.weight", "fc.weight"}
    assert names(others, model) == {"bn1.weight", "bn1.bias", "block.bn1.weight", "block.bn1.bias", "fc.bias"}


def test_the_optimizers_are_the_ones_of_pytorch() -> None:
    sgd = build_optimizer(network(), how(momentum=0.8))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.8, True)
    assert isinstance(build_optimizer(network(), how(optimizer="adamw")), torch.optim.AdamW)


def test_biases_of_norms_learn_faster_by_their_factor() -> None:
    model, settings = network(), how(norm_bias_rate=64.0)
    optimizer = build_optimizer(model, settings)
    assert set_rate(optimizer, settings, 0) == 0.1
    assert names(optimizer.param_groups[-1], model) == {"bn1.bias", "block.bn1.bias"}
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1, 6.4]


def test_norms_decay_when_asked_to_and_keep_their_own_rate() -> None:
    groups = parameter_groups(network(), how(decay_norms_and_biases=True, norm_bias_rate=2.0))
    assert [(g["weight_decay"], g["rate_scale"]) for g in groups] == [(0.01, 1.0), (0.01, 1.0), (0.01, 2.0)]


def test_frozen_parameters_are_left_out() -> None:
    model = network()
    model.conv1.weight.requires_grad_(False)
    members = set().union(*(names(group, model) for group in parameter_groups(model, how())))
    assert members == {name for name, _ in model.named_parameters()} - {"conv1.weight"}
