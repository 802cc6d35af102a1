"""The engine of Ray: equal to the local one row by row, with a worker killed while it has a block in hand."""

from __future__ import annotations

import contextlib
import gzip
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
from plusx.data import entries
from plusx.durable import sha256_file
from plusx.errors import DiskError, Interrupted, ModelError, RunError, UsageError
from plusx.verbs import scoring_ray
from plusx.verbs.blocks import blocks_of
from plusx.verbs.scorer import Work
from plusx.verbs.scoring import Failure, Progress, Scoring, score
from plusx.verbs.scoring_ray import Actor
from tests.verbs import scored

SHARDS, EACH = 6, 40
PACKED = "0.tar.gz"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, photos of all kinds, and archives that keep an actor busy for a moment."""
    folder = tmp_path_factory.mktemp("scored")
    scored.model(folder / "model.safetensors")
    scored.world(folder / "photos")
    content = [scored.jpeg(number) for number in range(8)]
    for number in range(SHARDS):
        photos = {f"{i:04d}.jpg": content[(i + number) % 8] for i in range(EACH)}
        data = scored.archive(photos)
        (folder / f"{number}.tar").write_bytes(data) if number else (folder / PACKED).write_bytes(gzip.compress(data))
    return folder


@pytest.fixture
def asked(made: Path, tmp_path: Path) -> Scoring:
    paths = (*scored.paths(made / "photos"), str(made / "*.tar"), str(made / PACKED))
    return Scoring(made / "model.safetensors", paths, tmp_path / "parts", engine="ray", device="cpu")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cluster of two CPUs for all tests; gives what was the home folder while it ran."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CACHE_HOME", str(home.with_name("cache")))
        patch.setattr(scoring_ray, "usable_cpus", lambda: 2)
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        with scoring_ray._cluster(scoring_ray._ray()):
            assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
            from ray._private.worker import global_worker

            assert "dashboard" not in global_worker.node.all_processes, "it asks servers of three clouds where it runs"
            yield home


@contextlib.contextmanager
def in_hand(cluster: Path, archive: Path) -> Iterator[None]:
    """A compressed archive is not unpacked meanwhile: whoever has its block in hand keeps it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cluster.with_name("cache")))
        (held := contextlib.ExitStack()).enter_context(entries.building(sha256_file(archive)[:32]))
    with held:
        yield


class Killer(threading.Thread):
    """Kills whoever has a compressed archive in hand, once, as soon as a part is there."""

    def __init__(self, asked: Scoring, cluster: Path) -> None:
        super().__init__()
        self.out, archive = asked.out, Path(asked.paths[-1])
        self.killed, self.over, self.hand = list[int](), threading.Event(), contextlib.ExitStack()
        self.hand.enter_context(in_hand(cluster, archive))
        self.tried = asked.out / f"tmp-tried-{blocks_of([archive])[0].name}"

    def run(self) -> None:
        with self.hand:
            while not self.over.wait(0.005):
                with contextlib.suppress(OSError, IndexError):
                    pid = int(self.tried.read_text().split()[-1])
                    if list(self.out.glob("part-*")):
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
    killer = Killer(asked, cluster)
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
    """More CPUs are asked for first than any machine has: a sentence, where Ray would wait for ever."""
    with monkeypatch.context() as patch:
        patch.setattr(scoring_ray, "_crew", lambda *_: (1, 3, 0))
        patch.setattr(scoring_ray, "WAIT", 0.2)
        with pytest.raises(RunError, match=r"No machine of the Ray cluster had 3 CPUs free in 0 s: wait until others"):
            score(asked)
    monkeypatch.setattr(scoring_ray, "_crew", lambda *_: (1, 1, 0))  # one actor starts sooner than two

    def stop(progress: Progress) -> None:
        if progress.done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with in_hand(cluster, Path(asked.paths[-1])), pytest.raises(Interrupted) as caught:
        score(asked, on_progress=stop)
    assert caught.value.exit_code == 75
    assert "of 10 blocks done. Continue with: plusx predict " in caught.value.message
    assert " --engine ray --device cpu --out " in caught.value.message
    there = len(list(asked.out.glob("part-*")))
    assert 3 <= there < SHARDS + 4, "one block was in hand"
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
    """Each fits into one machine: totals of a cluster would ask for some that no machine holds."""
    crew = scoring_ray._crew
    assert crew([{"CPU": 12.0}], "auto") == (12, 1, 0)
    assert crew([{"CPU": 12.0, "GPU": 4.0}], "auto") == (4, 3, 1)
    assert crew([{"CPU": 12.0, "GPU": 4.0}], "cpu") == (12, 1, 0)
    assert crew([{"CPU": 1.0, "GPU": 2.0}], "cuda") == (1, 1, 1), "the second GPU has no CPU"
    assert crew([{"CPU": 64.0}, {"CPU": 4.0, "GPU": 1.0}], "auto") == (1, 4, 1)
    assert crew([{"CPU": 8.0, "GPU": 4.0}, {"CPU": 16.0, "GPU": 2.0}, {}], "auto") == (6, 2, 1)
    assert crew([{"CPU": 2.0}, {"GPU": 1.0}], "auto") == (2, 1, 0)
    assert crew([{}], "auto") == (1, 1, 0)


def test_without_ray_a_sentence_names_the_extra(asked: Scoring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        UsageError, match=r"--engine ray needs Ray Data, which is not installed: pip install 'plusx\[ray\]'"
    ):
        score(asked)
    assert not asked.out.exists()
