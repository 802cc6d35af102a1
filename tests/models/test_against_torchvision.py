"""The same weights in torchvision's networks and in ours give the same logits, bit for bit."""

from __future__ import annotations

import pytest
import torch
import torchvision

from plusx.models import create_model

NAMES = ["resnet18", "resnet34", "resnet50", "alexnet", "vgg11", "vgg11-bn", "vgg16"]


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_state_dicts_fit_and_logits_are_equal(name: str) -> None:
    oracle = torchvision.models.get_model(name.replace("-", "_"), num_classes=7).eval()
    ours = create_model(name, 7).eval()
    ours.load_state_dict(oracle.state_dict(), strict=True)
    images = torch.randn(2, 3, 75, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours(images), oracle(images))


@pytest.mark.parametrize("name", ["resnet101", "resnet152", "vgg13", "vgg19", "vgg13-bn", "vgg16-bn", "vgg19-bn"])
def test_the_other_state_dicts_have_the_same_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        oracle = torchvision.models.get_model(name.replace("-", "_"), num_classes=7)
        ours = create_model(name, 7)
    assert {n: t.shape for n, t in ours.state_dict().items()} == {n: t.shape for n, t in oracle.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [("resnet18-3x3", 2, 11_169_858), ("resnet18", 1000, 11_689_512), ("resnet50", 1000, 25_557_032)],
)
def test_parameter_counts_are_the_published_ones(name: str, classes: int, expected: int) -> None:
    assert parameters(create_model(name, classes)) == expected


@pytest.mark.parametrize(
    ("name", "millions"), [("resnet20", 0.27), ("resnet32", 0.46), ("resnet56", 0.85), ("resnet110", 1.7)]
)
def test_the_cifar_family_has_the_sizes_of_the_paper(name: str, millions: float) -> None:
    assert round(parameters(create_model(name, 10)) / 1e6, 2 if millions < 1 else 1) == millions
