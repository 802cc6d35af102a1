"""The pool: every source gets its answer, whatever happens to the process that worked on it."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plusx.errors import RunError
from plusx.images.decode import BadPhoto, Facts, Undecodable
from plusx.images.pool import QUEUE, DecodePool, Source, _quota, usable_cpus, worker_command
from plusx.images.preprocess import Preprocess
from plusx.images.source import read
from plusx.images.worker import LENGTHS, message
from tests.images.heic import heic
from tests.images.hostile import HOSTILE

RULE = Preprocess(24, 16)


def hostile(rule: Preprocess = RULE, workers: int = 2, seconds: float = 20.0) -> DecodePool:
    return DecodePool(rule, workers, seconds, command=HOSTILE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(60):
        values = rng.integers(0, 256, (30 + i, 40, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / f"{i:03}.jpg")
    return tmp_path


def sources(folder: Path) -> list[Source]:
    return [Source(str(path)) for path in sorted(folder.iterdir())]


def put(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)


def outcome(pool: DecodePool, work: list[Source]) -> dict[int, Any]:
    found = list(pool.map(work))
    assert sorted(index for index, _ in found) == list(range(len(work)))
    return dict(found)


def bad(results: dict[int, Any]) -> dict[int, str]:
    return {index: result.code for index, result in results.items() if isinstance(result, BadPhoto)}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_number_of_workers_gives_the_same_pixels(folder: Path, workers: int) -> None:
    with DecodePool(RULE, workers) as pool:
        results = outcome(pool, sources(folder))
    for index, source in enumerate(sources(folder)):
        pixels = results[index]
        assert isinstance(pixels, np.ndarray)
        assert np.array_equal(pixels, RULE.from_bytes(Path(source.file).read_bytes()))


def test_a_pool_serves_one_map_after_another_with_the_same_processes(folder: Path) -> None:
    with DecodePool(RULE, 2) as pool:
        outcome(pool, sources(folder))
        before = [member._process.pid for member in pool._crew]
        outcome(pool, sources(folder))
        assert [member._process.pid for member in pool._crew] == before


def test_an_empty_list_starts_no_process() -> None:
    with DecodePool(RULE, 2) as pool:
        assert list(pool.map([])) == []
        assert pool._crew == []


def test_members_of_a_tar_are_read_in_place(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "shard.tar"
    with tarfile.open(archive, "w") as file:
        file.add(folder / "007.jpg", "cat/7.jpg")
    with tarfile.open(archive) as file:
        member = file.getmembers()[0]
    with DecodePool(RULE, 1) as pool:
        ((_, pixels), (_, cut)) = sorted(
            pool.map([Source(str(archive), member.offset_data, member.size), Source(str(archive), 0, 10**6)]),
            key=lambda pair: pair[0],
        )
    assert isinstance(pixels, np.ndarray)
    assert np.array_equal(pixels, RULE.from_bytes((folder / "007.jpg").read_bytes()))
    assert isinstance(cut, BadPhoto)
    assert cut.code == "truncated"


def test_a_worker_that_dies_costs_one_photo(folder: Path) -> None:
    """T31."""
    put(folder, "010.jpg", b"DIE")
    with hostile(workers=1) as pool:
        results = outcome(pool, sources(folder))
    assert bad(results) == {10: "worker-died"}
    assert results[10].reason.startswith("the process that was decoding it ended suddenly")


def test_many_deaths_cost_exactly_their_photos(folder: Path) -> None:
    """T31."""
    for i in (0, 1, 17, 30, 59):
        put(folder, f"{i:03}.jpg", b"DIE")
    with hostile(workers=2) as pool:
        assert bad(outcome(pool, sources(folder))) == dict.fromkeys((0, 1, 17, 30, 59), "worker-died")


@pytest.mark.parametrize("how", [b"SPIN", b"SLEEP"])
def test_a_photo_over_its_time_is_stopped_alone(folder: Path, how: bytes) -> None:
    """T31; that nobody else stops it, tests/images/test_protections.py shows."""
    put(folder, "005.jpg", how)
    with hostile(workers=2, seconds=1.5) as pool:
        results = outcome(pool, sources(folder))
    assert bad(results) == {5: "timeout"}
    assert results[5].reason == "decoding took more than 1.5 s and was stopped; remove it or save it anew"


def test_a_consumer_that_pauses_makes_no_worker_late(folder: Path) -> None:
    with DecodePool(RULE, 2, seconds=1.0) as pool:
        list(pool.map(sources(folder)))
        before = [member._process.pid for member in pool._crew]
        found = []
        for count, pair in enumerate(pool.map(sources(folder))):
            found.append(pair)
            if count in (0, 20):
                time.sleep(1.5)
        assert [member._process.pid for member in pool._crew] == before
    assert bad(dict(found)) == {}


@pytest.mark.parametrize(
    "words",
    [
        LENGTHS.pack(2**32 - 1, 0),  # would have the parent wait for 4 GB of header
        LENGTHS.pack(2, 2**32 - 1),  # and of pixels
        message({"index": 999}, bytes(16 * 16 * 3)),  # a photo that is not its own
        message({"index": 3}, b"abc"),  # too few pixels
        message([3], bytes(16 * 16 * 3)),
        message({"index": 3, "code": "fine", "reason": "x"}),
        message({"index": 3, "code": "empty", "reason": 1}),
        message({"index": 3, "facts": {}}),  # facts where pixels are due
        LENGTHS.pack(4, 0) + b"\x80\x04N.",  # a pickle
        LENGTHS.pack(0x8000, 0) + b"[" * 0x8000,  # deeper than the parser goes
    ],
)
def test_a_worker_that_speaks_nonsense_is_not_believed(folder: Path, words: bytes) -> None:
    put(folder, "003.jpg", b"RAW" + words)
    with hostile(workers=2, seconds=10) as pool:
        assert bad(outcome(pool, sources(folder))) == {3: "worker-died"}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_survey_gives_the_facts_of_every_photo(folder: Path, workers: int) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("L", (50, 20)).save(folder / "001.jpg", exif=turned)
    blue = [Image.new("RGB", (9, 8), "blue")]
    Image.new("RGB", (9, 8), "red").save(folder / "002.jpg", "GIF", save_all=True, append_images=blue)
    put(folder, "003.jpg", (folder / "003.jpg").read_bytes()[:-400])  # its headers are whole
    with DecodePool(RULE, workers) as pool:
        found = dict(pool.survey(sources(folder)))
        results = outcome(pool, sources(folder))  # the same processes give pixels again
    assert bad(found) == bad(results) == {3: "truncated"}
    assert found[1].facts == Facts("JPEG", "L", 50, 20, 1, 6, False)
    assert found[2].facts == Facts("GIF", "P", 9, 8, 2, 1, False)
    assert found[7].facts == Facts("JPEG", "RGB", 40, 37, 1, 1, False)
    assert (found[1].contrast, found[2].contrast) == (0, 0)
    assert found[7].contrast > 0
    assert all(np.array_equal(found[i].pixels, results[i]) for i in found if i != 3)
    assert len(found) == 60


def test_a_heic_is_decoded_by_a_worker(folder: Path) -> None:
    pytest.importorskip("pi_heif")
    data = heic(np.full((32, 48), 90, np.uint8))
    put(folder, "000.jpg", data)
    with DecodePool(RULE, 1) as pool:
        ((_, pixels),) = pool.map(sources(folder)[:1])
        ((_, facts),) = pool.survey(sources(folder)[:1])
    assert np.array_equal(pixels, RULE.from_bytes(data))
    assert facts.facts == Facts("HEIC", "RGB", 48, 32, 1, 1, False)


PIXELS = bytes(16 * 16 * 3)
FACTS = {"format": "JPEG", "mode": "RGB", "width": 40, "height": 33, "frames": 1, "orientation": 1, "alpha": False}


@pytest.mark.parametrize(
    "stated",
    [
        {**FACTS, "width": 0},
        {**FACTS, "width": 40.0},
        {**FACTS, "width": True},
        {**FACTS, "height": "33"},
        {**FACTS, "width": 8001, "height": 8000},
        {**FACTS, "frames": -1},
        {**FACTS, "frames": 10**12},
        {**FACTS, "orientation": 9},
        {**FACTS, "format": "EXE"},
        {**FACTS, "format": ["JPEG"]},
        {**FACTS, "mode": 3},
        {**FACTS, "mode": "\x1b[31m"},
        {**FACTS, "alpha": 1},
        {**FACTS, "place": "Paris"},
        {name: FACTS[name] for name in list(FACTS)[1:]},
        list(FACTS.values()),
        None,
    ],
)
def test_facts_that_make_no_sense_are_not_believed(folder: Path, stated: Any) -> None:
    put(folder, "003.jpg", b"RAW" + message({"index": 3, "facts": stated, "contrast": 9}, PIXELS))
    with hostile(workers=1, seconds=10) as pool:
        assert bad(dict(pool.survey(sources(folder)[:6]))) == {3: "worker-died"}


@pytest.mark.parametrize(
    ("contrast", "payload", "believed"),
    [(9, PIXELS, True), (9, b"", False), (9, PIXELS[1:], False), (256, PIXELS, False), ("9", PIXELS, False)],
)
def test_facts_are_believed_with_a_contrast_and_all_pixels(
    folder: Path, contrast: object, payload: bytes, believed: bool
) -> None:
    put(folder, "003.jpg", b"RAW" + message({"index": 3, "facts": FACTS, "contrast": contrast}, payload))
    with hostile(workers=1, seconds=3) as pool:
        found = dict(pool.survey(sources(folder)[:4]))
    assert (getattr(found[3], "facts", None) == Facts(**FACTS)) is believed


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_a_photo_that_eats_memory_is_refused(folder: Path) -> None:
    """D13; what it would cost without the limit, tests/images/test_protections.py shows."""
    put(folder, "003.jpg", b"EAT")
    with hostile(workers=1) as pool:
        assert bad(outcome(pool, sources(folder))) == {3: "too-large"}


def test_a_worker_loads_no_torch_and_no_pydantic(folder: Path) -> None:
    put(folder, "000.jpg", b"MODULES")
    with hostile(workers=1) as pool:
        ((_, answer),) = pool.map(sources(folder)[:1])
    assert isinstance(answer, BadPhoto)
    loaded = set(answer.reason.split())
    assert {"PIL.Image", "numpy"} <= loaded
    assert not loaded & {"torch", "torchvision", "pydantic", "scipy"}


def test_bad_files_are_answered_without_blocking(folder: Path) -> None:
    """D17."""
    os.mkfifo(folder / "a-pipe.jpg")
    (folder / "a-folder.jpg").mkdir()
    names = ["a-pipe.jpg", "a-folder.jpg", "gone.jpg", "/dev/zero", "zero\0byte.jpg"]
    with DecodePool(RULE, 1, seconds=5) as pool:
        results = outcome(pool, [Source(os.path.join(folder, name)) for name in names])
    reasons = [result.reason for _, result in sorted(results.items()) if isinstance(result, BadPhoto)]
    assert set(bad(results).values()) == {"unreadable"}
    assert reasons[0] == "this is a named pipe, not a regular file; name a photo, or remove it"
    assert reasons[1] == "this is a folder, not a regular file; name a photo, or remove it"
    missing = "the file could not be read (No such file or directory); check that it is there and may be read"
    assert reasons[2] == missing
    assert reasons[3].startswith("this is a device")


def test_a_name_that_is_not_unicode_is_found(folder: Path) -> None:
    """D15."""
    name = os.fsencode(folder) + b"/caf\xe9.jpg"
    try:
        os.link(folder / "000.jpg", name)
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    with DecodePool(RULE, 1) as pool:
        ((_, answer),) = pool.map([Source(os.fsdecode(name))])
    assert isinstance(answer, np.ndarray)


def test_sources_are_read_only_as_needed(folder: Path) -> None:
    taken = 0

    def endless() -> Iterator[Source]:
        nonlocal taken
        while True:
            taken += 1
            yield Source(str(folder / "000.jpg"))

    with DecodePool(RULE, 2) as pool:
        results = pool.map(endless())
        for count, _ in enumerate(itertools.islice(results, 200)):
            assert taken <= count + 4 * QUEUE
        results.close()  # type: ignore[attr-defined] # a generator, called an iterator
        ((index, answer),) = pool.map([Source(str(folder / "001.jpg"))])  # an abandoned map leaves nothing behind
    assert index == 0
    assert np.array_equal(answer, RULE.from_bytes((folder / "001.jpg").read_bytes()))


def test_large_answers_pass_through_small_pipes(folder: Path) -> None:
    with DecodePool(Preprocess(900, 900), 2) as pool:
        results = outcome(pool, sources(folder)[:12])
    assert bad(results) == {}


def test_processes_that_do_not_start_are_one_sentence(folder: Path) -> None:
    with (
        DecodePool(RULE, 2, command=(sys.executable, "-c", "raise SystemExit('no Pillow here')")) as pool,
        pytest.raises(RunError) as caught,
    ):
        list(pool.map(sources(folder)))
    assert str(caught.value) == (
        "The processes that decode photos do not start (no Pillow here); "
        "check this Python's installation of Pillow and NumPy, or use --set workers=0."
    )


def test_the_current_folder_cannot_shadow_a_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, "PIL.py", b"raise SystemExit('shadowed')")
    put(folder, "json.py", b"raise SystemExit('shadowed')")
    monkeypatch.chdir(folder)
    with DecodePool(RULE, 1) as pool:
        ((_, answer),) = pool.map([Source("000.jpg")])
    assert isinstance(answer, np.ndarray)


def test_workers_end_when_their_parent_is_killed(folder: Path) -> None:
    code = (
        "import sys, os, signal; sys.path.insert(0, sys.argv[1])\n"
        "from plusx.images.pool import DecodePool, Source; from plusx.images.preprocess import Preprocess\n"
        "pool = DecodePool(Preprocess(8, 8), 2); list(pool.map([Source(sys.argv[2])] * 20))\n"
        "print(*[m._process.pid for m in pool._crew], flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parents[2]), str(folder / "000.jpg")],
        capture_output=True,
        text=True,
    )
    pids = [int(word) for word in ran.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in pids)


def test_ctrl_c_in_the_terminal_does_not_reach_a_worker(folder: Path) -> None:
    with DecodePool(RULE, 1) as pool:
        list(pool.map(sources(folder)[:1]))
        pid = pool._crew[0]._process.pid
        assert os.getsid(pid) == pid != os.getsid(0)
        os.kill(pid, 2)
        assert bad(outcome(pool, sources(folder))) == {}
        assert pool._crew[0]._process.pid == pid


def test_a_worker_killed_between_two_maps_costs_nothing(folder: Path) -> None:
    with DecodePool(RULE, 1) as pool:
        list(pool.map(sources(folder)[:1]))
        process = pool._crew[0]._process
        process.kill()
        process.wait()
        assert bad(outcome(pool, sources(folder))) == {}


def test_closing_leaves_no_process(folder: Path) -> None:
    with DecodePool(RULE, 2) as pool:
        list(pool.map(sources(folder)))
        processes = [member._process for member in pool._crew]
    assert processes
    assert all(process.poll() is not None for process in processes)


def test_read_gives_the_named_stretch(tmp_path: Path) -> None:
    put(tmp_path, "a", b"0123456789")
    assert read(Source(str(tmp_path / "a"), 2, 3)) == b"234"
    assert read(Source(str(tmp_path / "a"), 7)) == b"789"
    with pytest.raises(Undecodable, match="20 bytes were expected and 8 are there"):
        read(Source(str(tmp_path / "a"), 2, 20))


def test_read_stops_where_it_is_told(tmp_path: Path) -> None:
    put(tmp_path, "a", b"0123456789")
    assert read(Source(str(tmp_path / "a")), 4) == b"0123"
    assert read(Source(str(tmp_path / "a"), 7), 4) == b"789"
    assert read(Source(str(tmp_path / "a"), 2, 3), 4) == b"234"


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    """D13."""
    with open(tmp_path / "a", "wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(Undecodable, match="the file has 5,369 MB and at most 1,074 MB are read") as caught:
        read(Source(str(tmp_path / "a")))
    assert caught.value.code == "too-large"


def test_there_is_a_worker_for_each_cpu_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 3, 5}, raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)  # Python 3.13 asks itself
    monkeypatch.setattr("plusx.images.pool._quota", lambda _cgroup: None)
    assert usable_cpus() == 3
    assert DecodePool(RULE).workers == 3
    assert DecodePool(RULE, 0).workers == 0
    monkeypatch.setattr("plusx.images.pool._quota", lambda _cgroup: 2)
    assert usable_cpus() == 2


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "1000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_a_containers_limit_is_counted_in_cpus(files: dict[str, str], cpus: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert _quota(tmp_path) == cpus


def test_the_worker_command_is_this_interpreter() -> None:
    assert worker_command()[0] == sys.executable


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        if os.path.isdir("/proc"):
            return False
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(listed) and not listed.startswith("Z")


def test_a_photo_written_to_memory_needs_no_file() -> None:
    file = io.BytesIO()
    Image.new("RGB", (30, 30)).save(file, "PNG")
    assert RULE.from_bytes(file.getvalue()).shape == (16, 16, 3)


def last_words() -> str:
    """What is told of a worker that ends with a complaint."""
    pool = DecodePool(RULE, 1, command=(sys.executable, "-c", "import sys; sys.exit('no room at the inn')"))
    with pytest.raises(RunError) as caught:
        list(pool.map([Source("a.jpg")]))
    return str(caught.value)


def test_what_a_worker_complains_of_needs_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "memfd_create"):
        pytest.skip("this system has no files in memory")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: pytest.fail("a file on a disk was made"))
    assert "no room at the inn" in last_words()


def test_without_files_in_memory_complaints_lie_in_a_temporary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    assert "no room at the inn" in last_words()
