"""The one training step, against plain PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from toy_training import Batch, Photos, network

from plusx.training.settings import Settings
from plusx.training.step import NotFiniteError, State, train_step

TEXTBOOK = Settings(
    total_steps=100, steps_per_epoch=10, learning_rate=0.01, momentum=0.0, nesterov=False, weight_decay=0.0
)


class Plain(nn.Module):
    """The toy network without dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.inner.drop = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner(images)


def states_equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_five_steps_equal_the_textbook_loop_bit_for_bit() -> None:
    ours, theirs, photos = Plain(), Plain(), Photos()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.01)
    theirs.train()
    losses = []
    for step in range(5):
        batch = photos.batch(step)
        optimizer.zero_grad()
        loss = criterion(theirs(batch.images), batch.targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    state = State.fresh(ours, TEXTBOOK)
    assert [train_step(state, photos.batch(step), TEXTBOOK).loss for step in range(5)] == losses
    assert states_equal(ours, theirs)


def steps(count: int = 3, **others: Any) -> tuple[State, list[float]]:
    values = {"total_steps": 12, "steps_per_epoch": 4, "learning_rate": 0.05} | others
    how, photos = Settings(**values), Photos()
    state = State.fresh(Plain(), how)
    return state, [train_step(state, photos.batch(step), how).loss for step in range(count)]


def test_nesterov_clipping_and_decay_equal_plain_pytorch() -> None:
    state, losses = steps(clip_norm=0.1, momentum=0.9, weight_decay=0.01, decay_norms_and_biases=True)
    model, photos = Plain(), Photos()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
    for step in range(3):
        batch = photos.batch(step)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch.images), batch.targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        assert loss.item() == losses[step]
    assert states_equal(state.model, model)


def test_label_smoothing_equals_the_one_of_pytorch() -> None:
    _, losses = steps(1, label_smoothing=0.1)
    batch = Photos().batch(0)
    assert losses == [nn.CrossEntropyLoss(label_smoothing=0.1)(Plain()(batch.images), batch.targets).item()]


def test_soft_targets_that_are_certain_equal_labels() -> None:
    how, photos = TEXTBOOK, Photos()
    hard, soft = State.fresh(Plain(), how), State.fresh(Plain(), how)
    batch = photos.batch(0)
    certain = Batch(batch.images, nn.functional.one_hot(batch.targets, 3).float(), batch.indices)
    one, other = train_step(hard, batch, how), train_step(soft, certain, how)
    assert one.loss == pytest.approx(other.loss, rel=1e-6)
    assert one.accuracy == other.accuracy


def test_accumulated_parts_give_the_gradient_of_the_whole_batch() -> None:
    """Up to rounding, for a network without batch norm."""
    flat = {"total_steps": 4, "steps_per_epoch": 4, "learning_rate": 0.1, "momentum": 0.0, "nesterov": False}
    weights = []
    for accumulate in (1, 3):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 3))
        how = Settings(**flat, accumulate=accumulate)
        batch = Photos().batch(0)
        batch.images = batch.images.float() / 255
        train_step(State.fresh(model, how), batch, how)
        weights.append(model[1].weight.detach().clone())
    assert torch.allclose(*weights, atol=1e-6)
    assert not torch.equal(weights[0], torch.zeros_like(weights[0]))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains_on_a_cpu_with_the_scaler_switched_off(precision: str) -> None:
    state, losses = steps(8, precision=precision, clip_norm=1.0)
    reference = steps(8, clip_norm=1.0)[1]
    assert not state.scaler.is_enabled()
    assert losses != reference
    assert losses == pytest.approx(reference, abs=0.05)
    assert all(p.dtype == torch.float32 for p in state.model.parameters())


def test_dropout_depends_on_the_step_and_the_seed_and_not_on_the_past() -> None:
    photos, how = Photos(), TEXTBOOK
    first, second = State.fresh(network(), how), State.fresh(network(), how)
    torch.manual_seed(1)
    one = train_step(first, photos.batch(0), how).loss
    torch.manual_seed(2)
    assert train_step(second, photos.batch(0), how).loss == one


def test_a_loss_that_is_not_finite_leaves_the_parameters_alone() -> None:
    state = State.fresh(Plain(), TEXTBOOK)
    before = [p.detach().clone() for p in state.model.parameters()]
    batch = Photos().batch(0)
    batch.images = torch.full(batch.images.shape, float("nan"))
    with pytest.raises(NotFiniteError):
        train_step(state, batch, TEXTBOOK)
    assert state.step == 0
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))


def test_the_average_follows_the_weights_and_their_norm_statistics() -> None:
    state, _ = steps(4, average="ema", average_decay=0.5, average_every=2)
    other, _ = steps(2)
    start = Plain()
    assert state.average is not None
    averaged = state.average.model.state_dict()
    for name in ("inner.fc.weight", "inner.bn1.running_mean", "inner.bn1.running_var"):
        before, after2, after4 = (model.state_dict()[name] for model in (start, other.model, state.model))
        expected = before.lerp(after2, 1 - 2 / 11)  # (1 + n) / (10 + n) after the first
        expected = expected.lerp(after4, 1 - 3 / 12)  # 0.5 ** 2 is the ceiling: 0.25
        assert torch.allclose(averaged[name], expected, atol=1e-7)
        assert not torch.allclose(expected, after4, atol=1e-4)
    assert averaged["inner.bn1.num_batches_tracked"] == 4
    assert state.kept is state.average.model
