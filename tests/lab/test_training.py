"""Networks of the lab are trained side by side, stopped, gone on with, lost and refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plusx.errors import RunError, UsageError
from plusx.lab import fleet
from plusx.lab.events import Learned, Stepped
from plusx.lab.job import Job, train_network
from plusx.lab.laboratory import Lab
from plusx.lab.network import Network
from plusx.lab.photos import Amount
from tests.lab.conftest import SIZE

TWINS = [Network("plain8"), Network("resnet8")]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_processes_train_what_this_process_would(open_lab: Callable[..., Lab], tmp_path: Path) -> None:
    heard: list[Any] = []
    lab = open_lab(heard=heard)
    lab.trained(TWINS)
    assert {e.network for e in heard if isinstance(e, Learned)} == {"plain8-seed-0", "resnet8-seed-0"}
    assert any(isinstance(e, Stepped) and e.total == 8 for e in heard)
    for network in TWINS:
        here = Job(network, tmp_path / network.name, lab.steps)
        train_network(lab.setup, here, lab._photos, lambda _: None)
        assert sha256(here.folder / "model.safetensors") == sha256(lab.run(network).model)
    assert lab.history(TWINS[0])[-1]["validation"]["n"] > 0
    heard.clear()
    lab.trained(TWINS)
    assert heard == [], "what is trained is not trained again"


def test_twins_differ_by_the_shortcut_alone(open_lab: Callable[..., Lab]) -> None:
    lab = open_lab()
    plain, residual = (dict(lab.build(n).named_parameters()) for n in (Network("plain20", 5), Network("resnet20", 5)))
    assert plain.keys() == residual.keys()
    assert all(plain[name].equal(residual[name]) for name in plain)


def test_a_diverged_network_is_a_result_and_has_no_weights(open_lab: Callable[..., Lab]) -> None:
    heard: list[Any] = []
    lab = open_lab(heard=heard)
    wild = Network("plain8", settings=(("learning_rate", 1e30),))
    lab.trained([wild])
    step = lab.diverged(wild)
    assert step is not None
    assert 2 <= step <= 8
    assert heard[-1] == Learned(wild.name, 1, 1, step)
    assert lab.missing([wild]) == []
    with pytest.raises(RunError, match=rf"{wild.name} diverged at step {step}: its loss became infinite"):
        lab.load(wild)


def test_a_training_that_fails_stops_the_others_and_is_named(open_lab: Callable[..., Lab]) -> None:
    lab = open_lab()
    unknown = Network("plain8", settings=(("weights", "nowhere.safetensors"),))
    with pytest.raises(RunError, match=r"^plain8-seed-0: .*nowhere\.safetensors") as caught:
        lab.trained([unknown, Network("resnet8", steps=100_000)])
    assert caught.value.exit_code == 4


def test_a_process_that_is_killed_is_told_with_its_log(
    open_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = fleet._started

    def doomed(*arguments: Any) -> Any:
        process = started(*arguments)
        process.kill()
        return process

    monkeypatch.setattr(fleet, "_started", doomed)
    with pytest.raises(RunError, match=r"Training process \d ended by itself \(signal 9; .*process-\d\.log"):
        open_lab().trained(TWINS)


BROKEN = {
    "cut off, at its end": "print('{\"event\": \"st', end='')",
    "no JSON, and it goes on": "import time; print('a library prints', flush=True); time.sleep(60)",
    "JSON, and no event": "print('[1]')",
    "no text": "import sys; sys.stdout.buffer.write(bytes([255, 10]))",
}


@pytest.mark.parametrize("program", BROKEN.values(), ids=BROKEN)
def test_a_process_that_says_what_is_no_event_is_lost_and_nobody_waits_for_it(
    open_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    popen = subprocess.Popen

    def broken(command: list[str], **settings: Any) -> Any:
        return popen([sys.executable, "-c", f"input(); input(); {program}"], **settings)

    monkeypatch.setattr(subprocess, "Popen", broken)
    monkeypatch.setattr(fleet, "GRACE", 0.5)
    lab = open_lab()
    failed: list[BaseException] = []

    def train() -> None:
        try:
            lab.trained(TWINS[:1])
        except RunError as error:
            failed.append(error)

    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it would wait for ever"
    assert re.match(r"Training process 1 ended by itself \(.*process-1\.log", str(failed[0]))


def test_sizes_that_a_network_cannot_take_are_refused_before_a_process_is_started(
    open_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(fleet, "_started", lambda *given: started.append(given))
    with pytest.raises(UsageError, match=r"^alexnet .*63"):
        open_lab().trained([*TWINS, Network("alexnet")])
    assert started == []


def test_what_was_measured_is_not_measured_again(open_lab: Callable[..., Lab]) -> None:
    lab = open_lab()
    assert lab.remembered("a", lambda: {"x": [1, 2]}) == {"x": [1, 2]}
    assert lab.remembered("a", lambda: 1 / 0) == {"x": [1, 2]}


def test_what_was_measured_of_a_shorter_training_is_not_taken_for_a_longer_one(open_lab: Callable[..., Lab]) -> None:
    assert open_lab().remembered("a", lambda: 1) == 1
    assert open_lab(size=replace(SIZE, steps=9)).remembered("a", lambda: 2) == 2
    assert open_lab(size=replace(SIZE, amount=Amount(32, 16))).remembered("a", lambda: 3) == 3
    assert open_lab().remembered("a", lambda: 4) == 1


def test_a_lab_that_is_stopped_goes_on_to_the_same_weights(open_lab: Callable[..., Lab], tmp_path: Path) -> None:
    whole = open_lab(size=replace(SIZE, steps=80))
    whole.trained(TWINS)
    expected = {network.name: sha256(whole.run(network).model) for network in TWINS}
    settings = json.dumps({"out": str(tmp_path / "stopped"), "setup": whole.setup.to_json(), "steps": 80})
    command = [sys.executable, str(Path(__file__).with_name("stoppable.py")), settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "step" in process.stdout.readline()
        os.kill(process.pid, signal.SIGTERM)
        process.stdout.read()
    assert process.returncode == 75
    assert len(list((tmp_path / "stopped" / "networks").glob("*/model.safetensors"))) < 2, "it was stopped in time"
    subprocess.run(command, capture_output=True, check=True)
    found = {p.parent.name.rpartition("-")[0]: sha256(p) for p in (tmp_path / "stopped").glob("networks/*/model.s*")}
    assert found == expected
