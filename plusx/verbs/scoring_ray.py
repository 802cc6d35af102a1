"""The engine of Ray Data: actors that each hold a classifier, and write the parts of the blocks they are given.

Ray moves a block's description to an actor and counts back; photos and answers never pass through it. An actor that
is killed is started again by Ray, and its block in hand is scored again; what it had finished is whole. Nothing is
sent to Ray's makers, nothing is written to the home folder, and a cluster started here wants a token. This is the one
place where Ray is imported.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

from plusx.durable import TEMPORARY, disk_errors
from plusx.errors import DiskError, Error, ModelError, UsageError
from plusx.errors import scoring as sentences
from plusx.images.pool import usable_cpus
from plusx.verbs.blocks import Block
from plusx.verbs.parts import Made
from plusx.verbs.scorer import Heard, Scorer, Work
from plusx.verbs.scoring import Engine, Failure, Outcome

ADDRESS = "RAY_ADDRESS"  # environment variable: the cluster to use
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # what it reports to its makers
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # of the part that is C++, which writes to the terminal
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns that it will stop hiding GPUs from who asked for none
}
MOST_DEATHS = 3  # of workers that had the same block in hand
MOST_TASKS = 1000  # that Ray plans with; of more blocks each task gets several
OBJECTS = 256 << 20  # bytes of shared memory: descriptions of blocks, no photos
WAIT = 300.0  # seconds until there has to be room for one actor: of a cluster that grows, or is busy
LONGEST = 40  # characters of a folder below which a socket's path still fits


class Actor:
    """What Ray calls: holds a Scorer, takes descriptions of blocks and gives outcomes, all of them as JSON."""

    def __init__(self, work: Mapping[str, Any], cores: int) -> None:
        self.work, self.cores = Work(**work), cores
        self._scorer: Scorer | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """Score the blocks of a batch."""
        return {"outcome": [json.dumps(self._outcome(Block.from_json(text))) for text in batch["block"]]}

    def close(self) -> None:
        """End its decoding processes; those of an actor that Ray ends see that by themselves."""
        if self._scorer is not None:
            self._scorer.pool.close()

    def _outcome(self, block: Block) -> dict[str, Any]:
        try:
            return {"made": asdict(self._scored(block))}
        except Error as error:
            ends = isinstance(error, DiskError | ModelError | UsageError)  # the next block would meet it as well
            failure = Failure(block.name, error.message if ends else f"{block.shown}: {error.message}", error.exit_code)
            return {"failure": asdict(failure), "ends": type(error).__name__ if ends else None, "code": error.code}

    def _scored(self, block: Block) -> Made:
        with _survived(Path(self.work.out) / f"{TEMPORARY}tried-{block.name}"):
            if self._scorer is None:
                self._scorer = Scorer(self.work, self.cores)
            return self._scorer.score(block)


@contextlib.contextmanager
def _survived(tried: Path) -> Iterator[None]:
    """Note in a file who has a block in hand: Ray would give one that kills workers to another of them for ever."""
    with disk_errors(tried), tried.open("a+") as file:
        file.seek(0)
        deaths = len(file.readlines())
        file.write(f"{os.getpid()}\n")
    try:
        if deaths >= MOST_DEATHS:
            raise sentences.kills_workers(deaths)
        yield
    finally:
        tried.unlink(missing_ok=True)


def by_ray(resume: str) -> Engine:
    """The engine. `resume` is the command that goes on. Raises UsageError where Ray is not installed."""
    ray = _ray()

    def engine(work: Work, blocks: Sequence[Block], _: Heard) -> Generator[Outcome, None, None]:
        with _cluster(ray), _told(ray, resume):
            for outcome in _outcomes(ray, work, blocks):
                yield _taken(json.loads(outcome))

    return engine


def _ray() -> Any:
    """The module `ray`, set up before it is imported, as it reads the environment then."""
    for name, value in {**QUIET, **_token()}.items():
        os.environ.setdefault(name, value)
    try:
        with _hushed():
            import ray
            import ray.data
    except ImportError:
        raise sentences.no_ray() from None
    return ray


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Without Ray's warnings to itself, about names of its own that it will change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"ray(\.|$)")
        yield


@contextlib.contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    """The cluster this process is in, or that of RAY_ADDRESS, or one of this machine's CPUs that leaves no file."""
    if ray.is_initialized():
        yield
        return
    folder = Path(tempfile.mkdtemp(prefix="plusx-", dir=_short_folder()))
    with _hushed(), _silent():
        try:
            _start(ray, folder)
            yield
        finally:
            ray.shutdown()  # which prints what it has not printed yet
            shutil.rmtree(folder, ignore_errors=True)


