"""The engine of Ray: equal to the local one row by row, with a worker killed while it has a block in hand."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from plusx.cli.run import run as cli
from plusx.durable import sha256_file
from plusx.errors import DiskError, Interrupted, ModelError, RunError, UsageError
from plusx.verbs import scoring_ray
from plusx.verbs.blocks import blocks_of
from plusx.verbs.scorer import Work
from plusx.verbs.scoring import Failure, Progress, Scoring, score
from plusx.verbs.scoring_ray import Actor
from tests.verbs import scored

SHARDS, EACH = 6, 120


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, photos of all kinds, and archives that keep an actor busy for a moment."""
    folder = tmp_path_factory.mktemp("scored")
    scored.model(folder / "model.safetensors")
    scored.world(folder / "photos")
    content = [scored.jpeg(number) for number in range(8)]
    for number in range(SHARDS):
        photos = {f"{i:04d}.jpg": content[(i + number) % 8] for i in range(EACH)}
        (folder / f"{number}.tar").write_bytes(scored.archive(photos))
    return folder


@pytest.fixture
def asked(made: Path, tmp_path: Path) -> Scoring:
    paths = (*scored.paths(made / "photos"), str(made / "*.tar"))
    return Scoring(made / "model.safetensors", paths, tmp_path / "parts", engine="ray", device="cpu")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cluster of two CPUs for all tests; gives what was the home folder while it ran."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setattr(scoring_ray, "usable_cpus", lambda: 2)
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        with scoring_ray._cluster(scoring_ray._ray()):
            assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
            yield home


class Killer(threading.Thread):
    """Kills whoever has a block in hand, once, as soon as a part is there."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self.out, self.killed, self.over = out, list[int](), threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.005) and not self.killed:
            if not list(self.out.glob("part-*")):
                continue
            for tried in self.out.glob("tmp-tried-*"):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    pid = int(tried.read_text().split()[-1])
                    os.kill(pid, signal.SIGKILL)
                    self.killed.append(pid)
                    return


def test_ray_answers_as_the_local_engine_though_a_worker_is_killed(
    asked: Scoring, cluster: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every bit of every column, and one row for each photo; whoever dies has a block in hand."""
    local = replace(asked, engine="local", out=tmp_path / "local")
    totals = score(local)
    heard: list[Progress] = []
    killer = Killer(asked.out)
    killer.start()
    try:
        made = score(asked, on_progress=heard.append)
    finally:
        killer.over.set()
        killer.join()
    assert len(killer.killed) == 1, "somebody had a block in hand"
    assert made.photos == totals.photos == SHARDS * EACH + 22
    assert (made.errors, made.blocks, made.written) == (3, SHARDS + 4, SHARDS + 4)
    names = sorted(path.name for path in local.out.glob("part-*"))
    assert names == sorted(path.name for path in asked.out.glob("part-*"))
    for name in names:
        assert pq.read_table(asked.out / name).equals(pq.read_table(local.out / name))
    assert not list(asked.out.glob("tmp-*"))
    assert heard[-1].done == SHARDS + 4
    assert [each.photos for each in heard] == sorted(each.photos for each in heard)
    assert not list(cluster.iterdir()), "nothing is written to the home folder"
    assert capfd.readouterr() == ("", ""), "Ray tells of the killed worker on stdout, otherwise"


def test_what_ray_began_the_local_engine_ends(
    asked: Scoring, cluster: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring_ray, "_crew", lambda *_: (1, 1, 0))  # one actor starts sooner than two

    def stop(progress: Progress) -> None:
        if progress.done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        score(asked, on_progress=stop)
    assert caught.value.exit_code == 75
    assert "of 10 blocks done. Continue with: plusx predict " in caught.value.message
    assert " --engine ray --device cpu --out " in caught.value.message
    there = len(list(asked.out.glob("part-*")))
    assert 3 <= there < SHARDS + 4
    words = ["predict", str(asked.model), *asked.paths, "--parquet", "--device", "cpu", "--out", str(asked.out)]
    assert cli([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] <= SHARDS + 4 - there


def test_a_block_that_kills_its_workers_is_given_up_and_the_others_are_made(asked: Scoring, tmp_path: Path) -> None:
    """Without Ray: what its actors are made of. The count of deaths outlives them in a file."""
    small = replace(asked, paths=asked.paths[:1])
    asked.out.mkdir()
    blocks = blocks_of(small.paths)
    (asked.out / f"tmp-tried-{blocks[0].name}").write_text("1\n2\n3\n")
    with contextlib.closing(Actor(asdict(Work.of(asked.model, asked.out, "cpu", "auto", 64)), 1)) as actor:
        said = actor({"block": [block.to_json() for block in blocks]})["outcome"]
    first, *others = (scoring_ray._taken(json.loads(text)) for text in said)
    assert isinstance(first, Failure)
    assert first.exit_code == RunError.exit_code
    assert first.message == (
        f"{blocks[0].shown}: 3 workers in a row were killed while they scored it, by lack of memory perhaps."
    )
    assert not any(isinstance(other, Failure) for other in others)
    assert not list(asked.out.glob("tmp-*"))


def test_what_the_next_block_would_meet_as_well_ends_everything(asked: Scoring, tmp_path: Path) -> None:
    block = blocks_of(asked.paths)[0].to_json()
    work = Work.of(asked.model, asked.out, "cpu", "auto", 64)
    (text,) = Actor(asdict(work), 1)({"block": [block]})["outcome"]
    with pytest.raises(DiskError, match="No such file or directory; its folder does not exist: make it, or name"):
        scoring_ray._taken(json.loads(text))
    asked.out.mkdir()
    (tmp_path / "model").write_bytes(b"nothing")
    broken = replace(work, model=str(tmp_path / "model"), model_sha256=sha256_file(tmp_path / "model"))
    (text,) = Actor(asdict(broken), 1)({"block": [block]})["outcome"]
    with pytest.raises(ModelError, match="is not a safetensors file"):
        scoring_ray._taken(json.loads(text))


def test_as_many_actors_as_there_are_gpus_or_else_cpus() -> None:
    assert scoring_ray._crew({"CPU": 12.0}, "auto") == (12, 1, 0)
    assert scoring_ray._crew({"CPU": 12.0, "GPU": 4.0}, "auto") == (4, 3, 1)
    assert scoring_ray._crew({"CPU": 12.0, "GPU": 4.0}, "cpu") == (12, 1, 0)
    assert scoring_ray._crew({"CPU": 1.0, "GPU": 2.0}, "cuda") == (2, 1, 1)


def test_without_ray_a_sentence_names_the_extra(asked: Scoring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        UsageError, match=r"--engine ray needs Ray Data, which is not installed: pip install 'plusx\[ray\]'"
    ):
        score(asked)
    assert not asked.out.exists()
