"""Sentences about several processes that do one thing together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from plusx.errors import DataError, RunError, UsageError


def one_process_only(verb: str, size: int) -> UsageError:
    """torchrun has started several processes of a verb that is done by one."""
    return UsageError(
        f"{verb} is done by one process, and torchrun has started {size}; start it without torchrun, or with "
        "--nproc-per-node 1. train and evaluate take several.",
        code="one-process-only",
    )


def seeds_together(size: int) -> UsageError:
    """`train --seeds` on several processes."""
    return UsageError(
        f"--seeds trains its runs in one process, and torchrun has started {size}; give each seed a torchrun of its "
        "own, with --seed, --set split_seed=... and --out.",
        code="seeds-together",
    )


def out_needed(size: int) -> UsageError:
    """Several processes have to know where a restarted job goes on."""
    return UsageError(
        f"{size} processes train together, so --out is needed: it is where the job goes on when it is started again.",
        code="out-needed",
    )


def told_by_first(error: UsageError, *, first: bool) -> UsageError:
    """The error as one that every process meets, and the first one tells."""
    error.told = not first
    return error


def no_accelerator(name: str) -> UsageError:
    """A device between which PyTorch carries no messages."""
    return UsageError(f"Several processes train on cpu or cuda, not on {name}; use --device cpu.", code="no-device")


def too_few_gpus(local_rank: int, gpus: int) -> UsageError:
    """More processes on a machine than it has GPUs."""
    return UsageError(
        f"There is no GPU for process {local_rank + 1} of this machine, which has {gpus}; "
        f"start {gpus} with --nproc-per-node {gpus}, or use --device cpu.",
        code="too-few-gpus",
    )


def unknown_norm(kind: str) -> UsageError:
    """A network has a batch norm of its own kind, which cannot be made one over all processes."""
    return UsageError(
        f"The network has norms of the kind {kind}, which plusx cannot synchronise between processes; use "
        "--set batch_norm=per-process, or one of the networks of plusx.",
        code="unknown-norm",
    )


def other_photos(rank: int, size: int, theirs: int, ours: int) -> DataError:
    """A process, most often on another machine, does not find the photos that the first one has."""
    return DataError(
        f"Rank {rank} of {size} trains on other photos than rank 0: it can read {theirs:,} and rank 0 {ours:,}; "
        "every machine needs the same DATA.",
        code="other-photos",
    )


def drifted(rank: int, size: int, step: int, before: int) -> RunError:
    """The processes have to have the same weights, to the last bit, as they had `before`."""
    return RunError(
        f"Rank {rank} of {size} has other weights than rank 0 after step {step:,}, though they had the same after step "
        f"{before:,}; what was saved since may be wrong. Look at the memory and the devices of both machines, remove "
        f"the folders of steps after {before:,} from checkpoints in the run folder, and continue with --resume.",
        code="weights-drifted",
    )


def other_settings(rank: int, size: int, name: str, theirs: str, ours: str) -> UsageError:
    """The processes were started with different command lines, files or versions."""
    return UsageError(
        f"Rank {rank} of {size} has {name} {theirs} where rank 0 has {ours}; every machine needs the same command "
        "line, the same files and the same plusx.",
        code="other-settings",
    )


def out_of_memory(photos: int, batch: int) -> RunError:
    """A step did not fit into the memory of the device of one of several processes."""
    return RunError(
        f"The {photos} photos that this process has of a batch of {batch} do not fit into memory; use a smaller "
        "--batch-size or more processes, or compute the batch in parts with --set accumulate=2.",
        code="out-of-memory",
    )


def other_number(before: int, now: int, step: int) -> str:
    """What is told where a run goes on with another number of processes."""
    return (
        f"The run was trained by {counted(before)} and goes on after step {step:,} with {now}: with the same photos in "
        "the same order, but sums are rounded in another order, so its result is not bit-exact."
    )


def not_bit_exact(used: Iterable[Mapping[str, Any]]) -> str:
    """What a run says of itself, for as long as it exists, where it was trained by one number of processes and another.

    `used`: from which step on by how many.
    """
    first, *others = used
    told = "".join(f", after step {each['step']:,} by {each['processes']}" for each in others)
    return f"not bit-exact: trained by {counted(first['processes'])}{told}"


def counted(processes: int) -> str:
    """So many processes."""
    return "1 process" if processes == 1 else f"{processes} processes"