def _start(ray: Any, folder: Path) -> None:
    address = os.environ.get(ADDRESS)
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    own = {"include_dashboard": False, "_temp_dir": str(folder)}
    try:
        with _own_terminal(folder), _no_reporter():
            if address:
                ray.init(address=address, **quiet)
            else:
                ray.init(address="local", num_cpus=usable_cpus(), object_store_memory=OBJECTS, **own, **quiet)
    except Exception as error:  # of a dozen kinds
        raise sentences.no_cluster(address, error) from error
    for handler in logging.getLogger("ray.data").handlers:
        if type(handler).__name__ == "PlainRayHandler":  # its file, in the session's folder, stays
            handler.setLevel(logging.CRITICAL)


def _token() -> dict[str, str]:
    """Whoever talks to a cluster made here needs a token, which lies in no file: Ray's own is in the home folder."""
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", ADDRESS)
    if "ray" in sys.modules or any(name in os.environ for name in names):
        return {}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _short_folder() -> str:
    """The folder for temporary files, or /tmp where the path of a socket in it would be too long."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= LONGEST - len("/plusx-12345678") else "/tmp"  # noqa: S108 - mkdtemp makes the name


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Ray prints on stdout, where the results belong, that a worker was killed."""
    from ray._private import worker

    there = hasattr(worker, "_worker_logs_enabled")
    with mock.patch.object(worker, "_worker_logs_enabled", False) if there else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _no_reporter() -> Iterator[None]:
    """Without the process that reports usage: where that is off it still asks servers of three clouds where it runs."""
    from ray._private.node import Node

    there = hasattr(Node, "start_api_server")
    with mock.patch.object(Node, "start_api_server", return_value=None) if there else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _own_terminal(folder: Path) -> Iterator[None]:
    """Ray's C++ part says on stderr how it was told to be quiet; and Ray takes SIGTERM for itself, which stays ours."""
    handler, descriptor = signal.getsignal(signal.SIGTERM), os.dup(2)
    try:
        with (folder / "stderr").open("wb") as file:
            os.dup2(file.fileno(), 2)
        yield
    except SystemExit:  # a SIGTERM that came meanwhile
        raise KeyboardInterrupt from None
    finally:
        os.dup2(descriptor, 2)
        os.close(descriptor)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _told(ray: Any, resume: str) -> Iterator[None]:
    """What Ray raises, in a sentence."""
    try:
        yield
    except ray.exceptions.RayError as error:
        raise sentences.ray_failed(error, resume) from error


def _outcomes(ray: Any, work: Work, blocks: Sequence[Block]) -> Iterator[str]:
    """What an actor says of each block, as they are done."""
    actors, cores, gpus = _crew([node["Resources"] for node in ray.nodes() if node["Alive"]], work.device)
    _refuse_no_room(ray, cores, gpus)
    pool = ray.data.ActorPoolStrategy(size=min(actors, len(blocks)), max_tasks_in_flight_per_actor=2)
    rows = [{"block": block.to_json()} for block in blocks]
    described = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_TASKS))
    done = described.map_batches(
        *(Actor,),
        fn_constructor_args=(asdict(work), cores),
        **{"batch_size": 1, "compute": pool, "num_cpus": cores, "num_gpus": gpus},
    )
    for batch in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from batch.column("outcome").to_pylist()


def _crew(nodes: Sequence[Mapping[str, float]], device: str) -> tuple[int, int, int]:
    """How many actors there are, and the CPUs and GPUs of each: one per GPU where these are used, else one per CPU.

    `nodes`: what each machine has. An actor has to fit into one machine, so the poorest with a GPU decides its CPUs.
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) if device in ("auto", "cuda") else 0 for node in nodes]
    shares = [max(1, cpu // gpu) for cpu, gpu in zip(cpus, gpus, strict=True) if cpu and gpu]
    if not shares:
        return max(1, sum(cpus)), 1, 0
    cores = min(shares)
    return sum(min(gpu, cpu // cores) for cpu, gpu in zip(cpus, gpus, strict=True)), cores, 1


def _refuse_no_room(ray: Any, cores: int, gpus: int) -> None:
    """Raise RunError where no machine has room for an actor in all of WAIT: Ray would wait for ever without a word."""
    from ray.util.placement_group import placement_group, remove_placement_group

    wanted = placement_group([{"CPU": cores, **({"GPU": gpus} if gpus else {})}])
    try:
        ready, _ = ray.wait([wanted.ready()], timeout=WAIT)
        if not ready:
            raise sentences.no_actor(cores, gpus, WAIT)
    finally:
        remove_placement_group(wanted)


def _taken(outcome: Mapping[str, Any]) -> Outcome:
    """What an actor has said. Raises what ends everything."""
    if "made" in outcome:
        return Made(**outcome["made"])
    failure = Failure(**outcome["failure"])
    if outcome["ends"] is not None:
        kinds: tuple[type[Error], ...] = (DiskError, ModelError, UsageError)
        raise {kind.__name__: kind for kind in kinds}[outcome["ends"]](failure.message, code=outcome["code"])
    return failure
