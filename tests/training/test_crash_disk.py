"""T19, T20, T27: a disk that refuses costs a checkpoint or a line for a while, and no run."""

from __future__ import annotations

import argparse
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import disk as campaign
import pytest
from toy_training import Digest, Photos, digest, run, settings, training

from plusx import durable
from plusx.errors import DiskError
from plusx.training import checkpoint
from plusx.training.events import Event, Notice, StepDone
from plusx.training.loop import fit


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Digest:
    return run(tmp_path_factory.mktemp("whole"), settings(checkpoint_every=2))


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_fault_at_any_operation_costs_no_run_and_is_told_with_path_and_cause(tmp_path: Path) -> None:
    """The short form of `campaigns/disk.py`: every 61st fault of those that ENOSPC, EIO, EDQUOT and EROFS make."""
    totals = campaign.campaign(argparse.Namespace(folder=tmp_path, stride=61, only=""))
    assert totals.broken == []
    assert totals.once > 10
    assert totals.for_good > 3


def test_faults_that_are_not_caught_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a log that gives its errors to the run, as it did."""
    from plusx.training.loop import Training

    monkeypatch.setattr(Training, "_log", lambda self, name, record: self.logs[name].append(record))
    totals = campaign.campaign(argparse.Namespace(folder=tmp_path, stride=1, only="half operation 1, write"))
    assert any("the run ended with DiskError: Could not write " in told for told in totals.broken)


def test_lines_that_waited_are_written_once_there_is_space_and_the_history_is_exact(
    whole: Digest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    one = training(tmp_path, settings(checkpoint_every=2))

    def listen(event: Event) -> None:
        if isinstance(event, StepDone) and event.step in (3, 8):
            patch.setattr(durable, "_write_all", full) if event.step == 3 else patch.undo()
        if isinstance(event, Notice):
            told.append(event.text)

    one.listen = listen
    photos = Photos()
    with monkeypatch.context() as patch:
        outcome = fit(one, photos, photos.validate)
    assert digest(one, outcome) == whole
    advice = "No space left on device; free some space or choose another folder with --out."
    assert told[0] == f"Could not write {tmp_path / 'history.jsonl'}: {advice} The run goes on; lines wait until " + (
        "they can be written."
    )
    assert (
        told[2] == f"No checkpoint at step 4: Could not write {tmp_path / 'history.jsonl'}: {advice} The run goes on."
    )
    assert len(told) == 4  # of history and timing once each, and of two checkpoints


def test_a_run_whose_folder_is_removed_ends_at_once_with_one_sentence(tmp_path: Path) -> None:
    """T27: nothing that is still to come could be resumed or finished."""
    folder, steps = tmp_path / "run", []

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            steps.append(event.step)
            if event.step == 3:
                shutil.rmtree(folder)

    with pytest.raises(DiskError) as caught:
        run(folder, settings(), listen=listen)
    assert caught.value.message == (
        f"{folder} is no longer the folder that this run began in, so nothing more is written: it was removed, renamed "
        "or unmounted. Bring it back and resume the run, or start it again."
    )
    assert (steps, folder.exists()) == ([1, 2, 3], False)


def test_a_run_writes_nothing_into_a_folder_that_took_the_place_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def listen(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            folder.rename(tmp_path / "moved")
            folder.mkdir()

    with pytest.raises(DiskError, match="is no longer the folder that this run began in"):
        run(folder, settings(log_every=1000, checkpoint_every=2), listen=listen)
    assert list(folder.iterdir()) == []
    assert [p.name for p in checkpoint.found(tmp_path / "moved" / "checkpoints")] == ["step-000002"]


def test_a_folder_that_cannot_be_looked_at_for_a_moment_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T27: every third look at the run folder fails."""
    whole, real, looks = run(tmp_path / "whole", settings()), os.stat, [0]

    def stat(path: Any, *rest: Any, **others: Any) -> os.stat_result:
        if path == tmp_path / "run":
            looks[0] += 1
            if looks[0] % 3 == 0:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return real(path, *rest, **others)

    monkeypatch.setattr(os, "stat", stat)
    assert run(tmp_path / "run", settings()) == whole
    assert looks[0] > 9


def test_a_plan_that_cannot_be_written_is_not_followed_and_told_once(tmp_path: Path) -> None:
    told: list[str] = []

    def revise(step: int, stalled: bool) -> None:
        if step >= 3:
            raise DiskError("Could not write plan.json: Input/output error; check the disk.")

    one = training(tmp_path, settings(), lambda event: told.append(event.text) if isinstance(event, Notice) else None)
    outcome = fit(one, Photos(), revise=revise)
    assert outcome.steps == 12
    assert told == ["Could not write plan.json: Input/output error; check the disk. The plan stays as it is."]
