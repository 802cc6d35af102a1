"""train and evaluate as torchrun starts them: one voice, one writer, every photo once; another number of them (T11).

Two starts: of 2 processes, one of which is asked to stop, and of 4, which go on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from plusx.cli.run import run as cli
from plusx.data.loader import Batches, deal
from plusx.errors import UsageError
from plusx.run_folder import RunFolder
from plusx.training.world import ALONE, World
from plusx.verbs import together
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.training import several
from tests.verbs.conftest import QUICK, SETS, fill

PHOTOS = {"lying": 31, "standing": 30}  # a number that does not divide
WANTED = QUICK | {"epochs": 2, "split": "60/20/20"}
PROGRAM = """
import sys
from tests.verbs.test_several import main
main(*sys.argv[1:])
"""


def main(out: str, *words: str) -> None:
    """One process: the command line, its batches told in OUT/order-RANK-SIZE, and asked to stop after step 4."""
    rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    told = (Path(out) / f"order-{rank}-{size}").open("a")
    real = Batches.batch

    def batch(self: Batches, step: int) -> Any:
        found = real(self, step)
        print(step, len(found.images), *found.indices.tolist(), file=told, flush=True)
        if "--stop" in words and rank == "1" and step == 3:
            several.ask_to_stop()
        return found

    Batches.batch = batch  # type: ignore[method-assign]
    several.heed_stops()
    lines = " ".join(word for word in words if word != "--stop").replace("RANK", rank).split(" then ")
    for line, port in zip(lines, os.environ["PORTS"].split(), strict=False):
        os.environ["MASTER_PORT"] = port  # every command line is a meeting of its own
        code = cli(line.split())
        print("exit", code, flush=True)
        if dist.is_initialized():  # a process that ends with an error leaves its group as it is
            dist.destroy_process_group()
    told.close()


def start(out: Path, size: int, line: str) -> list[tuple[list[str], str]]:
    """What each of `size` processes wrote to stdout and stderr for the command lines, joined by "then".

    RANK within them is that of each process.
    """
    ports = " ".join(str(several.free_port()) for _ in range(1 + line.count(" then ")))
    processes = []
    for rank in range(size):
        environment = several.environment(rank, size, 0) | {"PORTS": ports}
        words = [sys.executable, "-W", "error", "-c", PROGRAM, str(out), *line.split()]
        with (out / f"out-{rank}-{size}").open("w") as stdout, (out / f"err-{rank}-{size}").open("w") as stderr:
            processes.append(subprocess.Popen(words, env=environment, stdout=stdout, stderr=stderr))
    try:
        for process in processes:
            process.wait(300)
    finally:
        several.end(processes)
    read = [[(out / f"{name}-{rank}-{size}").read_text() for name in ("out", "err")] for rank in range(size)]
    return [(words.splitlines(), faults) for words, faults in read]


def flags() -> str:
    named = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in WANTED.items())
    return f"{named} {' '.join(f'--set {text}' for text in SETS)}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of one, one that 2 began and was stopped, and what 4 made of it; what was said on the way."""
    out = tmp_path_factory.mktemp("several")
    data = fill(out / "stripes", PHOTOS)
    (out / "stripes/lying/broken.jpg").write_bytes(b"no photo")
    first = (
        f"check {data} then train {data} {flags()} then train {data} {flags()} --seeds 2 --out {out / 'seeds'} then "
        f"train {data} {flags()} --set rank_seconds=6RANK --out {out / 'other'} then "
        f"train {data} {flags()} --skip-bad --out {out / 'cut'}"
    )
    two = start(out, 2, f"--stop {first}")
    assert (out / "cut").exists(), two
    shutil.copytree(out / "cut", out / "one")
    four = start(out, 4, f"train --resume --out {out / 'cut'} then evaluate {out / 'cut'} --json")
    return out, data, two, four


def test_what_several_processes_cannot_do_is_refused_by_one_sentence(world: Any) -> None:
    _, _, two, _ = world
    (out, err), (quiet_out, quiet_err) = two
    assert [line for line in out if line.startswith("exit")] == [*4 * ["exit 2"], "exit 75"]
    told = [line for line in err.splitlines() if line.startswith("plusx: ")]
    assert told[:4] == [
        "plusx: check is done by one process, and torchrun has started 2; start it without torchrun, or with "
        "--nproc-per-node 1. train and evaluate take several.",
        "plusx: 2 processes train together, so --out is needed: it is where the job goes on when it is started again.",
        "plusx: --seeds trains its runs in one process, and torchrun has started 2; give each seed a torchrun of its "
        "own, with --seed, --set split_seed=... and --out.",
        "plusx: Rank 1 of 2 has rank_seconds 61.0 where rank 0 has 60.0; every machine needs the same command line, "
        "the same files and the same plusx.",
    ]
    assert quiet_out == [*4 * ["exit 2"], "exit 75"]
    assert quiet_err == ""


