"""Sentences about the lab."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plusx.errors import DataError, Interrupted, RunError, UsageError, did_you_mean


def unknown_experiment(name: str, known: Sequence[str]) -> UsageError:
    """No experiment has this name."""
    return UsageError(
        f"There is no experiment {name!r}; there are {', '.join(known)}.{did_you_mean(name, known)}",
        code="unknown-experiment",
    )


def both_modes() -> UsageError:
    """`--quick` and `--full` together."""
    return UsageError("--quick and --full are two sizes of one experiment; name one of them.", code="two-modes")


def too_few(what: str, given: int, least: int) -> UsageError:
    """A count that is too small to mean anything."""
    return UsageError(f"{what} is {given}, and the lab needs at least {least}.", code="too-few")


def not_of_the_lab(name: str) -> UsageError:
    """A setting that an experiment decides itself."""
    return UsageError(
        f"--set {name} is what the experiments themselves decide; leave it out, or train such a network with "
        "plusx train.",
        code="lab-setting",
    )


def no_test_photos(root: str) -> UsageError:
    """DATA without photos to test on."""
    return UsageError(
        f"{root} leaves no photos to test on; add photos, or name a share for them with --set split=80/0/20.",
        code="no-test-photos",
    )


def worker_lost(number: int, code: int, log: Path) -> RunError:
    """A training process ended without a word."""
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return RunError(
        f"Training process {number} ended by itself ({how}; memory may have run out); what it printed is in {log}. "
        "The same command goes on from the last checkpoints; fewer --jobs need less memory.",
        code="worker-lost",
    )


def training_failed(network: str, sentence: str, exit_code: int) -> RunError:
    """One network could not be trained."""
    error = RunError(f"{network}: {sentence}", code="lab-training-failed")
    error.exit_code = exit_code
    return error


def diverged(network: str, step: int) -> RunError:
    """What was asked of a network that has no trained weights."""
    return RunError(
        f"{network} diverged at step {step}: its loss became infinite, so there is no trained network to look at.",
        code="lab-diverged",
    )


def cannot_watch(precision: str) -> UsageError:
    """A probe in a training whose gradients are scaled."""
    return UsageError(
        f"The lab watches gradients, and with precision {precision} they are scaled by a factor that changes; use "
        "--set precision=bf16 or fp32.",
        code="cannot-watch",
    )


def interrupted(folder: Path, resume: str) -> Interrupted:
    """The lab was asked to stop."""
    return Interrupted(f"Stopped; everything is in {folder}. Continue with: {resume}", code="interrupted")


def no_results(folder: Path, command: str) -> UsageError:
    """A tour without anything to show."""
    return UsageError(
        f"{folder} holds no results yet; run an experiment first, such as: {command}.", code="no-lab-results"
    )


def damaged_results(path: Path, why: str) -> DataError:
    """Results of an experiment that cannot be read."""
    return DataError(
        f"{path} does not hold the results of an experiment as plusx writes them ({why}); run the experiment again, "
        "which measures nothing twice, or move its folder away.",
        code="damaged-results",
    )
