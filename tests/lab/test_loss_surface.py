"""Directions, surfaces and curvature, each against a slow or an exact computation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plusx.engines.torch_engine import build
from plusx.lab.curvature import ends, filter_scales, hessian_product
from plusx.lab.loss_surface import (
    LARGEST,
    PART,
    bounded,
    filter_normalised,
    filters,
    local_minima,
    losses_along,
    mean_loss,
    moved,
    offsets,
    random_direction,
    share_below,
    surface_row,
)
from plusx.models.normalise import Normalised

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def network(name: str = "plain8", width: float = 0.125, seed: int = 4) -> Normalised:
    torch.manual_seed(seed)
    return build({"name": name, "width": width}, 3, MEAN, STD).eval()


def photos(count: int = 12) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, 3, 16, 16), generator=made, dtype=torch.uint8), torch.arange(count) % 3


class Smooth(nn.Module):
    """Two smooth layers and a batch norm, small enough for its whole Hessian."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.norm, self.last = nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = torch.tanh(self.norm(self.first(pixels.float() / 128 - 1)))
        logits: Tensor = self.last(maps.mean((2, 3)))
        return logits


def test_each_filter_of_a_direction_has_the_norm_of_the_weights_filter() -> None:
    weights = filters(network("resnet8"))
    direction = random_direction(weights, seed=1, index=0)
    assert direction.keys() == weights.keys()
    for name, tensor in weights.items():
        for row in range(len(tensor)):
            wanted = math.sqrt(sum(float(w) ** 2 for w in tensor[row].flatten()))
            found = math.sqrt(sum(float(d) ** 2 for d in direction[name][row].flatten()))
            assert found == pytest.approx(wanted, rel=1e-5), f"{name}, filter {row}"


def test_filters_keep_their_direction_and_a_filter_of_zeros_is_not_moved() -> None:
    weights = {"w": torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]])}
    found = filter_normalised({"w": torch.tensor([[[0.0, 2.0]], [[1.0, 1.0]]])}, weights)["w"]
    assert found.tolist() == [[[0.0, 5.0]], [[0.0, 0.0]]]


def test_biases_and_norms_are_not_moved() -> None:
    names = filters(network("resnet8")).keys()
    assert names
    assert all(name.endswith("weight") and "bn" not in name for name in names)
    assert "network.fc.weight" in names


def test_directions_are_keyed_and_twins_share_them() -> None:
    plain, residual = filters(network("plain8")), filters(network("resnet8"))
    ones = {name: torch.ones_like(weight) for name, weight in plain.items()}
    same, again = random_direction(ones, 3, 0), random_direction({n: ones[n] for n in residual}, 3, 0)
    assert all(same[name].equal(again[name]) for name in ones)
    others = random_direction(ones, 3, 1), random_direction(ones, 4, 0)
    assert all(not same["network.conv1.weight"].equal(other["network.conv1.weight"]) for other in others)


def test_the_middle_of_the_offsets_is_exactly_zero() -> None:
    steps = offsets(25)
    assert (steps[0], steps[12], steps[-1]) == (-1.0, 0.0, 1.0)
    assert np.allclose(np.diff(steps), 1 / 12)


def test_the_surface_of_a_known_function_is_found_exactly() -> None:
    """One linear layer on constant pixels: its logits are sums of its weights, so the loss has a closed form."""

    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2, bias=False)

        def forward(self, pixels: Tensor) -> Tensor:
            logits: Tensor = self.fc(torch.ones(len(pixels), 2))
            return logits

    model = Sums()
    model.fc.weight.data = torch.tensor([[0.5, -1.0], [2.0, 0.25]])
    plane = {"fc.weight": torch.tensor([[1.0, 0.0], [0.0, 0.0]])}, {"fc.weight": torch.tensor([[0.0, 0.0], [0.0, 2.0]])}
    pixels, labels = torch.zeros(5, 3, 2, 2), torch.tensor([0, 0, 0, 0, 1])
    steps = offsets(5)
    for height in steps:
        found = surface_row(model, plane, height, steps, pixels, labels)
        for step, loss in zip(steps, found, strict=True):
            first, second = -0.5 + step, 2.25 + 2 * height
            norm = math.log(math.exp(first) + math.exp(second))
            assert loss == pytest.approx(norm - 0.8 * first - 0.2 * second, abs=1e-6)


def test_the_middle_of_the_plane_is_the_loss_of_the_network_itself() -> None:
    model, (pixels, labels) = network("resnet8"), photos(PART + 9)
    weights = filters(model)
    plane = random_direction(weights, 0, 0), random_direction(weights, 0, 1)
    row = surface_row(model, plane, 0.0, offsets(3), pixels, labels)
    with torch.no_grad():
        wanted = F.cross_entropy(model(pixels), labels).item()
    assert row[1] == pytest.approx(wanted, abs=1e-6)
    assert row[0] != row[1] != row[2]


