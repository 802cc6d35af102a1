"""What a recipe leaves open is settled by the machine and the budget."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from plusx.config import Config
from plusx.recipes.plan import training_sizes
from plusx.recipes.recipe import ENOUGH_EPOCHS, SCALES
from plusx.run_folder import RunFolder
from plusx.training.world import ALONE
from plusx.verbs import settle
from plusx.verbs.fitting import resume_command
from plusx.verbs.network import forward_flops
from plusx.verbs.session import Session
from plusx.verbs.settle import at_scale, budgeted, wished
from plusx.verbs.wish import Wish

CPU = torch.device("cpu")


def settled(
    monkeypatch: pytest.MonkeyPatch, step: float, photos: int = 10_000, device: torch.device = CPU, **flags: Any
) -> Config:
    """The settings where a step of whatever is timed takes `step` seconds."""
    monkeypatch.setattr(settle, "_step_seconds", lambda *_: step)
    wish = Wish(flags={"time": 600.0, **flags})
    return at_scale(budgeted(wished(wish), device), wish, device, photos, time.monotonic())


def expected_seconds(scale: str, step: float, photos: int) -> float:
    """What enough epochs take at `scale`, by operations."""
    smallest, config = (budgeted(wished(Wish(flags={"scale": name})), CPU) for name in ("small", scale))
    mean = sum(share * forward_flops(config, 2, size) for share, size in training_sizes(config))
    first = training_sizes(smallest)[0][1]
    return ENOUGH_EPOCHS[scale] * photos / 64 * step * mean / forward_flops(smallest, 2, first)


@pytest.mark.parametrize("scale", ["medium", "large", "huge"])
def test_the_budget_affords_a_scale_from_enough_epochs_on(monkeypatch: pytest.MonkeyPatch, scale: str) -> None:
    step = 0.02
    photos = math.floor(10_000 * 590.0 / expected_seconds(scale, step, 10_000))
    scales = list(SCALES)
    assert settled(monkeypatch, step, round(0.98 * photos)).scale == scale
    assert settled(monkeypatch, step, round(1.02 * photos)).scale == scales[scales.index(scale) - 1]


def test_a_slow_machine_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    config = settled(monkeypatch, step=1.0)
    assert (config.scale, config.model, config.width) == ("small", SCALES["small"]["model"], SCALES["small"]["width"])


def test_on_a_gpu_where_small_steps_take_as_long_as_large_ones_a_step_of_each_scale_is_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    found = {kind: settled(monkeypatch, 0.03, device=torch.device(kind)).scale for kind in ("cpu", "cuda")}
    assert found == {"cpu": "large", "cuda": "huge"}


def test_what_the_user_set_holds_at_every_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    config = settled(monkeypatch, 1e-4, width=0.25, seed=7)
    assert (config.scale, config.width, config.seed, config.time) == ("huge", 0.25, 7, 600.0)


def test_a_model_that_was_named_is_not_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    config = settled(monkeypatch, 1e-4, model="resnet34")
    assert (config.scale, config.model, config.width) == ("small", "resnet34", 1.0)


def test_a_run_of_epochs_takes_the_smallest_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settled(monkeypatch, 1e-4, time=None, epochs=3).scale == "small"


def test_precision_is_settled_by_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda there=there: {"avx2": True, "avx512_bf16": there})
        assert settled(monkeypatch, step=1.0).precision == expected
    assert settled(monkeypatch, step=1.0, precision="fp32").precision == "fp32"


def test_a_step_on_noise_is_timed() -> None:
    wish = Wish(flags={"time": 20.0, "batch_size": 4}, sets=("width=0.125",))
    assert 0 < settle._step_seconds(budgeted(wished(wish), CPU), CPU, ALONE) < 10


@pytest.mark.parametrize(
    ("told", "command"),
    [
        ({}, "plusx train --resume --out runs/a"),
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "torchrun --standalone --nproc-per-node 2 -m plusx train"),
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}, "torchrun ... -m plusx train --resume --out runs/a"),
    ],
)
def test_a_stopped_run_is_told_to_go_on_by_as_many_processes(
    told: dict[str, str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (told | {"RANK": "0"} if told else {}).items():
        monkeypatch.setenv(name, value)
    session = Session((), Config(), CPU, 0.0, lambda _: None)
    assert resume_command(session, RunFolder(Path("runs/a"))).startswith(command)
