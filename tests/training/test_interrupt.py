"""T16, T17, T18: processes that are asked to stop, or killed, in the middle of a step: real signals, real processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from toy_training import Digest, Photos, run, settings, training

from plusx.errors import Interrupted
from plusx.training import interrupt
from plusx.training.events import Event, Saved, StepDone
from plusx.training.interrupt import Stop, stopping
from plusx.training.loop import fit

PROGRAM = Path(__file__).with_name("toy_training.py")
CAMPAIGN = PROGRAM.parents[2] / "campaigns" / "signals.py"
SECONDS_TO_STOP = 5.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Digest:
    import torch

    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp("whole"), settings())


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(PROGRAM.parents[2]), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen([sys.executable, "-W", "error", str(PROGRAM), str(folder), *words], **pipes)


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    for said in process.stdout:
        if said.startswith(line):
            return
    assert process.stderr is not None
    pytest.fail(f"the process ended without saying {line!r}: {process.stderr.read()}")


def test_where_nobody_is_to_save_any_more_a_process_whose_others_have_left_ends_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would have waited ten minutes for a watcher that had gone."""
    codes: list[int] = []

    def end(code: int, _: str | None) -> None:
        codes.append(code)
        raise SystemExit(code)

    monkeypatch.setattr(interrupt, "_end", end)
    monkeypatch.setattr(interrupt, "LONGEST_SAVE", 0.1)
    stop = Stop(lambda: "saved")
    stop.leave()
    assert codes == []
    stop.reached()
    with pytest.raises(SystemExit):
        stop.leave()
    assert codes == [interrupt.INTERRUPTED]


@pytest.mark.parametrize("hold", ["5:sleep", "5:multiply", "7:validate"])
def test_a_signal_in_a_long_call_leaves_a_checkpoint_in_time_and_resumes_exactly(
    hold: str, whole: Digest, tmp_path: Path
) -> None:
    process = start(tmp_path, f"hold={hold}")
    wait_for(process, "holding")
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - asked < SECONDS_TO_STOP
    assert process.returncode == 75
    done = 8 if "validate" in hold else 5  # the unfinished step is dropped, a finished one is not
    assert told.strip().endswith(
        f"Stopped after step {done}; everything is in {tmp_path}. Continue with: plusx train --resume"
    )
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [f"step-{done:06d}"]
    assert run(tmp_path, settings(), resume=True) == whole


def test_a_second_ctrl_c_ends_the_process_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, "hold=2:sleep", "checkpoint_every=1")
    wait_for(process, "holding")
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - asked < 1.0
    assert process.returncode == 130
    assert told == "\nplusx: Stopped at once; the last checkpoint is whole.\n"


def test_a_signal_between_short_steps_is_answered_at_the_end_of_the_step(whole: Digest, tmp_path: Path) -> None:
    process = start(tmp_path, "nap=0.3")
    wait_for(process, "StepDone 3")
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - asked < SECONDS_TO_STOP
    assert process.returncode == 75
    assert told.startswith("Stopped after step ")  # the loop's own sentence: the watcher's starts with the program
    assert run(tmp_path, settings(), resume=True) == whole


def test_a_run_killed_at_three_random_moments_ends_with_equal_bits(whole: Digest, tmp_path: Path) -> None:
    chance = random.Random(5)
    for first in (1, 4, 8):
        process = start(tmp_path, "nap=0.05", "checkpoint_every=1")
        wait_for(process, f"StepDone {first}")
        time.sleep(chance.uniform(0.0, 0.15))
        process.kill()
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
    assert run(tmp_path, settings(), resume=True) == whole


def test_handlers_are_put_back_after_the_run() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stopping(lambda: "") as stop:
        assert signal.getsignal(signal.SIGINT) is not before[0]
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested.wait(5)
        stop.reached()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert not [thread for thread in threading.enumerate() if "watch" in thread.name]


def test_outside_the_main_thread_nothing_is_watched_and_training_works(whole: Digest, tmp_path: Path) -> None:
    results: list[Digest] = []
    thread = threading.Thread(target=lambda: results.append(run(tmp_path, settings())))
    thread.start()
    thread.join()
    assert results == [whole]


