"""Files that are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plusx import durable
from plusx.errors import DiskError


def test_a_file_is_replaced_whole_and_leaves_nothing_behind(tmp_path: Path) -> None:
    durable.write_file(tmp_path / "a", b"old")
    durable.write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_full_disk_costs_neither_the_old_file_nor_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    durable.write_file(tmp_path / "a", b"old")
    monkeypatch.setattr(os, operation, full_disk)
    with pytest.raises(DiskError) as caught:
        durable.write_file(tmp_path / "a", b"new")
    assert caught.value.message == (
        f"Could not write {tmp_path / 'a'}: No space left on device; "
        "free some space or choose another folder with --out."
    )
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_an_undamaged_folder_has_no_fault(tmp_path: Path) -> None:
    durable.write_folder(tmp_path / "f", {"x": b"123", "y": b""})
    assert durable.folder_fault(tmp_path / "f") is None


def test_every_flipped_bit_and_every_truncation_shows(tmp_path: Path) -> None:
    data = b"0123456789abcdef"
    durable.write_folder(tmp_path / "f", {"x": data})
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "f" / "x").write_bytes(damaged)
        assert durable.folder_fault(tmp_path / "f") == "x has other bytes than were written"
    for length in range(len(data)):
        (tmp_path / "f" / "x").write_bytes(data[:length])
        assert durable.folder_fault(tmp_path / "f") == "x has another size than was written"


def test_a_missing_file_and_a_damaged_manifest_show(tmp_path: Path) -> None:
    durable.write_folder(tmp_path / "f", {"x": b"1"})
    (tmp_path / "f" / "x").unlink()
    assert durable.folder_fault(tmp_path / "f") == "x is not there"
    (tmp_path / "f" / "manifest.json").write_bytes(b"{}")
    assert durable.folder_fault(tmp_path / "f") == "manifest.json is damaged"


def test_a_log_is_cut_back_to_a_recorded_length(tmp_path: Path) -> None:
    log = durable.Log(tmp_path / "log")
    log.append({"step": 1})
    offset = log.offset()
    log.append({"step": 2})
    log.truncate(offset)
    log.append({"step": 3})
    assert [r["step"] for r in log.records()] == [1, 3]


def test_a_line_cut_off_by_a_crash_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"step": 1}\n{"ste')
    assert list(durable.Log(tmp_path / "log").records()) == [{"step": 1}]


def test_a_line_that_a_full_disk_refuses_waits_and_is_written_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T19: half a line on the disk is cut off before another is written, and no length is told while lines wait."""
    log = durable.Log(tmp_path / "log")
    log.append({"step": 1})

    def half(file: Any, data: bytes) -> None:
        file.write(data[: len(data) // 2])
        full_disk()

    with monkeypatch.context() as patch:
        patch.setattr(durable, "_write_all", half)
        for step in (2, 3):
            with pytest.raises(DiskError, match=r"log: No space left on device"):
                log.append({"step": step})
        with pytest.raises(DiskError):
            log.offset()
        assert log.waiting == 2
    assert (tmp_path / "log").read_bytes() == b'{"step": 1}\n{"step'
    log.append({"step": 4})
    assert (log.waiting, [r["step"] for r in log.records()]) == (0, [1, 2, 3, 4])
    assert log.offset() == (tmp_path / "log").stat().st_size


def test_a_line_is_not_glued_to_one_that_a_dead_process_left_torn(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"step": 1}\n{"ste')
    log = durable.Log(tmp_path / "log")
    log.append({"step": 2})
    assert [r["step"] for r in log.records()] == [1, 2]


def test_a_log_that_has_become_shorter_keeps_its_whole_lines_and_gets_no_zeros(tmp_path: Path) -> None:
    log = durable.Log(tmp_path / "log")
    assert log.truncate(0)
    assert not log.truncate(10)
    (tmp_path / "log").write_bytes(b'{"step": 1}\n{"ste')
    assert not log.truncate(100)
    assert (tmp_path / "log").read_bytes() == b'{"step": 1}\n'
    assert log.truncate(0)
    assert (tmp_path / "log").read_bytes() == b""


def test_a_folder_is_replaced_and_one_that_cannot_be_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durable.write_folder(tmp_path / "f", {"x": b"old"})
    real = os.rename

    def refuse(source: Any, target: Any) -> None:
        if Path(source).name.startswith("tmp-"):
            full_disk()
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        with pytest.raises(DiskError):
            durable.write_folder(tmp_path / "f", {"x": b"new"})
    assert (tmp_path / "f" / "x").read_bytes() == b"old"
    durable.write_folder(tmp_path / "f", {"x": b"new"})
    assert (tmp_path / "f" / "x").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_folder_that_stepped_aside_in_a_crash_gets_its_name_back_unless_the_new_one_is_there(tmp_path: Path) -> None:
    durable.write_folder(tmp_path / "f", {"x": b"old"})
    (tmp_path / "f").rename(tmp_path / "replaced-f")
    durable.put_back(tmp_path)
    assert (tmp_path / "f" / "x").read_bytes() == b"old"
    durable.write_folder(tmp_path / "replaced-f", {"x": b"older"})
    durable.put_back(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_an_interrupt_leaves_no_temporary_file_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        durable.write_file(tmp_path / "a", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_files_that_is_full_is_not_called_a_lack_of_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T27: `df` shows free bytes then, and freeing some would not help."""
    fields = list(os.statvfs(tmp_path))
    fields[4:8] = [1000, 100, 0, 0]  # free blocks, and of 100 files none
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DiskError) as caught:
        durable.write_file(tmp_path / "a", b"new")
    assert caught.value.message == (
        f"Could not write {tmp_path / 'a'}: the file system holds as many files as it can, though bytes are free; "
        "remove some files or choose another folder with --out."
    )


def test_new_folders_are_synced_into_those_above_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(durable, "sync_folder", synced.append)
    durable.make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path / "a", tmp_path]
    durable.make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2


def test_a_folder_that_is_replaced_by_another_has_another_identity(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    before = durable.identity(tmp_path / "a")
    assert not durable.replaced(tmp_path / "a", before)
    (tmp_path / "a").rmdir()
    assert durable.identity(tmp_path / "a") is None
    assert durable.replaced(tmp_path / "a", before)
    (tmp_path / "b").rename(tmp_path / "a")
    assert durable.identity(tmp_path / "a") not in (None, before)
    assert durable.replaced(tmp_path / "a", before)
    assert not durable.replaced(tmp_path / "a", None), "what it was is not known"


@pytest.mark.parametrize(
    ("codes", "gone"),
    [
        ([errno.EIO], False),
        ([errno.ESTALE], False),
        ([errno.EACCES], False),
        ([errno.ENOENT], False),  # for a moment
        ([errno.ENOENT, errno.ENOENT], True),
        ([errno.ENOTDIR, errno.ENOTDIR], True),
        ([errno.ENOENT, errno.EIO], False),
    ],
)
def test_a_folder_is_only_gone_where_the_file_system_says_so_twice(
    codes: list[int], gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T27: one glitch of a file system is no reason to end a run."""
    before, real, left = durable.identity(tmp_path), os.stat, list(codes)

    def stat(path: Any, *rest: Any, **others: Any) -> os.stat_result:
        if left:
            raise OSError(code := left.pop(0), os.strerror(code), str(path))
        return real(path, *rest, **others)

    monkeypatch.setattr(os, "stat", stat)
    found = durable.replaced(tmp_path, before)
    monkeypatch.undo()
    assert (found, left) == (gone, [])


HOLD = """
import sys, time
from pathlib import Path
from plusx.durable import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_refused_while_its_holder_lives_and_free_when_it_died(tmp_path: Path) -> None:
    """T26."""
    lock = tmp_path / "run.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(DiskError, match="is in use by another plusx process; wait for it to end"),
            durable.locked(lock),
        ):
            pass
        holder.kill()
        holder.wait()
    with durable.locked(lock):
        pass


def test_too_little_space_names_both_figures(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"MB free and 1,000,000,000,000 MB are needed; free some space"):
        durable.require_space(tmp_path / "not" / "there yet", 10**18)


def test_leftovers_are_swept(tmp_path: Path) -> None:
    (tmp_path / "tmp-1").mkdir()
    (tmp_path / "tmp-1" / "x").write_bytes(b"")
    (tmp_path / "tmp-2").write_bytes(b"")
    (tmp_path / "kept").write_bytes(b"")
    durable.sweep_temporary(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("lines", [[], ["a"], ["a", "", "ä"]])
def test_lines_have_the_hash_of_their_text(lines: list[str]) -> None:
    assert durable.sha256_lines(iter(lines)) == hashlib.sha256("\n".join(lines).encode()).hexdigest()
