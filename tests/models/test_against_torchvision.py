"""The same weights in torchvision's networks and in ours give the same logits, bit for bit."""

from __future__ import annotations

import pytest
import torch
import torchvision

from plusx.models import create_model
from plusx.models.classic import GridPool

RESNETS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
CLASSIC = ["alexnet", *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "-bn"))]


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def with_the_same_weights(name: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Ours and torchvision's, sharing one state dict of drawn numbers."""
    with torch.device("meta"):
        ours = create_model(name, 7)
        oracle = torchvision.models.get_model(name.replace("-", "_"), num_classes=7)
    generator = torch.Generator().manual_seed(0)
    state = {key: drawn(key, value, generator) for key, value in oracle.state_dict().items()}
    for model in (ours, oracle):
        model.load_state_dict(state, strict=True, assign=True)
    return ours.eval(), oracle.eval()


def drawn(key: str, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if not like.is_floating_point():
        return torch.zeros(like.shape, dtype=like.dtype)
    if key.endswith("running_var") or like.ndim == 1:
        return torch.empty(like.shape).uniform_(0.5, 1.5, generator=generator)
    bound = (6 / like[0].numel()) ** 0.5
    return torch.empty(like.shape).uniform_(-bound, bound, generator=generator)


@pytest.mark.parametrize(("name", "height", "width"), [(n, 75, 96) for n in RESNETS] + [(n, 224, 224) for n in CLASSIC])
def test_state_dicts_fit_and_logits_are_equal(name: str, height: int, width: int) -> None:
    ours, oracle = with_the_same_weights(name)
    images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = oracle(images)
        assert torch.equal(ours(images), expected)
    assert torch.isfinite(expected).all()
    assert expected.std() > 0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (6, 6), (7, 7), (9, 13), (20, 6)])
@pytest.mark.parametrize("grid", [6, 7])
def test_pooling_to_a_grid_is_pytorchs_adaptive_pooling_and_its_gradient(grid: int, height: int, width: int) -> None:
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    told = torch.randn(2, 3, grid, grid, generator=torch.Generator().manual_seed(1))
    found = []
    for pool in (GridPool(grid), torch.nn.AdaptiveAvgPool2d(grid)):
        with torch.inference_mode():
            pool(images)  # nothing of this may be kept for what follows
        x = images.clone().requires_grad_()
        y = pool(x)
        y.backward(told)
        found.append((y, x.grad))
    torch.testing.assert_close(found[0], found[1])


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
