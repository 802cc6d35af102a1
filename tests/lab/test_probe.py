"""What the probe writes of a training: checked against gradients and weights computed again, and against a stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from plusx.config import Config
from plusx.durable import Log
from plusx.errors import Interrupted, UsageError
from plusx.lab.capture import Capture, layers_of, look, responses
from plusx.lab.probe import Probe, due, watch
from plusx.models import create_model
from plusx.models.normalise import Normalised
from plusx.run_folder import RunFolder
from plusx.training.events import Notice, StepDone
from plusx.training.settings import Settings
from plusx.training.step import State, train_step
from plusx.verbs import decoding, labelled
from plusx.verbs.session import Session, prepared_device
from plusx.verbs.train import resume_split, train_split
from plusx.verbs.wish import Wish
from tests.verbs.conftest import fill

CONFIG = Config(model="resnet8", width=0.25, size=16, epochs=4, batch_size=16, device="cpu", workers=0).model_copy(
    update={"learning_rate": 0.05, "checkpoint_every": 3, "schedule": "constant", "warmup": 0.0}
)


def network_of(name: str = "resnet8", norm: str = "batch") -> Normalised:
    torch.manual_seed(0)
    return Normalised(create_model(name, 4, width=0.25, norm=norm), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def batch(count: int = 12) -> SimpleNamespace:
    random = np.random.default_rng(1)
    pixels = torch.from_numpy(random.integers(0, 255, (count, 3, 16, 16), dtype=np.uint8))
    shares = (count,)
    return SimpleNamespace(images=pixels, targets=torch.arange(count) % 4, indices=np.arange(count), shares=shares)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_the_layers_are_the_3x3_ones_in_their_order_and_lie_behind_their_norms(norm: str) -> None:
    layers = layers_of(network_of(norm=norm))
    assert [layer.name for layer in layers[:4]] == ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1"]
    assert len(layers) == 7
    assert all(type(layer.behind) is (nn.BatchNorm2d if norm == "batch" else nn.Identity) for layer in layers)
    assert all(layer.behind is layer.convolution for layer in layers_of(create_model("vgg11", 2, width=0.1)))


@pytest.mark.parametrize(("name", "norm"), [("resnet8", "batch"), ("plain8", "batch"), ("resnet8", "none")])
def test_responses_and_gradients_are_those_computed_by_hand(name: str, norm: str) -> None:
    """A second forward pass, written out, whose responses are leaves of the graph that autograd is asked about."""
    network, photos = network_of(name, norm), batch()
    found = look(network, photos.images, photos.targets)
    inner = network.network
    flow, seen = inner.conv1(network.normalise(photos.images)), []

    def response(values: torch.Tensor) -> torch.Tensor:
        seen.append(values)
        return values + 0.0  # ReLU works in place, and must not touch what was seen

    flow = F.relu(response(inner.bn1(flow)))
    for block in (inner.layer1[0], inner.layer2[0], inner.layer3[0]):
        middle = F.relu(response(block.bn1(block.conv1(flow))))
        branch = response(block.bn2(block.conv2(middle)))
        shortcut = 0.0 if name.startswith("plain") else block.downsample(flow) if block.downsample else flow
        flow = F.relu(branch + shortcut)
    loss = F.cross_entropy(inner.head(flow), photos.targets)
    weights = [layer.convolution.weight for layer in layers_of(network)]
    gradients = torch.autograd.grad(loss, [*seen, *weights])
    assert found["response"] == pytest.approx([s.std(correction=0).item() for s in seen], rel=1e-4)
    assert found["response_gradient"] == pytest.approx([g.norm().item() for g in gradients[:7]], rel=1e-4)
    assert found["weight_gradient"] == pytest.approx([g.norm().item() for g in gradients[7:]], rel=1e-4)
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert all(p.grad is None for p in network.parameters())


def test_a_batch_in_parts_has_the_signals_of_the_whole() -> None:
    whole, parts = (network_of(norm="none") for _ in range(2))
    rows = []
    for network, accumulate in ((whole, 1), (parts, 3)):
        settings = Settings.of(CONFIG.model_dump() | {"accumulate": accumulate}, total_steps=4, steps_per_epoch=4)
        state, capture = State.fresh(network, settings), Capture(layers_of(network))
        train_step(state, batch(), settings)
        rows.append(capture.to_json())
        capture.detach()
    for name in ("response", "response_gradient", "weight_gradient", "update"):
        assert rows[1][name] == pytest.approx(rows[0][name], rel=1e-3), name


def test_reduced_precision_is_told_in_full() -> None:
    rows = []
    for precision in ("fp32", "bf16"):
        settings = Settings.of(CONFIG.model_dump() | {"precision": precision}, total_steps=4, steps_per_epoch=4)
        network = network_of()
        state, capture = State.fresh(network, settings), Capture(layers_of(network))
        train_step(state, batch(), settings)
        rows.append(capture.to_json())
        capture.detach()
    assert rows[1]["response"] == pytest.approx(rows[0]["response"], rel=0.05)
    assert rows[1]["response_gradient"] == pytest.approx(rows[0]["response_gradient"], rel=0.2)
    assert rows[1]["update"] != rows[0]["update"], "the control: it was another arithmetic"


def test_updates_are_over_the_weights_before_them() -> None:
    network = network_of()
    settings = Settings.of(CONFIG.model_dump() | {"weight_decay": 0.0}, total_steps=4, steps_per_epoch=4)
    state, capture = State.fresh(network, settings), Capture(layers_of(network))
    before = [layer.convolution.weight.detach().clone() for layer in layers_of(network)]
    rate = train_step(state, batch(), settings).rate
    step = rate * (1 + settings.momentum)  # the first step of Nesterov's momentum
    gradients = capture.weight_gradients()
    expected = [step * (g or 0.0) / b.norm().item() for g, b in zip(gradients, before, strict=True)]
    assert capture.updates() == pytest.approx(expected, rel=1e-3)


def test_a_gradient_too_small_for_squares_in_32_bits_is_told_and_what_is_not_finite_is_none() -> None:
    network = network_of(norm="none")
    capture = Capture(layers_of(network))
    (network(batch().images).sum() * 1e-30).backward()
    assert min(capture.response_gradients()) > 0  # type: ignore[type-var]
    with torch.no_grad():
        network.network.conv1.weight.fill_(float("inf"))
    capture = Capture(layers_of(network))
    network(batch().images)
    assert capture.responses()[0] is None


def test_responses_of_a_trained_network_are_those_of_its_running_statistics() -> None:
    network, photos = network_of(), batch(40)
    with torch.no_grad():
        network(photos.images)  # moves the statistics a little
    found = responses(network, photos.images)
    network.eval()
    inner = network.network
    by_hand = inner.bn1(inner.conv1(network.normalise(photos.images)))
    assert found[0] == pytest.approx(by_hand.std(correction=0).item(), rel=1e-4)
    assert found[0] != pytest.approx(1.0, abs=0.01), "the control: with the batch's own statistics it would be one"


def test_moments_are_every_step_at_first_and_then_rarer() -> None:
    steps = sorted(due(1200))
    assert steps[:8] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert steps[-1] == 1200
    assert 40 <= len(steps) <= 42
    gaps = np.diff(steps)
    assert max(gaps) > 100
    assert due(5) == {1, 2, 3, 4, 5}
    assert len(due(64_000)) >= 40


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """60 photos of two classes: three steps an epoch."""
    return fill(tmp_path / "stripes", {"lying": 30, "standing": 30})


def train(data: Path, out: Path, *, watched: bool = True, stop: int | None = None, resume: bool = False) -> None:
    def listen(event: object) -> None:
        if isinstance(event, StepDone) and event.step == stop:
            raise KeyboardInterrupt

    session = Session((str(data),), CONFIG, prepared_device(CONFIG), 0.0, listen, bare=True)
    session = replace(session, watch=watch if watched else None)
    photos = labelled.look(session.data, CONFIG)
    pixels = decoding.decode(session, photos, "", None)
    with closing(pixels.store), closing(decoding.parted(session, photos, pixels)) as decoded:
        if resume:
            resume_split(session, RunFolder(out), photos, decoded)
        else:
            train_split(session, photos, decoded, Wish(out=out))


def test_a_watched_run_learns_what_it_would_have_learned_and_goes_on_as_if_never_stopped(
    data: Path, tmp_path: Path
) -> None:
    train(data, tmp_path / "whole")
    train(data, tmp_path / "alone", watched=False)
    with pytest.raises(Interrupted):
        train(data, tmp_path / "parted", stop=8)
    assert len((tmp_path / "parted" / "signals.jsonl").read_text().splitlines()) == 8, "beyond the checkpoint of step 6"
    train(data, tmp_path / "parted", resume=True)
    whole, alone, parted = (tmp_path / name for name in ("whole", "alone", "parted"))
    assert (whole / "history.jsonl").read_bytes() == (alone / "history.jsonl").read_bytes()
    assert (whole / "signals.jsonl").read_bytes() == (parted / "signals.jsonl").read_bytes()
    assert not (alone / "signals.jsonl").exists()
    rows = [json.loads(line) for line in (whole / "signals.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert set(rows[0]) == {
        *("step", "loss", "layers", "response", "response_gradient", "weight_gradient", "update"),
    }
    assert all(len(row["update"]) == 7 for row in rows)
    assert rows[0]["response"] == pytest.approx([1.0] * 7, abs=1e-2), "norms start with a deviation of one"


def test_hooks_are_there_at_due_steps_only_and_never_in_validation(tmp_path: Path) -> None:
    network = network_of()
    probe = Probe(network, Log(tmp_path / "signals.jsonl"))
    first = layers_of(network)[0].behind

    def step(number: int) -> bool:
        network(batch(4).images).sum().backward()
        hooked = bool(first._forward_hooks)
        probe.listen(StepDone(number, 1200, 0, 1.0, 0.5, 4, 0.1))
        network.eval()
        network(batch(4).images)
        assert not first._forward_hooks
        network.train()
        return hooked

    looked_at = [number for number in range(1, 120) if step(number)]
    assert looked_at == sorted(moment for moment in due(1200) if moment < 120)
    probe.listen(Notice("nothing of its own"))
    assert [row["step"] for row in Log(tmp_path / "signals.jsonl").records()] == looked_at


def test_scaled_gradients_are_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_config({"precision": "fp16"})
    with pytest.raises(UsageError) as caught:
        watch(network_of(), run)
    assert caught.value.message == (
        "The lab watches gradients, and with precision fp16 they are scaled by a factor that changes; use "
        "--set precision=bf16 or fp32."
    )


def test_the_networks_of_the_lab_are_watched(open_lab: Callable[..., object], tmp_path: Path) -> None:
    from plusx.lab.network import Network

    lab = open_lab()
    network = Network("resnet8", steps=3)
    lab.trained([network])  # type: ignore[attr-defined]
    rows = list(Log(lab.run(network).path / "signals.jsonl").records())  # type: ignore[attr-defined]
    assert [row["step"] for row in rows] == [1, 2, 3]
