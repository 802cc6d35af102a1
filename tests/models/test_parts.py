"""Shortcuts, stems and first weights."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from plusx.models import create_model
from plusx.models.blocks import BasicBlock, Bottleneck, ZeroPadShortcut
from plusx.models.initialise import needs_whitening, whiten_


def test_a_block_with_a_zeroed_branch_is_the_identity_for_positive_inputs() -> None:
    for block in (BasicBlock(8, 8), Bottleneck(8, 2)):
        torch.nn.init.zeros_(block.last_norm.weight)
        x = torch.rand(2, 8, 5, 5)
        assert torch.equal(block(x), x)


def test_a_plain_block_is_the_residual_one_without_the_addition() -> None:
    residual, plain = BasicBlock(4, 4), BasicBlock(4, 4, shortcut="none")
    plain.load_state_dict(residual.state_dict())
    x = torch.randn(2, 4, 6, 6)
    residual.eval()
    plain.eval()
    assert torch.equal(plain(x), torch.relu(residual.residual(x)))
    assert torch.equal(residual(x), torch.relu(residual.residual(x) + x))


def test_the_zero_padded_shortcut_keeps_every_second_pixel_and_adds_empty_channels() -> None:
    x = torch.arange(2 * 4 * 4.0).reshape(1, 2, 4, 4)
    out = ZeroPadShortcut(2, 6, 2)(x)
    assert torch.equal(out[:, 2:4], x[:, :, ::2, ::2])
    assert out[:, :2].abs().sum() == 0
    assert out[:, 4:].abs().sum() == 0


def test_a_block_that_pools_skips_no_pixel() -> None:
    for kind in (BasicBlock, Bottleneck):
        torch.manual_seed(0)
        block = kind(8, 4, 2, downsampling="pool").eval()
        x = torch.randn(2, 8, 6, 6)
        skipping = kind(8, 4, 2).eval()
        convolution = "conv1" if kind is BasicBlock else "conv2"
        assert skipping.get_submodule(convolution).stride == (2, 2)
        assert block.get_submodule(convolution).stride == (1, 1)
        norm = block.get_submodule(convolution.replace("conv", "bn"))
        seen: list[torch.Tensor] = []
        norm.register_forward_hook(lambda _module, inputs, _output, seen=seen: seen.append(inputs[0]))
        made: list[torch.Tensor] = []
        block.get_submodule(convolution).register_forward_hook(lambda _m, _i, output, made=made: made.append(output))
        out = block(x)
        assert torch.equal(seen[0], made[0].unflatten(2, (3, 2)).unflatten(4, (3, 2)).amax((3, 5)))
        identity = x.unflatten(2, (3, 2)).unflatten(4, (3, 2)).mean((3, 5))
        weight = block.get_parameter("downsample.1.0.weight")[:, :, 0, 0]
        shortcut = torch.einsum("oi,bihw->bohw", weight, identity) / (1 + 1e-5) ** 0.5  # a norm that has seen nothing
        torch.testing.assert_close(out, torch.relu(block.residual(x) + shortcut))


@pytest.mark.parametrize("size", range(1, 8))
def test_a_block_that_pools_makes_maps_of_the_size_that_a_stride_makes(size: int) -> None:
    x = torch.randn(2, 8, size, size)
    for kind in (BasicBlock, Bottleneck):
        pooling, striding = (kind(8, 4, 2, downsampling=d).eval() for d in ("pool", "stride"))
        assert pooling(x).shape == striding(x).shape


def test_at_an_odd_edge_a_block_pools_over_what_is_there() -> None:
    block = BasicBlock(8, 4, 2, downsampling="pool")
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(block.pool(x)[:, :, 2, 2], x[:, :, 4, 4])
    assert torch.equal(block.pool(x)[:, :, 2, 0], x[:, :, 4, :2].amax(2))
    mean = block.get_submodule("downsample.0")
    assert torch.equal(mean(x)[:, :, 2, 2], x[:, :, 4, 4])
    torch.testing.assert_close(mean(x)[:, :, 0, 2], x[:, :, :2, 4].mean(2))


def test_pooling_changes_neither_parameters_nor_blocks_that_keep_their_size() -> None:
    striding, pooling = (create_model("resnet10", 2, width=0.25, downsampling=d) for d in ("stride", "pool"))
    assert [p.shape for p in striding.parameters()] == [p.shape for p in pooling.parameters()]
    pools = [name for name, m in pooling.named_modules() if isinstance(m, torch.nn.MaxPool2d)]
    assert pools == ["maxpool", "layer2.0.pool", "layer3.0.pool", "layer4.0.pool"]


def test_plain_and_residual_twins_have_equal_parameters() -> None:
    for plain, residual in (("plain8", "resnet8"), ("plain20", "resnet20"), ("plain56", "resnet56")):
        shapes = [{n: p.shape for n, p in create_model(m, 10).named_parameters()} for m in (plain, residual)]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet8", {}),
        ("plain8", {}),
        ("resnet18", {"stem": "whitened"}),
        ("resnet50", {"downsampling": "pool"}),
        ("resnet18-3x3", {}),
    ],
)
def test_without_norms_every_convolution_but_the_whitening_one_has_a_bias(name: str, options: dict[str, Any]) -> None:
    normed, bare = (create_model(name, 3, width=0.25, norm=norm, **options) for norm in ("batch", "none"))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in bare.modules())
    convolutions = {n: m for n, m in bare.named_modules() if isinstance(m, torch.nn.Conv2d) and n != "patches"}
    assert all(module.bias is not None for module in convolutions.values())
    if not name.endswith("-3x3"):  # those have PyTorch's own first weights
        assert all(module.bias.abs().sum() == 0 for module in convolutions.values() if module.bias is not None)
    added = {f"{name}.bias" for name in convolutions}
    weights = {n: p.shape for n, p in normed.named_parameters() if p.ndim != 1 or n == "fc.bias"}
    assert {n: p.shape for n, p in bare.named_parameters() if n not in added} == weights


def test_a_block_without_norms_is_two_convolutions_a_relu_between_and_the_input() -> None:
    torch.manual_seed(0)
    block = BasicBlock(4, 4, norm="none")
    x = torch.randn(2, 4, 6, 6)
    middle = torch.relu(torch.nn.functional.conv2d(x, block.conv1.weight, block.conv1.bias, padding=1))
    branch = torch.nn.functional.conv2d(middle, block.conv2.weight, block.conv2.bias, padding=1)
    assert torch.equal(block(x), torch.relu(branch + x))


def test_zero_init_residual_zeroes_the_last_norm_of_every_block() -> None:
    model = create_model("resnet18", 2, width=0.25, zero_init_residual=True)
    blocks = [m for m in model.modules() if isinstance(m, BasicBlock)]
    assert len(blocks) == 8
    assert all(b.bn2.weight.abs().sum() == 0 and b.bn1.weight.abs().sum() > 0 for b in blocks)


def test_the_textbook_network_has_pytorchs_own_first_weights() -> None:
    torch.manual_seed(3)
    model = create_model("resnet18-3x3", 2)
    torch.manual_seed(3)
    assert torch.equal(model.get_parameter("conv1.weight"), torch.nn.Conv2d(3, 64, 3, bias=False).weight)


def test_no_convolution_of_a_resnet_has_a_bias() -> None:
    for name in ("resnet18-3x3", "resnet50", "plain20"):
        model = create_model(name, 2, width=0.25)
        assert all(m.bias is None for m in model.modules() if isinstance(m, torch.nn.Conv2d))


def test_whitened_patches_are_uncorrelated_with_unit_variance_and_come_with_both_signs() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.avg_pool2d(torch.randn(200, 3, 34, 34, generator=generator), 3, stride=1)
    images += torch.tensor([0.5, -1.0, 2.0]).view(3, 1, 1)  # a mean that has no part in a covariance
    model = create_model("resnet18", 2, width=0.25, stem="whitened")
    assert needs_whitening(model)
    whiten_(model, images)
    weight = model.get_parameter("patches.weight")
    assert torch.equal(weight[:24], -weight[24:])
    patches = torch.nn.functional.unfold(images, 4, stride=2).transpose(1, 2).flatten(0, 1)
    projected = (patches - patches.mean(dim=0)) @ weight[:24].flatten(1).T
    covariance = projected.T @ projected / len(projected)
    off_diagonal = covariance - torch.diag(covariance.diag())
    assert off_diagonal.abs().max() < 1e-3
    assert covariance.diag()[0] > 0.95
    assert not weight.requires_grad


def test_whitening_depends_on_the_photos_only() -> None:
    images = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = create_model("resnet18", 2, width=0.25, stem="whitened")
        whiten_(model, images)
        weights.append(model.get_parameter("patches.weight").clone())
    assert torch.equal(weights[0], weights[1])


def test_whitening_computes_on_the_cpu_since_apples_gpus_have_no_doubles() -> None:
    images = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    class OnAnAppleGpu:
        """Photos that can do no more than come to the CPU."""

        def cpu(self) -> torch.Tensor:
            return images

    weights = []
    for given in (images, cast(torch.Tensor, OnAnAppleGpu())):
        model = create_model("resnet18", 2, width=0.25, stem="whitened")
        whiten_(model, given)
        weights.append(model.get_parameter("patches.weight").clone())
    assert torch.equal(weights[0], weights[1])


def shapes_of(name: str, **options: Any) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {key: value.shape for key, value in create_model(name, 3, **options).state_dict().items()}


@pytest.mark.parametrize(("plain", "residual"), [("plain34", "resnet34"), ("plain50", "resnet50")])
def test_a_shortcut_given_replaces_what_the_name_says(plain: str, residual: str) -> None:
    assert shapes_of(plain, shortcut="projection") == shapes_of(residual)
    assert shapes_of(residual, shortcut="none") == shapes_of(plain)
    assert shapes_of(residual, shortcut="default") == shapes_of(residual)
    padded = create_model(residual, 3, width=0.25, shortcut="identity")
    assert any(isinstance(module, ZeroPadShortcut) for module in padded.modules())
    assert not any("downsample" in key for key in padded.state_dict())


def test_a_cifar_network_can_have_projections() -> None:
    added = shapes_of("resnet20", shortcut="projection").keys() - shapes_of("resnet20").keys()
    assert {key.rsplit(".", 2)[0] for key in added} == {"layer2.0.downsample", "layer3.0.downsample"}