def test_a_dozen_signals_at_random_moments_leave_the_last_finished_step(tmp_path: Path) -> None:
    """The short form of `campaigns/signals.py`: between steps, in slow saves, in long steps and validations."""
    command = [sys.executable, str(CAMPAIGN), "--trials", "12", "--workers", "6", "--startup", "0"]
    command += ["--out", str(tmp_path / "totals")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    totals = json.loads((tmp_path / "totals").read_text())
    assert totals["trials"] == 12
    assert totals["seconds_to_stop"]["all but twice"]["most"] < SECONDS_TO_STOP
    assert set(totals["seconds_to_stop"]) >= {"multiply", "sleep", "twice", "validate"}


STOPPED = "\nplusx: Stopped; there is nothing to resume.\n"
TRACE = 'Traceback (most recent call last):\n  File "{}", line 1, in <module>\nKeyboardInterrupt\n'


@pytest.mark.parametrize(
    ("code", "told", "kind"),
    [
        (0, "", "0"),
        (130, STOPPED, "130"),
        (-2, "", "-2, by Python itself"),
        (1, TRACE.format("<frozen site>"), "1, by Python itself"),
        (130, TRACE.format("<frozen runpy>"), "130, by Python itself"),
        (0, STOPPED, None),
        (1, STOPPED, None),
        (130, STOPPED * 2, None),
        (130, TRACE.format(CAMPAIGN.parents[1] / "plusx" / "cli" / "run.py"), None),
        (1, "ImportError: interrupted\n", None),
        (-11, "", None),
    ],
)
def test_a_start_that_is_interrupted_ends_with_one_sentence_or_before_plusx_began(
    code: int, told: str, kind: str | None
) -> None:
    """What `campaigns/signals.py` counts as right, as Python's own, and as a broken promise."""
    import signals

    assert signals.judged(code, told) == kind


def test_a_signal_in_the_last_save_is_not_lost(whole: Digest, tmp_path: Path) -> None:
    """T18: the steps are done, and what follows them is what has to be stopped."""

    def listen(event: Event) -> None:
        if isinstance(event, Saved):
            signal.raise_signal(signal.SIGTERM)

    one = training(tmp_path, settings(), listen)
    photos = Photos()
    with pytest.raises(Interrupted, match="Stopped after step 12"):
        fit(one, photos, photos.validate)
    assert run(tmp_path, settings(), resume=True) == whole


def test_a_signal_between_the_last_step_and_the_end_of_watching_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = threading.Event.set

    def late(event: threading.Event) -> None:
        monkeypatch.setattr(threading.Event, "set", real)
        signal.raise_signal(signal.SIGTERM)
        real(event)

    def listen(event: Event) -> None:
        if isinstance(event, Saved):
            monkeypatch.setattr(threading.Event, "set", late)  # next is the end of watching

    with pytest.raises(Interrupted):
        fit(training(tmp_path, settings(keep="last"), listen), Photos())


def test_a_disk_that_refuses_the_checkpoint_of_a_signal_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plusx import durable
    from plusx.errors import DiskError, disk

    def refuse(path: Path, files: object) -> None:
        raise disk.cannot_write(path, OSError(5, "Input/output error"))

    def listen(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            monkeypatch.setattr(durable, "write_folder", refuse)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(DiskError, match=r"Could not write .*step-00000[34]: Input/output error") as caught:
        fit(training(tmp_path, settings(keep="last", checkpoint_every=2), listen), Photos())
    assert caught.value.exit_code == 5
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000002"]


def test_a_process_that_cannot_go_on_saves_the_last_finished_step_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """T14, T15: another process is lost, and a thread ends this one."""
    done: list[object] = []
    monkeypatch.setattr(interrupt, "_end", lambda code, sentence: done.append((code, sentence)))
    Stop(lambda: str(done.append("saved"))).give_up("Rank 1 is gone.")
    assert done == ["saved", (1, "plusx: Rank 1 is gone.")]


def test_what_cannot_be_saved_soon_does_not_keep_a_process_that_cannot_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that waits for a lost process hands out no tensors."""
    done: list[object] = []
    never = threading.Event()
    monkeypatch.setattr(interrupt, "_end", lambda code, sentence: done.append((code, sentence)))
    monkeypatch.setattr(interrupt, "SAVING_SECONDS", 0.05)
    Stop(lambda: str(never.wait(5))).give_up(None)
    assert done == [(1, None)]
    never.set()


def test_a_state_that_nobody_is_to_save_is_not_saved_by_a_process_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half updated, or saved by the loop already; and a disk that refuses does not hide the reason."""
    done: list[object] = []
    monkeypatch.setattr(interrupt, "_end", lambda _, sentence: done.append(sentence))
    stop = Stop(lambda: str(done.append("saved")))
    stop.reached()
    stop.give_up("Rank 1 is gone.")

    def refuse() -> str:
        raise OSError(28, "No space left on device")

    Stop(refuse).give_up("Rank 1 is gone.")
    assert done == 2 * ["plusx: Rank 1 is gone."]
