"""The display of a training, on a terminal and without one."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from torch import nn

from plusx.cli import terminal
from plusx.cli.live import Live
from plusx.data.source import Listing
from plusx.models import create_model
from plusx.recipes import recipe
from plusx.recipes.plan import Plan, counted
from plusx.training.events import Notice, StepDone, Validated
from plusx.verbs.reports import Built, Decoding, Planned, TrainEvent


def shown(events: list[TrainEvent], *, terminal: bool = False, verbose: bool = False) -> str:
    file = io.StringIO()
    out = Console(file=file, force_terminal=terminal, width=200, highlight=False, soft_wrap=True, markup=False)
    with Live(out, verbose=verbose) as display:
        for event in events:
            display.show(event)
    return file.getvalue()


def step(number: int, loss: float = 0.5, total: int = 400) -> StepDone:
    return StepDone(number, total, (number - 1) // 100, loss, 0.75, 64, 0.1)


def test_without_a_terminal_there_are_plain_lines_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 100_000, 4))  # every look at the clock is four seconds later
    monkeypatch.setattr(terminal.time, "monotonic", lambda: float(next(now)))
    text = shown([Decoding("train", n, 9) for n in range(1, 10)] + [step(n) for n in range(1, 10)])
    assert "\x1b" not in text
    assert "decoding train: 3 of 9\n" in text
    assert "epoch 1, step 3/400, loss 0.5000, accuracy 75.0 %, 640 images/s, 0:40 left\n" in text
    assert 5 < len(text.splitlines()) < 12


def test_on_a_terminal_there_is_a_live_line_that_leaves_no_trace_but_validations() -> None:
    text = shown([step(1), Validated(100, 0, {"accuracy": 0.9, "log_loss": 0.3}, better := True)], terminal=True)
    assert better
    assert "step 1/400" in text
    assert "epoch 1, step 100: validation accuracy 90.00 %, log loss 0.3000, the best so far\n" in text


def test_the_textbook_program_shows_every_loss_and_prints_its_network() -> None:
    network: nn.Module = create_model("resnet18-3x3", 2)
    config = recipe("textbook")
    listing = Listing("data", ("cat", "dog"), (), ("Thumbs.db",), has_splits=False)
    built = Built(config, listing, {"train": 3200}, network, Path("runs/x"))
    text = shown([built, Planned(counted(config, 400, 10), config), *(step(n, loss=n / 10) for n in (1, 2, 3))])
    assert re.search(r"^conv1 +Conv2d +64 x 224 x 224 +1,728$", text, re.MULTILINE)
    assert text.count("11,169,858") == 2
    assert "left out 1 files that are no photos, such as Thumbs.db" in text
    assert 'settings: recipe="textbook", model="resnet18-3x3"' in text
    assert "plan: 4,000 steps of 8 photos (10.0 epochs), 100 % at 224 px" in text
    for number in (1, 2, 3):
        assert f"epoch 1, step {number}/400, loss {number / 10:.4f}" in text


def test_time_left_counts_the_larger_photos_that_are_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "PLAIN_SECONDS", 0)
    plan = Plan(400, 100, ((0.5, 64), (0.5, 128)), seconds_per_step=((64, 0.1), (128, 0.4)))
    text = shown([Planned(plan, recipe("fast")), step(100), step(300)])
    assert "step 100/400, loss 0.5000, accuracy 75.0 %, 640 images/s, 1:30 left\n" in text  # 100 x 0.1 + 200 x 0.4
    assert "step 300/400, loss 0.5000, accuracy 75.0 %, 640 images/s, 0:10 left\n" in text  # as fast as it is


def test_validation_says_that_half_of_the_photos_choose() -> None:
    text = shown([Validated(100, 0, {"accuracy": 0.9, "log_loss": 0.3, "n": 436}, False)])
    assert text == (
        "epoch 1, step 100: validation accuracy 90.00 %, log loss 0.3000 (n = 436, the half that chooses)\n"
    )


def test_notices_are_told() -> None:
    assert shown([Notice("something is odd")]) == "Note: something is odd\n"
