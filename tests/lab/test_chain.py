"""Blocks cut, exchanged and dialled: an edited chain is what a hand-made network computes, and nothing else moves."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plusx.lab import chain
from plusx.models import create_model
from plusx.models.normalise import Normalised

GENERATOR = torch.Generator().manual_seed(1)
PIXELS = torch.randint(0, 256, (40, 3, 16, 16), generator=GENERATOR, dtype=torch.uint8)
LABELS = torch.randint(0, 5, (40,), generator=GENERATOR)
CHANGING = (3, 6)  # places in a network of 20 layers where maps change their shape


def network(name: str, **departures: Any) -> Normalised:
    """With norms that do something, as if it were trained."""
    torch.manual_seed(0)
    made = Normalised(create_model(name, 5, width=0.25, **departures), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    for norm in (m for m in made.modules() if isinstance(m, nn.BatchNorm2d)):
        for value in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            value.uniform_(0.5, 1.5)
    return made.eval()


def norm(x: Tensor, of: nn.BatchNorm2d) -> Tensor:
    return F.batch_norm(x, of.running_mean, of.running_var, of.weight, of.bias, eps=of.eps)


def branch(block: Any, x: Tensor) -> Tensor:
    """F(x) of a basic block by hand."""
    inner = F.relu(norm(F.conv2d(x, block.conv1.weight, stride=block.conv1.stride, padding=1), block.bn1))
    return norm(F.conv2d(inner, block.conv2.weight, padding=1), block.bn2)


def padded(x: Tensor) -> Tensor:
    """Every second pixel, as many channels of zeros again, half before and half behind."""
    kept = x[:, :, ::2, ::2]
    zeros = torch.zeros_like(kept[:, : kept.shape[1] // 2])
    return torch.cat([zeros, kept, zeros], dim=1)


def by_hand(made: Normalised, cut: int | None = None, alpha: float = 1.0) -> Tensor:
    """Logits of a network of 20 layers without the branch of one block, its shortcuts scaled."""
    net: Any = made.network
    x = (PIXELS.float() / 255 - made.mean) / made.std
    x = F.relu(norm(F.conv2d(x, net.conv1.weight, padding=1), net.bn1))
    for place, block in enumerate([*net.layer1, *net.layer2, *net.layer3]):
        shortcut = padded(x) if place in CHANGING else x
        if place == cut:
            x = shortcut
        elif block.has_shortcut:
            x = F.relu(branch(block, x) + alpha * shortcut)
        else:
            x = F.relu(branch(block, x))
    return F.linear(x.mean(dim=(2, 3)), net.fc.weight, net.fc.bias)


@pytest.mark.parametrize(
    ("name", "departures"),
    [("resnet20", {}), ("plain20", {}), ("resnet50", {}), ("resnet18", {"downsampling": "pool", "stem": "whitened"})],
)
def test_the_unchanged_chain_is_the_network_bit_for_bit(name: str, departures: dict[str, Any]) -> None:
    made = network(name, **departures)
    with torch.inference_mode():
        assert torch.equal(chain.logits(made, chain.blocks(made), PIXELS), made(PIXELS))


@pytest.mark.parametrize("name", ["resnet20", "resnet50"])
def test_a_dial_at_one_is_the_network_bit_for_bit(name: str) -> None:
    made = network(name)
    with torch.inference_mode():
        links = chain.dialled(1.0)(chain.blocks(made))
        assert all(isinstance(link, chain.Dialled) for link in links)
        assert torch.equal(chain.logits(made, links, PIXELS), made(PIXELS))


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_a_dial_scales_every_shortcut(alpha: float) -> None:
    made = network("resnet20")
    with torch.inference_mode():
        links = chain.dialled(alpha)(chain.blocks(made))
        torch.testing.assert_close(chain.logits(made, links, PIXELS), by_hand(made, alpha=alpha))
        one = chain.dialled(alpha, [4])(chain.blocks(made))
    changed = [new is not old for old, new in zip(chain.blocks(made), one, strict=True)]
    assert changed == [place == 4 for place in range(9)]


@pytest.mark.parametrize("name", ["resnet20", "plain20"])
@pytest.mark.parametrize("cut", [0, 4, *CHANGING, 8])
def test_a_deleted_block_leaves_its_shortcut_or_that_of_its_twin(name: str, cut: int) -> None:
    made = network(name)
    with torch.inference_mode():
        got = chain.logits(made, chain.deleted(cut)(chain.blocks(made)), PIXELS)
        torch.testing.assert_close(got, by_hand(made, cut))
        assert not torch.allclose(got, made(PIXELS), atol=1e-3)


def test_a_deleted_projection_stays_as_it_was_learned() -> None:
    made = network("resnet18")
    block: Any = chain.blocks(made)[2]
    x = torch.rand(2, 16, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(chain.Bypass(block)(x), F.relu(block.downsample(x)))


def test_swapped_blocks_come_in_the_order_that_was_asked_for() -> None:
    made, order = network("plain20"), []
    found = chain.blocks(made)
    for place, block in enumerate(found):
        block.register_forward_hook(lambda *_, place=place: order.append(place))
    chain.logits(made, chain.swapped((1, 2), (4, 5))(found), PIXELS)
    assert order == [0, 2, 1, 3, 5, 4, 6, 7, 8]
    order.clear()
    chain.logits(made, chain.swapped((0, 1), (1, 2))(found), PIXELS)  # one after the other
    assert order == [1, 2, 0, 3, 4, 5, 6, 7, 8]


def test_shapes_say_which_blocks_may_be_left_out() -> None:
    assert [chain.keeps_shape(b) for b in chain.blocks(network("plain20"))] == [i not in CHANGING for i in range(9)]
    bottlenecks = chain.blocks(network("resnet50"))
    assert chain.shape(bottlenecks[0]) == (16, 64, 1)
    assert chain.shape(bottlenecks[3]) == (64, 128, 2)
    assert chain.shape(chain.blocks(network("resnet18", downsampling="pool"))[2]) == (16, 32, 2)


@pytest.mark.parametrize("name", ["resnet20", "plain20"])
def test_wrong_answers_are_those_of_networks_with_replaced_modules(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "AT_A_TIME", 15)  # the last few are fewer
    made = network(name)
    edits = [lambda links: links, chain.deleted(1), chain.deleted(1, 7), chain.swapped((7, 8))]
    expected = []
    for cut, swap in [((), False), (("layer1.1",), False), (("layer1.1", "layer3.1"), False), ((), True)]:
        changed = copy.deepcopy(made)
        for place in cut:
            changed.network.set_submodule(place, nn.Identity())
        if swap:
            stage: Any = changed.network.layer3
            stage[1], stage[2] = stage[2], stage[1]
        with torch.inference_mode():
            expected.append(int((changed(PIXELS).argmax(dim=1) != LABELS).sum()))
    assert chain.wrong(made, edits, PIXELS, LABELS) == expected
    assert len(set(expected)) > 1


def test_new_statistics_are_those_that_pytorch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "AT_A_TIME", 20)
    made = network("resnet20")
    oracle = copy.deepcopy(made)
    oracle.network.set_submodule("layer2.1", nn.Identity())
    torch.optim.swa_utils.update_bn(list(PIXELS.split(20)), oracle)
    again = chain.with_new_statistics(made, chain.deleted(4), PIXELS)
    assert not again.training
    kept = oracle.state_dict()
    for key, value in again.state_dict().items():
        if "layer2.1." not in key:
            torch.testing.assert_close(value, kept[key], msg=key)
    expected = int((oracle.eval()(PIXELS).argmax(dim=1) != LABELS).sum())
    assert chain.wrong(again, [chain.deleted(4)], PIXELS, LABELS) == [expected]


def test_nothing_that_is_done_to_a_chain_changes_the_network() -> None:
    made = network("resnet20")
    before = {key: value.clone() for key, value in made.state_dict().items()}
    edits = [chain.deleted(3), chain.swapped((1, 2)), chain.dialled(0.5)]
    chain.wrong(made, edits, PIXELS, LABELS)
    for edit in edits:
        chain.with_new_statistics(made, edit, PIXELS)
    assert not made.training
    for key, value in made.state_dict().items():
        assert torch.equal(value, before[key]), key
