"""What the engine sees on its way: the same as hooks on the trained network, rewritten or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from plusx.engines.torch_engine import TorchEngine
from plusx.images.preprocess import Preprocess
from plusx.model_file import Header, ModelFile
from plusx.models import create_model
from plusx.models.described import Described, descriptor_size
from plusx.models.normalise import Normalised

SIZE = 64
CPU = torch.device("cpu")
NETWORKS = [
    {"name": "resnet10", "width": 0.25, "stem": "whitened", "downsampling": "pool"},
    {"name": "resnet50", "width": 0.25},
    {"name": "resnet20"},
    {"name": "plain10", "width": 0.25},
    {"name": "alexnet", "width": 0.1},
    {"name": "vgg11-bn", "width": 0.1},
]


def trained(network: dict[str, Any], views: tuple[str, ...] = ("flip", "identity")) -> tuple[ModelFile, Any]:
    """A model file, and the network in it, with norms that have seen something."""
    torch.manual_seed(0)
    net = Normalised(create_model(classes=3, **network), (0.5,) * 3, (0.25,) * 3)
    for _ in range(3):
        net.train()(torch.randint(0, 256, (8, 3, SIZE, SIZE)))
    tensors = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    preprocess = Preprocess(SIZE, SIZE, mean=(0.5,) * 3, std=(0.25,) * 3)
    return ModelFile(Header(("a", "b", "c"), preprocess, network, views=views), tensors), net.eval()


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: str(network["name"]))
def test_descriptor_and_activity_are_those_of_the_last_stages_by_the_first_view(network: dict[str, Any]) -> None:
    model, net = trained(network)
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    engine = TorchEngine(model, CPU)
    assert engine.descriptor_size == descriptor_size(net.network)
    descriptors, activity = engine.described(pixels)
    stages: list[torch.Tensor] = []
    names = net.network.stages if hasattr(net.network, "stages") else ["features"]
    for name in names:
        net.network.get_submodule(name).register_forward_hook(lambda _m, _i, out: stages.append(out))
    with torch.inference_mode():
        net(torch.from_numpy(pixels).permute(0, 3, 1, 2).flip(3))  # the first view
    pooled = [p for m in stages[-2:] for p in (m.mean((2, 3)), m.amax((2, 3)))]
    np.testing.assert_allclose(descriptors, torch.cat(pooled, 1).clamp_min(0).log1p(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(activity, stages[-1].square().mean(1), rtol=1e-3, atol=1e-4)
    assert descriptors.shape == (5, engine.descriptor_size)
    answers = engine.answers(pixels)
    assert answers.descriptors is not None
    np.testing.assert_allclose(answers.descriptors, descriptors, rtol=1e-5, atol=1e-6)


def test_a_described_network_gives_the_logits_of_the_network() -> None:
    network = create_model("resnet20", classes=4).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(Described(network)(x)[0], network(x))


def test_a_network_that_is_not_ours_is_answered_for_and_not_described() -> None:
    timm = pytest.importorskip("timm")
    name = "resnet10t"
    assert name in timm.list_models()
    net = Normalised(create_model(f"timm/{name}", classes=3), (0.5,) * 3, (0.25,) * 3).eval()
    assert descriptor_size(net.network) is None
    tensors = {key: value.numpy() for key, value in net.state_dict().items()}
    model = ModelFile(Header(("a", "b", "c"), Preprocess(SIZE, SIZE), {"name": f"timm/{name}"}), tensors)
    answers = TorchEngine(model, CPU).answers(np.zeros((2, SIZE, SIZE, 3), np.uint8))
    assert answers.descriptors is None
    assert answers.probabilities.shape == (2, 3)
