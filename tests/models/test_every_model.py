"""One battery over every name: shape, gradients, odd sizes, a golden output, and a tiny batch learned by heart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from plusx import keyed
from plusx.errors import UsageError
from plusx.models import create_model, list_models, minimum_size
from plusx.models.normalise import Normalised

GOLDENS = Path(__file__).parent / "goldens.json"
ACCEPT = "PLUSX_ACCEPT=1 .venv/bin/python -m pytest tests/models/test_every_model.py -k golden -n 0"
WIDTH = 0.25
NAMES = [*list_models(), "whitened"]


def small(name: str) -> torch.nn.Module:
    """Network `name` at a quarter of its width, three classes."""
    torch.manual_seed(0)
    if name == "whitened":
        return create_model("resnet18", 3, width=WIDTH, stem="whitened")
    return create_model(name, 3, width=WIDTH)


def smallest(name: str) -> int:
    return 32 if name == "whitened" else minimum_size(name)


def fill(model: torch.nn.Module) -> None:
    """Weights that depend on names and shapes only, not on PyTorch's generators."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            numbers = keyed.uniform(0, 0, np.arange(value.numel()), name)[:, 0].reshape(value.shape)
            scale = 2.0 / max(1, value[0].numel()) ** 0.5 if value.ndim > 1 else 0.2
            offset = 1.0 if name.endswith(("running_var", "weight")) and value.ndim == 1 else 0.0
            value.copy_(torch.from_numpy(offset + scale * (numbers - 0.5)))


@pytest.mark.parametrize("name", NAMES)
def test_every_trainable_parameter_gets_a_finite_gradient(name: str) -> None:
    model = small(name).train()
    size = smallest(name)
    logits = model(torch.randn(4, 3, size, size))
    assert logits.shape == (4, 3)
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name", NAMES)
def test_odd_sizes_are_taken(name: str) -> None:
    size = smallest(name)
    with torch.inference_mode():
        logits = small(name).eval()(torch.randn(1, 3, size + 1, size + 18))
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_golden_output_has_not_moved(name: str) -> None:
    import os

    model = small(name).eval()
    fill(model)
    size = smallest(name)
    images = torch.from_numpy(keyed.uniform(1, 0, np.arange(2 * 3 * size * size), "images")).float()
    with torch.inference_mode():
        logits = model(images.reshape(2, 3, size, size) - 0.5)
    goldens = json.loads(GOLDENS.read_text()) if GOLDENS.exists() else {}
    if os.environ.get("PLUSX_ACCEPT"):
        goldens[name] = [[float(f"{x:.6g}") for x in row] for row in logits.tolist()]
        GOLDENS.write_text(json.dumps(goldens, indent=1) + "\n")
    golden = torch.tensor(goldens[name])
    difference = ((logits - golden).norm() / golden.norm()).item()
    assert difference < 1e-3, f"{name} gives other numbers (by {difference:.2g}); if that is meant: {ACCEPT}"


def learns(name: str, steps: int) -> tuple[float, float]:
    """First and least loss of a tiny batch; dropout is off, since what it drops cannot be learned by heart."""
    model = small(name).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    size = smallest(name)
    images, labels = torch.randn(6, 3, size, size), torch.tensor([0, 1, 2, 0, 1, 2])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], min(losses)


SHALLOW = [n for n in NAMES if n.startswith(("alexnet", "vgg")) or n.endswith(("18", "20", "18-3x3", "whitened"))]


@pytest.mark.parametrize("name", SHALLOW)
def test_a_tiny_batch_is_learned_by_heart(name: str) -> None:
    first, least = learns(name, 60)
    assert least < 0.3 * first


@pytest.mark.parametrize("name", ["plain34", "plain44", "plain56", "plain110"])
def test_the_loss_of_deep_plain_networks_is_finite_and_falls(name: str) -> None:
    first, least = learns(name, 8)
    assert np.isfinite(least)
    assert least < first


def test_an_unknown_name_is_one_sentence_with_the_nearest_known_one() -> None:
    with pytest.raises(UsageError) as caught:
        create_model("resnet81", 2)
    assert caught.value.message == "There is no model 'resnet81'; `plusx models` lists them. Did you mean resnet18?"


def test_an_option_the_network_does_not_have_is_refused() -> None:
    for option in ({"stem": "3x3"}, {"shortcut": "none"}, {"zero_init_residual": True}):
        with pytest.raises(UsageError) as caught:
            create_model("alexnet", 2, **option)
        assert caught.value.message == f"alexnet has no {next(iter(option))} to set; leave it out."


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"stem": "typo"}, "There is no stem 'typo'; choose 7x7, 3x3, whitened or default."),
        ({"shortcut": "identiy"}, "There is no shortcut 'identiy'; choose projection, identity, none or default."),
        ({"classes": 0}, "A network needs at least one class and --classes is 0."),
        (
            {"shortcut": "none", "zero_init_residual": True},
            "zero_init_residual needs shortcuts: without them a block with a zeroed branch is dead; leave it out.",
        ),
    ],
)
def test_an_option_that_cannot_be_is_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        create_model("resnet18", **({"classes": 2} | options))
    assert caught.value.message.startswith(sentence)


@pytest.mark.parametrize("name", [n for n in list_models() if n.startswith("resnet")])
def test_every_resnet_has_its_plain_twin(name: str) -> None:
    with torch.device("meta"):
        twin = create_model(name.replace("resnet", "plain"), 3)
        same = create_model(name, 3, shortcut="none")
    assert [(n, p.shape) for n, p in twin.named_parameters()] == [(n, p.shape) for n, p in same.named_parameters()]
    assert not any("downsample" in n for n, _ in twin.named_parameters())


def test_timm_networks_are_taken_by_name() -> None:
    timm = pytest.importorskip("timm", reason="the extra [timm] is not installed")
    model = create_model("timm/resnet10t", 3)
    assert isinstance(model, torch.nn.Module)
    with pytest.raises(UsageError, match="There is no model 'timm/resnet10'"):
        create_model("timm/resnet10", 3)
    assert timm.__version__


def test_normalisation_is_torchvisions_to_the_bit() -> None:
    from torchvision.transforms import functional as oracle

    grey = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    theirs = oracle.normalize(oracle.to_tensor(grey), list(mean), list(std))[None]
    pixels = torch.from_numpy(grey).permute(2, 0, 1)[None]
    assert torch.equal(Normalised(torch.nn.Identity(), mean, std)(pixels), theirs)
    assert torch.equal(Normalised(torch.nn.Identity(), mean, std)(pixels.float()), theirs)
