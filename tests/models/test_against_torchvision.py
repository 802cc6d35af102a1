"""The same weights in torchvision's networks and in ours give the same logits, bit for bit."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
import torchvision

from plusx.models import create_model, list_models
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


def pooled(pool: torch.nn.Module, images: torch.Tensor, told: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What `pool` makes of `images`, and the gradient that `told` at its output gives them."""
    x = images.clone().requires_grad_()
    y = pool(x)
    y.backward(told)
    return y.detach(), x.grad


@pytest.mark.parametrize("grid", [6, 7])
def test_pooling_to_a_grid_is_pytorchs_adaptive_pooling_and_its_gradient(grid: int) -> None:
    generator = torch.Generator().manual_seed(0)
    told = torch.randn(2, 3, grid, grid, generator=generator, dtype=torch.float64)
    ours, oracle = GridPool(grid), torch.nn.AdaptiveAvgPool2d(grid)
    for height, width in itertools.product(range(1, 23), repeat=2):
        images = torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)
        for dtype, near in ((torch.float64, 1e-14), (torch.float32, 4e-6)):
            found, expected = (pooled(pool, images.to(dtype), told.to(dtype)) for pool in (ours, oracle))
            torch.testing.assert_close(
                found, expected, rtol=0, atol=near, msg=lambda m, at=(height, width): f"{at}: {m}"
            )


def test_pooling_to_a_grid_returns_a_map_of_that_size_itself() -> None:
    x = torch.randn(2, 3, 6, 6)
    assert GridPool(6)(x) is x


def test_what_pooling_met_in_inference_mode_does_not_hinder_training() -> None:
    pool = GridPool(7)
    with torch.inference_mode():
        pool(torch.randn(2, 3, 9, 13))
    _, gradient = pooled(pool, torch.randn(2, 3, 9, 13), torch.ones(2, 3, 7, 7))
    assert gradient is not None
    assert gradient.sum().item() == pytest.approx(2 * 3 * 7 * 7)


def test_pooling_to_a_grid_keeps_bf16_under_autocast() -> None:
    images = torch.randn(2, 3, 9, 13, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = GridPool(6)(images)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), F.adaptive_avg_pool2d(images.float(), 6), rtol=0.02, atol=0.01)


@pytest.mark.parametrize("strict", [False, True])
def test_pooling_to_a_grid_can_be_exported_for_any_batch(strict: bool) -> None:
    network = torch.nn.Sequential(GridPool(6)).eval()
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    exported = torch.export.export(network, (torch.randn(2, 3, 9, 13),), dynamic_shapes=shapes, strict=strict)
    images = torch.randn(5, 3, 9, 13)
    assert torch.equal(exported.module()(images), network(images))


@pytest.mark.parametrize("name", list_models())
def test_no_network_pools_by_what_is_not_deterministic_on_cuda(name: str) -> None:
    with torch.device("meta"):
        network = create_model(name, 2)
    grids = [m.output_size for m in network.modules() if isinstance(m, torch.nn.AdaptiveAvgPool2d)]
    assert set(grids) <= {1}  # one bin is a plain mean; its backward pass is deterministic


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
