"""Somebody's tensors under our names: the features are theirs, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from plusx.models import create_model
from plusx.models.transfer import made_for, match, of_timm, shapes
from plusx.training.layers import head


def transferred(name: str, theirs: dict[str, torch.Tensor]) -> tuple[nn.Module, Any]:
    """Our network of three classes with their tensors in it, and the match."""
    ours = create_model(name, 3)
    found = match(ours, {n: tuple(v.shape) for n, v in theirs.items()}, head(ours))
    state = ours.state_dict()
    taken = {n: theirs[o].reshape(state[n].shape) for n, o in found.pairs.items()}
    ours.load_state_dict(state | taken, strict=True)
    return ours.eval(), found


def lively(model: nn.Module) -> nn.Module:
    """Norms that do something."""
    generator = torch.Generator().manual_seed(0)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        for value in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            value.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("wrapped", ["", "module.", "model.", "backbone.", "module.model."])
def test_the_features_of_torchvisions_network_are_ours(wrapped: str) -> None:
    oracle = lively(torchvision.models.resnet18(num_classes=5))
    theirs = {wrapped + name: value for name, value in oracle.state_dict().items()}
    ours, found = transferred("resnet18", theirs)
    assert (len(found.pairs), found.new) == (120, ("fc.weight", "fc.bias"))
    assert found.unused == (f"{wrapped}fc.bias", f"{wrapped}fc.weight")
    assert (found.body, found.misfits) == (1.0, {})
    oracle.fc = nn.Identity()
    with torch.inference_mode():
        assert torch.equal(ours.pooled(IMAGES), oracle(IMAGES))
        fresh = create_model("resnet18", 3).eval()
        assert not torch.allclose(fresh.pooled(IMAGES), oracle(IMAGES), atol=0.1)


@pytest.mark.parametrize(("name", "size"), [("resnet34", 64), ("resnet50", 64), ("vgg11-bn", 224)])
def test_the_features_of_timms_network_are_ours(name: str, size: int) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    oracle = lively(timm.create_model(name.replace("-", "_"), num_classes=5, pretrained=False))
    ours, found = transferred(name, oracle.state_dict())
    assert found.body == 1.0
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = oracle.forward_head(oracle.forward_features(images), pre_logits=True)
        if name.startswith("resnet"):
            assert torch.equal(ours.pooled(images), expected)
        else:
            ours.classifier[6] = nn.Identity()
            torch.testing.assert_close(ours(images), expected)


def test_the_average_beside_the_weights_is_not_taken_for_them() -> None:
    theirs = {name: tuple(value.shape) for name, value in create_model("resnet20", 2).state_dict().items()}
    twice = {f"backbone.model.{n}": s for n, s in theirs.items()} | {f"model.{n}": s for n, s in theirs.items()}
    ours = create_model("resnet20", 2)
    found = match(ours, twice, head(ours))
    assert set(found.pairs.values()) == {f"model.{name}" for name in found.pairs}


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "resnet20", "resnet18-3x3", "plain18", "vgg16-bn"]
)
def test_the_network_that_tensors_were_made_for_is_recognised(name: str) -> None:
    with torch.device("meta"):
        theirs = shapes(create_model(name, 1000))
    assert made_for({f"module.{n}": shape for n, shape in theirs.items()}) == name


def test_tensors_of_something_else_belong_to_no_network() -> None:
    assert made_for({"embedding.weight": (1000, 64), "layer1.0.conv1.weight": (3, 3)}) is None
    ours = create_model("resnet20", 2)
    assert match(ours, {"embedding.weight": (1000, 64)}, head(ours)).body == 0.0


def test_timms_networks_are_ours_where_they_are_the_same() -> None:
    assert (of_timm("resnet50"), of_timm("resnet26d")) == ("resnet50", "timm/resnet26d")
