"""Sentences about scoring at scale: a folder of Parquet parts, and Ray."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from plusx.errors import DataError, Interrupted, RunError, UsageError
from plusx.errors.use import first_few

INSTALL = "pip install 'plusx[ray]'"


def no_ray() -> UsageError:
    """`--engine ray` without Ray Data."""
    return UsageError(
        f"--engine ray needs Ray Data, which is not installed: {INSTALL}; --engine local does the same without it.",
        code="missing-extra",
    )


def no_pyarrow() -> UsageError:
    """Parquet without pyarrow."""
    return UsageError(
        f"A folder of Parquet parts needs pyarrow, which is not installed: {INSTALL}, or pip install pyarrow alone.",
        code="missing-extra",
    )


def no_out() -> UsageError:
    """Parts without a folder to put them into."""
    return UsageError("--parquet and --engine ray write a folder of parts: name it with --out DIR.", code="no-out")


def no_folder(out: Path) -> UsageError:
    """`--out` is a file."""
    return UsageError(f"{out} is a file, and a folder of parts is written; name a folder with --out.", code="no-folder")


def other_files(out: Path) -> UsageError:
    """`--out` is a folder that holds other things."""
    return UsageError(
        f"{out} holds files that predict did not write; name a new or an empty folder with --out.",
        code="not-a-folder-of-parts",
    )


def damaged_manifest(path: Path) -> DataError:
    """What says which parts belong together cannot be read."""
    return DataError(
        f"{path} is not the JSON that was written, so its parts cannot be gone on with; name another --out.",
        code="damaged-manifest",
    )


def another_scoring(out: Path, differences: Iterable[tuple[str, object, object]]) -> UsageError:
    """The parts in `out` were made by another model, or in another way."""
    listed = "; ".join(f"{name} was {before!r} and is now {now!r}" for name, before, now in differences)
    return UsageError(
        f"{out} holds parts of another scoring: {listed}. "
        "Give the same command again to go on with it, or name another --out.",
        code="another-scoring",
    )


def photos_gone(out: Path, gone: Sequence[str]) -> UsageError:
    """Parts in `out` are of photos that are no longer asked for, or have changed."""
    return UsageError(
        f"{out} holds parts of photos that are no longer asked for, or are not as they were: {first_few(gone)}. "
        "Give the same paths again (more archives may come, no more loose photos), or name another --out.",
        code="photos-gone",
    )


def model_changed(model: Path) -> RunError:
    """A process reads another model file than the one that the scoring began with."""
    return RunError(
        f"{model} is another file for this process than for the one that began: every machine has to see the same "
        "model under that path, and nobody may change it meanwhile.",
        code="model-changed",
    )


def photos_changed(file: str) -> DataError:
    """A file is not as it was when the scoring began."""
    return DataError(
        f"{file} is not as it was when it was listed: it was moved or replaced, or this machine does not see it. Every "
        "machine has to see the same photos under the same paths, and nobody may change them meanwhile.",
        code="photos-changed",
    )


def strange_parts(out: Path, names: Iterable[str]) -> UsageError:
    """Files that are called like parts, and that nobody wrote for this scoring."""
    return UsageError(
        f"{out} holds parts that predict did not write there: {first_few(sorted(names))}. Move them away, since "
        "whoever reads the folder would count their rows, and give the same command again.",
        code="strange-parts",
    )


def no_actor(cores: int, gpus: int, seconds: float) -> RunError:
    """The cluster has no room for an actor."""
    wanted = f"{cores:,} CPU{'s' if cores > 1 else ''}" + (f" and {gpus} GPU" if gpus else "")
    return RunError(
        f"No machine of the Ray cluster had {wanted} free in {seconds:,.0f} s: wait until others are done, add "
        "machines, or take --engine local. What is whole stays.",
        code="no-actor",
    )


def miscounted(what: str, expected: int, found: int) -> RunError:
    """There is not exactly one row for each photo."""
    return RunError(
        f"{what} should hold {expected:,} rows, one for each photo, and holds {found:,}. "
        "This must not happen: please report it; the same command again makes what is missing.",
        code="miscounted",
    )


def failed_blocks(failures: Sequence[str], blocks: int, resume: str, exit_code: int) -> DataError | RunError:
    """Some blocks could not be scored, the others are there; of `exit_code` 3 it is the photos' fault."""
    kind = DataError if exit_code == DataError.exit_code else RunError
    return kind(
        f"{len(failures):,} of {blocks:,} blocks could not be scored, the others are whole. The first: {failures[0]} "
        f"The same command tries again: {resume}",
        code="failed-blocks",
    )


def kills_workers(times: int) -> RunError:
    """Whoever had a block in hand was killed, again and again."""
    return RunError(
        f"{times} workers in a row were killed while they scored it, by lack of memory perhaps.", code="kills-workers"
    )


def interrupted(done: int, blocks: int, resume: str) -> Interrupted:
    """A signal came; whole blocks stay."""
    return Interrupted(f"Stopped with {done:,} of {blocks:,} blocks done. Continue with: {resume}", code="interrupted")


def no_cluster(address: str | None, error: Exception) -> RunError:
    """Ray does not start here, or there is no cluster at `address`."""
    where = f"reach the cluster at {address} (RAY_ADDRESS)" if address else "start on this machine"
    return RunError(
        f"Ray could not {where}: {' '.join(str(error).split())[:300]}; --engine local needs none.", code="no-cluster"
    )


def ray_failed(error: Exception, resume: str) -> RunError:
    """Ray gave up."""
    why = f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
    return RunError(f"Ray gave up ({why}). What is whole stays. Continue with: {resume}", code="ray-failed")
