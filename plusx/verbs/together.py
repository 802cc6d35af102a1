"""What several processes settle before they train together, and what a run says of how many there were."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from plusx.config import Config
from plusx.durable import sha256_lines
from plusx.errors import processes as sentences
from plusx.images.pool import usable_cpus
from plusx.launch import launched
from plusx.run_folder import RunFolder, refuse_taken
from plusx.training.replica import differing
from plusx.training.world import World
from plusx.verbs.wish import Wish

RECORD = "processes"  # processes.json in the run folder

T = TypeVar("T")


def require_out(wish: Wish) -> None:
    """Raise UsageError where several processes are to train, and not to say where."""
    launch = launched()
    if launch.size > 1 and wish.out is None:
        raise sentences.told_by_first(sentences.out_needed(launch.size), first=launch.first)


def wished(wish: Wish, world: World) -> Wish:
    """The wish, to go on with the run in its folder where torchrun has started this very job again.

    So one command line is right for the first start and for every other.
    """
    out = wish.out
    if world.size == 1 or out is None:
        return wish
    again = world.once(lambda: (out / "config.yaml").exists() and _is_ours(RunFolder(out), world))
    return replace(wish, resume=wish.resume or again)


def refuse_folder(out: Path | None, world: World) -> None:
    """Raise UsageError where `out` is taken, unless by what this job has left there before it was started again."""
    run = RunFolder(out) if out is not None and launched().size > 1 else None
    if run is None or not _is_begun(run, world):
        refuse_taken(out)


def job(world: World) -> dict[str, str]:
    """What a run remembers of the torchrun that has begun it."""
    return {"job": name} if (name := world.job()) else {}


def _is_begun(run: RunFolder, world: World) -> bool:
    """Whether this job has begun a run there, and was stopped before it was one."""
    if (run.path / "config.yaml").exists() or not run.path.is_dir():
        return False
    bare = {path.name for path in run.path.iterdir()} <= {"run.lock"}
    return (bare and launched().restarts > 0) or _is_ours(run, world)


def _is_ours(run: RunFolder, world: World) -> bool:
    """Whether the torchrun of this process has begun the run, now or before it started its processes again."""
    return bool(name := world.job()) and (run.path / "run.json").exists() and run.read("run").get("job") == name


@contextmanager
def held(run: RunFolder, world: World) -> Iterator[None]:
    """Keep other runs out of the folder; the first process has its lock for all of them."""
    with ExitStack() as stack:
        world.once(lambda: stack.enter_context(run.lock()))
        yield


def first_here(world: World, do: Callable[[], T]) -> T:
    """What `do` gives in each process, done by one on each machine before the others: they find it in the cache."""
    local = launched().local_rank if world.size > 1 else 0
    early = world.alike(lambda: None if local else do())
    return world.alike(lambda: do() if early is None else early)


def with_workers(config: Config, world: World) -> Config:
    """The settings for the decoding of one process.

    The first of a machine decodes while the others wait, and has all its CPUs; the others, which have to decode only
    what no cache can hold, have an equal part of them.
    """
    launch = launched()
    if world.size == 1 or config.workers is not None or not launch.local_rank:
        return config
    return config.model_copy(update={"workers": max(1, usable_cpus() // launch.local_size)})


def refuse_other_settings(world: World, values: Mapping[str, Any]) -> None:
    """Raise UsageError where a process has other settings, or another plan, than the first; `values` are JSON."""
    if world.size == 1:
        return
    rank = differing(world, sha256_lines([json.dumps(values, sort_keys=True)]))
    if rank is not None:
        said = world.hear(dict(values))
        theirs, ours = said[rank], said[0]
        name = next(name for name in (*ours, *theirs) if theirs.get(name) != ours.get(name))
        told = (json.dumps(each.get(name))[:100] for each in (theirs, ours))
        raise sentences.other_settings(rank, world.size, name, *told)


def refuse_other_photos(world: World, photos: Sequence[str]) -> None:
    """Raise DataError where a process has other `photos`, told by their hashes, than the first."""
    if world.size == 1:
        return
    rank = differing(world, sha256_lines(photos))
    if rank is not None:
        counts = world.hear(len(photos))
        raise sentences.other_photos(rank, world.size, counts[rank], counts[0])


def resumed(world: World, run: RunFolder, step: int) -> str | None:
    """Write down by how many processes a run is trained from `step` on; what to tell where these are others now."""
    before = used(run)
    kept = [each for each in before if each["step"] < step] or [{"step": 0, "processes": world.size}]
    if kept[-1]["processes"] != world.size:
        kept.append({"step": step, "processes": world.size})
    if kept == before:
        return None
    run.write(RECORD, {"exact": len(kept) == 1, "used": kept})
    return sentences.other_number(before[-1]["processes"], world.size, step) if len(kept) > 1 else None


def used(run: RunFolder) -> list[dict[str, int]]:
    """By how many processes a run was trained, and after which step from there on."""
    path = run.path / f"{RECORD}.json"
    if path.exists():
        return list(json.loads(path.read_bytes())["used"])
    environment: dict[str, Any] = run.read("environment")
    return [{"step": 0, "processes": environment.get("processes", 1)}]


def facts(run: RunFolder) -> list[dict[str, int]]:
    """What metrics.json and the model file say of it: nothing of a run by one number of processes."""
    found = used(run)
    return found if len(found) > 1 else []
