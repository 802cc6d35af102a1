"""T12, T13: processes that die at random times, and at every place of every operation on files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from operations import Killed, Operation, dying, nothing, watched
from toy_training import settings, training

from plusx import durable
from plusx.run_folder import RunFolder
from plusx.training import checkpoint

CAMPAIGNS = Path(__file__).parents[2] / "campaigns"
OFFSETS = {"history": 0, "timing": 0}

Work = Callable[[Path], None]


def deaths(prepared: Path, folder: Path, work: Work) -> Iterator[str]:
    """The folder after `work` on a copy of `prepared` was killed, for every place: says where."""
    shutil.copytree(prepared, folder)
    with watched(folder, nothing) as operations:
        work(folder)
    assert len(operations) > 3
    for operation, moment in [(o, m) for o in operations for m in o.moments]:
        shutil.rmtree(folder)
        shutil.copytree(prepared, folder)
        with pytest.raises(Killed), watched(folder, dying(operation.number, moment)):
            work(folder)
        yield f"{moment} {operation}"


def content(folder: Path) -> bytes | None:
    """What whoever comes next finds in the folder f; None where it is damaged or not there."""
    durable.put_back(folder)
    durable.sweep_temporary(folder)
    assert {path.name for path in folder.iterdir()} <= {"f", "step-000003"}
    return None if durable.folder_fault(folder / "f") else (folder / "f" / "x").read_bytes()


def write_new(folder: Path) -> None:
    durable.write_folder(folder / "f", {"x": b"new" * 100, "y": b"more"})


@pytest.fixture
def replaced(tmp_path: Path) -> Path:
    """A folder that holds an older one of the name that is about to be written."""
    durable.write_folder(tmp_path / "prepared" / "f", {"x": b"old"})
    return tmp_path / "prepared"


def test_a_process_that_dies_anywhere_in_writing_a_file_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    (tmp_path / "prepared").mkdir()
    durable.write_file(tmp_path / "prepared" / "a", b"old")
    found = set()
    for _ in deaths(tmp_path / "prepared", tmp_path / "run", lambda f: durable.write_file(f / "a", b"new" * 100)):
        found.add((tmp_path / "run" / "a").read_bytes())
        durable.sweep_temporary(tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["a"]
    assert found == {b"old", b"new" * 100}


def test_a_process_that_dies_anywhere_in_replacing_a_folder_leaves_the_old_or_the_new(
    replaced: Path, tmp_path: Path
) -> None:
    places = {place: content(tmp_path / "run") for place in deaths(replaced, tmp_path / "run", write_new)}
    assert set(places.values()) == {b"old", b"new" * 100}
    assert len(places) > 20


def test_a_process_that_dies_anywhere_while_it_recovers_loses_nothing(replaced: Path, tmp_path: Path) -> None:
    (replaced / "f").rename(replaced / "replaced-f")
    (replaced / "tmp-1").mkdir()
    (replaced / "tmp-1" / "x").write_bytes(b"half")

    def recover(folder: Path) -> None:
        durable.put_back(folder)
        durable.sweep_temporary(folder)
        write_new(folder)

    places = {place: content(tmp_path / "run") for place in deaths(replaced, tmp_path / "run", recover)}
    assert set(places.values()) == {b"old", b"new" * 100}


@pytest.mark.parametrize("broken", ["removed first", "written in place"])
def test_without_the_protocol_neither_is_left(
    broken: str, replaced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test before the last: how folders were replaced here once, as many programs do."""

    def remove_first(temporary: Path, path: Path) -> None:
        shutil.rmtree(path)
        os.rename(temporary, path)

    def write_in_place(path: Path, files: Mapping[str, bytes]) -> None:
        for name, data in {**files, durable.MANIFEST: json.dumps(durable._manifest(files)).encode()}.items():
            (path / name).write_bytes(data)

    if broken == "removed first":
        monkeypatch.setattr(durable, "_put_in_place", remove_first)
    else:
        monkeypatch.setattr(durable, "write_folder", write_in_place)
    found = {content(tmp_path / "run") for _ in deaths(replaced, tmp_path / "run", write_new)}
    assert None in found


def test_a_process_that_dies_anywhere_in_a_save_leaves_the_newest_checkpoint_or_the_one_before(tmp_path: Path) -> None:
    """Two checkpoints, a third of a step that comes anew, and one of the same step once more is known of it."""
    state = training(tmp_path / "toy", settings(average="none")).state
    run = RunFolder(tmp_path / "prepared")
    for state.step in (1, 2):
        checkpoint.save(run.checkpoints, state, OFFSETS)

    def save_twice(folder: Path) -> None:
        for state.validated in (0, 3):
            state.step = 3
            checkpoint.save(folder / "checkpoints", state, OFFSETS)

    found = set()
    for number, place in enumerate(deaths(run.path, tmp_path / "run", save_twice)):
        with RunFolder(tmp_path / "run").lock():
            path, skipped = checkpoint.newest_valid(tmp_path / "run" / "checkpoints")
        assert path is not None
        assert not skipped, place
        numbers = json.loads((path / "state.json").read_bytes())
        found.add((numbers["step"], numbers["validated"]))
        if number % 10 == 0:  # the next save leaves nothing else
            save_twice(tmp_path / "run")
            names = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
            assert names == ["step-000002", "step-000003"]
    assert found == {(2, 0), (3, 0), (3, 3)}


def test_a_log_is_on_the_disk_before_the_checkpoint_that_records_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = training(tmp_path / "run", settings(log_every=1))
    one.logs["history"].append({"step": 1})
    with watched(tmp_path / "run", nothing) as seen:
        one.save()
    names = [(operation.name, operation.path.partition("/")[0]) for operation in seen]
    assert names.index(("fsync", "history.jsonl")) < names.index(("rename", "checkpoints"))


def short_campaign(tmp_path: Path, *words: str) -> tuple[int, dict[str, Any]]:
    out = tmp_path / "totals.jsonl"
    command = [sys.executable, "-W", "error", str(CAMPAIGNS / "crash.py"), "--out", str(out), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert out.exists(), done.stderr
    return done.returncode, json.loads(out.read_text())


def test_forty_kills_at_random_times_and_some_at_chosen_places_leave_runs_that_end_with_equal_bits(
    tmp_path: Path,
) -> None:
    """The short form of `make crash`."""
    code, totals = short_campaign(tmp_path, "--kills", "40", "--stride", "24")
    assert (code, totals["broken"]) == (0, [])
    assert totals["kills"] >= 40
    assert totals["resumed"] > totals["runs"]
    assert totals["most_steps_lost"] <= 2
    assert totals["places"] > 5
    assert totals["not_reached"] <= 2


def test_kills_find_checkpoints_that_are_written_in_place(tmp_path: Path) -> None:
    """The negative control of the campaign."""
    code, totals = short_campaign(tmp_path, "--kills", "30", "--stride", "0", "--control", "torn")
    assert code == 1
    assert any("cannot be resumed, with exit code 4" in told for told in totals["broken"])


def test_operations_are_numbered_and_halves_of_writes_are_seen(tmp_path: Path) -> None:
    seen: list[tuple[Operation, str]] = []
    with watched(tmp_path, lambda operation, moment: seen.append((operation, moment))):
        (tmp_path / "a").write_bytes(b"1234")
        (tmp_path / "a").unlink()
    assert [(o.number, o.name, moment) for o, moment in seen] == [
        (0, "open", "before"), (0, "open", "after"),
        (1, "write", "before"), (1, "write", "half"), (1, "write", "after"),
        (2, "unlink", "before"), (2, "unlink", "after"),
    ]  # fmt: skip
