"""The network that answers is the network that was trained, up to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from plusx.engines.folded import FusedConv, SlicedMaxPool, folded, fused, fuses
from plusx.models import create_model

CPU = torch.device("cpu")
NETWORKS: dict[str, dict[str, Any]] = {
    "projections": {"name": "resnet18", "width": 0.125},
    "bottlenecks": {"name": "resnet50", "width": 0.125},
    "the fast recipe's": {"name": "resnet16", "width": 0.25, "stem": "whitened", "downsampling": "pool"},
    "padded shortcuts": {"name": "resnet20"},
    "no shortcuts": {"name": "plain20"},
    "no norms": {"name": "resnet20", "norm": "none"},
    "no norms, pooled": {"name": "resnet10", "width": 0.25, "downsampling": "pool", "norm": "none"},
    "vgg with norms": {"name": "vgg11-bn", "width": 0.0625},
    "alexnet": {"name": "alexnet", "width": 0.125},
}
LOGITS = 2e-5  # of the largest logit: float32 rounds each of some twenty layers by about 1e-7
PROBABILITIES = 0.02  # bf16 keeps eight bits

needs_fusing = pytest.mark.skipif(not fuses(CPU), reason="PyTorch fuses no convolutions on this processor")


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> nn.Module:
    """A network whose norms have seen something, and whose biases are not the zeros of the beginning."""
    made = create_model(classes=3, **NETWORKS[request.param])
    for norm in norms(made):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_(std=0.2)
        norm.running_var.uniform_(0.5, 2.0)
    for module in made.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.2)
    return made.to(memory_format=torch.channels_last).eval()


@pytest.fixture
def images() -> Tensor:
    """Normalised images, as many as no layer has channels."""
    return torch.randn(5, 3, 64, 64).contiguous(memory_format=torch.channels_last)


def norms(network: nn.Module) -> Iterator[nn.BatchNorm2d]:
    return (module for module in network.modules() if isinstance(module, nn.BatchNorm2d))


def distance(made: nn.Module, network: nn.Module, images: Tensor) -> float:
    """The largest difference of their logits, as a share of the largest logit."""
    with torch.inference_mode():
        expected = network(images)
        return float((made(images) - expected).abs().max() / expected.abs().max())


def test_a_folded_network_answers_as_the_trained_one_and_has_no_norms(network: nn.Module, images: Tensor) -> None:
    made = folded(network)
    assert not list(norms(made))
    assert distance(made, network, images) < LOGITS


def test_folding_leaves_the_trained_network_as_it_is(network: nn.Module, images: Tensor) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    names = [name for name, _ in network.named_modules()]
    fused(folded(network), torch.float32)
    assert names == [name for name, _ in network.named_modules()]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_norm_that_turns_values_round_stays_behind_its_pool(images: Tensor) -> None:
    network = create_model("resnet10", 3, width=0.125, downsampling="pool").eval()
    first = network.get_submodule("layer2.0.bn1")
    assert isinstance(first, nn.BatchNorm2d)
    with torch.no_grad():
        first.weight[0] = -1.0
    made = folded(network)
    assert len(list(norms(made))) == 1
    assert distance(made, network, images) < LOGITS
    if fuses(CPU):
        assert distance(fused(made, torch.float32), network, images) < LOGITS


@needs_fusing
def test_a_fused_network_answers_as_the_trained_one(network: nn.Module, images: Tensor) -> None:
    made = fused(folded(network), torch.float32)
    left = {type(module) for module in made.modules()} & {nn.Conv2d, nn.BatchNorm2d}
    assert not left
    assert distance(made, network, images) < LOGITS
    assert distance(made, network, images[:1]) < LOGITS


@needs_fusing
def test_in_bf16_probabilities_move_little_and_the_head_is_float32(network: nn.Module, images: Tensor) -> None:
    made = fused(folded(network), torch.bfloat16)
    with torch.inference_mode():
        answers, expected = (model(images) for model in (made, network))
    assert answers.dtype == torch.float32
    assert torch.equal(answers, made(images))
    assert (answers.softmax(1) - expected.softmax(1)).abs().max() < PROBABILITIES


@needs_fusing
def test_every_relu_behind_a_convolution_and_every_sum_is_fused() -> None:
    made = fused(folded(create_model("resnet18", 2, width=0.125).eval()), torch.float32)
    assert [type(module) for module in made.modules()].count(FusedConv) == 20
    assert not [module for module in made.modules() if isinstance(module, nn.ReLU)]
    assert not [node for node in made.graph.nodes if "add" in str(node.target)]


@pytest.mark.parametrize("kind", [(2, 2, 0), (3, 2, 1), (3, 2, 0), (3, 3, 0)])
@pytest.mark.parametrize("sides", [(8, 8), (12, 6), (7, 8), (8, 7), (5, 5)])
def test_a_pool_of_slices_is_the_pool(kind: tuple[int, int, int], sides: tuple[int, int]) -> None:
    pool = nn.MaxPool2d(*kind)
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(2, 3, *sides).to(dtype, memory_format=torch.channels_last)
        assert torch.equal(SlicedMaxPool(pool)(x), pool(x))