def test_the_network_stays_as_it_is_even_in_training_mode() -> None:
    model, (pixels, labels) = network().train(), photos()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = filters(model)
    mean_loss(model, moved(weights, random_direction(weights, 0, 0), 0.5), pixels, labels)
    hessian_product(model, weights, weights, pixels, labels)(torch.ones(sum(w.numel() for w in weights.values())))
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_batch_statistics_undo_a_rescaling_that_running_ones_do_not() -> None:
    model, (pixels, labels) = network(), photos()
    weights = filters(model)
    longer = {name: weight for name, weight in weights.items() if "conv" in name}
    running = losses_along(model, longer, longer, [0.0, 3.0], pixels, labels)
    batch = losses_along(model.train(), longer, longer, [0.0, 3.0], pixels, labels)
    assert batch[1] == pytest.approx(batch[0], abs=1e-3)
    assert abs(running[1] - running[0]) > 0.1


def test_a_loss_that_is_no_number_counts_as_the_largest() -> None:
    assert [bounded(loss) for loss in (1.5, 1e30, math.inf, math.nan)] == [1.5, LARGEST, LARGEST, LARGEST]


def test_local_minima_and_basins_are_counted() -> None:
    x, y = np.meshgrid(np.arange(21), np.arange(13))
    waves = np.cos(2 * np.pi * x / 8) + np.cos(2 * np.pi * y / 8)
    assert local_minima(waves) == 2, "at 4 and 12 across and 4 up; what is on the edge of the grid is not counted"
    assert local_minima((x - 10.0) ** 2 + (y - 6.0) ** 2) == 1
    assert local_minima(np.zeros((5, 5))) == 0, "a plain has no lowest point"
    assert share_below(np.array([[1.0, 2.0], [3.0, 4.0]]), 3.0) == 0.5


@pytest.mark.parametrize("training", [False, True])
def test_products_and_eigenvalues_are_those_of_the_whole_hessian(*, training: bool) -> None:
    model, (pixels, labels) = Smooth().train(training), photos()
    weights = filters(model)
    shapes = {name: weight.shape for name, weight in weights.items()}
    scales = filter_scales(weights)

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [shape.numel() for shape in shapes.values()])
        tensors: dict[str, Any] = {n: p.view(s) for (n, s), p in zip(shapes.items(), parts, strict=True)}
        copies = {name: buffer.clone() for name, buffer in model.named_buffers()}
        return F.cross_entropy(torch.func.functional_call(model, tensors | copies, (pixels,)), labels)

    flat = torch.cat([weight.flatten() for weight in weights.values()])
    scale = torch.cat([scales[name].flatten() for name in weights])
    whole = scale[:, None] * torch.autograd.functional.hessian(loss, flat) * scale
    vector = torch.linspace(-1, 1, len(flat))
    product = hessian_product(model, weights, scales, pixels, labels)
    assert torch.allclose(product(vector), whole @ vector, atol=1e-5)
    values = torch.linalg.eigvalsh(whole.double())
    found = ends(product, len(flat), torch.device("cpu"), products=len(flat))
    assert found.largest == pytest.approx(values[-1].item(), rel=1e-4)
    assert found.least == pytest.approx(values[0].item(), rel=1e-3, abs=1e-5)


def test_few_products_find_the_largest_eigenvalue_and_say_how_surely() -> None:
    made = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn((300, 300), generator=made, dtype=torch.float64)).Q
    values = torch.cat([torch.linspace(-1, 2, 299, dtype=torch.float64), torch.tensor([40.0], dtype=torch.float64)])
    matrix = (basis * values @ basis.T).float()
    found = ends(lambda v: matrix @ v, 300, torch.device("cpu"), products=12)
    assert found.largest == pytest.approx(40.0, abs=1e-3)
    assert found.errors[1] < 1e-3 < found.errors[0], "the crowded end is known less well"
    assert -1.01 < found.least < -0.8
    assert min(abs(values - found.least)) <= found.errors[0]


def test_scaled_curvature_does_not_change_when_batch_norm_undoes_a_rescaling() -> None:
    model, (pixels, labels) = Smooth().train(), photos()
    model.first.bias.data.zero_()

    def sharpness(scaled: bool) -> float:
        weights = {"first.weight": model.first.weight.detach()}
        scales = filter_scales(weights) if scaled else {name: torch.ones_like(w) for name, w in weights.items()}
        return ends(hessian_product(model, weights, scales, pixels, labels), 54, torch.device("cpu")).largest

    before = sharpness(scaled=True), sharpness(scaled=False)
    model.first.weight.data *= 3
    after = sharpness(scaled=True), sharpness(scaled=False)
    assert after[0] == pytest.approx(before[0], rel=1e-2)
    assert after[1] == pytest.approx(before[1] / 9, rel=1e-2)