def test_a_run_of_two_goes_on_with_one_and_with_four_in_the_same_order_and_says_so(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T11: the hash of the indices, step by step, is that of one process; each photo once an epoch; marked for good."""
    out, data, two, four = world
    assert f"Stopped after step 4; everything is in {out / 'cut'}" in two[0][1]
    assert [code for said, _ in four for code in said if code.startswith("exit")] == ["exit 0"] * 8
    notice = (
        "The run was trained by 2 processes and goes on after step 4 with {}: with the same photos in the same order, "
        "but sums are rounded in another order, so its result is not bit-exact."
    )
    assert notice.format(4) in four[0][1]
    events: list[Any] = []
    trained = train([], Wish(out=out / "one", resume=True), on_event=events.append)
    assert notice.format(1) in [getattr(event, "text", "") for event in events]
    used = [{"step": 0, "processes": 2}, {"step": 4, "processes": 1}]
    assert trained.metrics["changed_processes"] == used
    assert json.loads((out / "cut/metrics.json").read_text())["changed_processes"] == [
        used[0],
        {**used[1], "processes": 4},
    ]
    assert "not bit-exact: trained by 2 processes, after step 4 by 4" in four[0][0]
    whole = _order_of_one(data, out / "alone", monkeypatch)
    assert _hashes(out, 2) == whole[:4]
    assert _hashes(out, 4) == whole[4:]


def _order_of_one(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    order: dict[int, str] = {}
    real = Batches.batch

    def batch(self: Batches, step: int) -> Any:
        found = real(self, step)
        order[step] = hashlib.sha256(" ".join(map(str, found.indices)).encode()).hexdigest()
        return found

    monkeypatch.setattr(Batches, "batch", batch)
    train([str(data)], Wish(WANTED | {"skip_bad": True}, SETS, out=out))
    return list(order.values())


def _hashes(out: Path, size: int) -> list[str]:
    """The hash of the photos of every step, in all processes the same; that of the last time the step was computed."""
    found = []
    for rank in range(size):
        lines = {line.split()[0]: line.split()[1:] for line in (out / f"order-{rank}-{size}").read_text().splitlines()}
        for count, *indices in lines.values():
            assert int(count) == len(deal(len(indices), size)[rank])
        found.append([hashlib.sha256(" ".join(indices).encode()).hexdigest() for _, *indices in lines.values()])
    assert all(one == found[0] for one in found)
    return found[0]


def test_evaluation_counts_every_photo_once_and_a_bad_one_where_it_fell(world: Any, capsys: Any) -> None:
    out, _, _, four = world
    said, quiet = four[0][0], [line for stdout, _ in four[1:] for line in stdout]
    document = json.loads("\n".join(said[said.index("{") : said.index("}") + 1]))
    assert cli(["evaluate", str(out / "cut"), "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    for name in ("n", "accuracy", "confusion", "skipped", "left_out", "data_fingerprint"):
        assert document[name] == alone[name], name
    assert document["log_loss"] == pytest.approx(alone["log_loss"], rel=1e-5)
    assert quiet == ["exit 0"] * 6
    assert [stderr for _, stderr in four[1:]] == ["", "", ""]


def test_a_job_that_torchrun_starts_again_goes_on_and_another_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").touch()
    RunFolder(out).write("run", {"data": [], "job": "today"})
    two, wish = World(0, 2), Wish(out=out)
    monkeypatch.setattr(World, "once", lambda _, do: do())
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # what every job is called that has no --rdzv-id
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not together.wished(wish, two).resume  # without a store of torchrun there is no job
    monkeypatch.setattr(World, "job", lambda _: "today")
    assert together.wished(wish, two).resume
    assert not together.wished(wish, ALONE).resume
    monkeypatch.setattr(World, "job", lambda _: "another day")
    assert not together.wished(wish, two).resume
    (out / "config.yaml").unlink()  # it was stopped before the run was one
    with pytest.raises(UsageError):
        together.refuse_folder(out, two)
    monkeypatch.setattr(World, "job", lambda _: "today")
    together.refuse_folder(out, two)


def test_a_run_remembers_by_how_many_it_was_trained(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write("environment", {"processes": 2})
    assert together.resumed(World(0, 2), run, 5) is None
    assert together.facts(run) == []
    assert together.resumed(World(0, 3), run, 0) is None  # nothing was trained by two
    assert together.used(run) == [{"step": 0, "processes": 3}]
    assert together.resumed(ALONE, run, 7) is not None
    assert together.resumed(ALONE, run, 9) is None
    assert together.facts(run) == [{"step": 0, "processes": 3}, {"step": 7, "processes": 1}]
