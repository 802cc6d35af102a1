"""`plusx bench`: what is counted is right, and what is timed adds up."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from plusx.bench import PARTS, Ceilings, convolutions, cost_of
from plusx.bench.ceilings import _as_convolution
from plusx.cli.run import run
from plusx.errors import UsageError
from plusx.models import create_model
from plusx.verbs.bench import Bench, bench

TINY = {"model": "resnet10", "size": 32, "batch_size": 8, "device": "cpu"}
SETS = ("sizes=[]", "width=0.25", "precision=fp32")


@pytest.fixture(scope="module")
def measured() -> Bench:
    return bench(TINY, sets=SETS, rounds=3)


def multiply_adds(network: nn.Module, size: int) -> dict[str, int]:
    """Of one photo forward, from the shapes of convolutions and the head alone."""
    counts: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(layer: Any, _inputs: Any, output: torch.Tensor) -> None:
            places = output[0, 0].numel() if output.ndim == 4 else 1
            counts[name] = layer.weight.numel() * places

        return hook

    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(note(name))
    network.eval()(torch.zeros(1, 3, size, size))
    return counts


def test_a_step_costs_three_forward_passes_but_for_the_gradient_of_the_pixels(measured: Bench) -> None:
    counts = multiply_adds(create_model("resnet10", 2, width=0.25), 32)
    expected = 8 * 2 * (3 * sum(counts.values()) - counts["conv1"])
    augmenting = 2 * 8 * 3 * 43 * 32 * (43 + 32)  # two matrix products per photo: 43 px kept, 32 px wanted
    assert measured.cost.flops == expected + augmenting


def test_convolutions_are_counted_one_by_one() -> None:
    network = create_model("resnet10", 2, width=0.25)
    counts = multiply_adds(network, 32)
    found = {c.name: c.flops for c in convolutions(network, torch.zeros(4, 3, 32, 32), torch.float32)}
    assert found.keys() == counts.keys() - {"fc"}
    assert found["conv1"] == 2 * 2 * 4 * counts["conv1"]  # no gradient of the pixels
    assert found["layer3.0.conv2"] == 3 * 2 * 4 * counts["layer3.0.conv2"]


def test_bytes_are_those_of_every_operand_and_every_result() -> None:
    a, b = torch.zeros(10, 20), torch.zeros(20, 30)
    assert cost_of(lambda: a @ b).bytes == 4 * (10 * 20 + 20 * 30 + 10 * 30)
    assert cost_of(lambda: a.T).bytes == 0  # nothing moves


def test_the_parts_of_a_step_add_up_to_it(measured: Bench) -> None:
    assert tuple(measured.seconds) == PARTS
    assert measured.step == pytest.approx(sum(measured.seconds.values()))
    assert measured.images_per_second == pytest.approx(8 / measured.step)
    assert all(seconds > 0 for seconds in measured.seconds.values())


def test_a_step_of_several_parts_is_measured_as_one() -> None:
    whole = bench(TINY, sets=(*SETS, "accumulate=2"), rounds=1)
    assert tuple(whole.seconds) == PARTS
    assert all(seconds > 0 for seconds in whole.seconds.values())


def test_a_matrix_product_is_the_convolution_it_is_timed_as() -> None:
    a, b = torch.randn(6, 6), torch.randn(6, 6)
    torch.testing.assert_close(_as_convolution(a, b)[0, :, 0].T, a @ b.T)


def test_ceilings_are_rates(measured: Bench) -> None:
    ceilings = Ceilings(torch.device("cpu"), "fp32")
    assert ceilings.flops() > 1e8
    assert ceilings.bytes() > 1e8
    assert 0 < measured.share < 10
    assert 0 < measured.convolution_share < 10


def test_the_command_prints_its_figures_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "bench",
        "--model",
        "resnet10",
        "--size",
        "32",
        "--batch-size",
        "4",
        "--set",
        "width=0.25",
        "--rounds",
        "1",
    ]
    assert run([*words, "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "resnet10 x 0.25, 32 px, 4 photos a step:" in text
    assert all(part in text for part in PARTS)
    assert run([*words, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["batch_size"] == 4
    assert np.isclose(figures["images_per_second"] * figures["step_seconds"], 4)


def test_a_network_that_does_not_exist_is_refused_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="There is no model 'resnet11'"):
        bench({"model": "resnet11"})
