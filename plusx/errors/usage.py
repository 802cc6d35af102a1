"""Sentences about flags, names and config values."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from plusx.errors import UsageError, did_you_mean


def unknown_recipe(name: str, known: Iterable[str]) -> UsageError:
    """There is no recipe of that name."""
    known = tuple(known)
    return UsageError(
        f"There is no recipe {name!r}; the recipes are {', '.join(known)}.{did_you_mean(name, known)}",
        code="unknown-recipe",
    )


def unknown_setting(name: str, where: str, known: Iterable[str]) -> UsageError:
    """`where` sets a field that the configuration does not have."""
    return UsageError(
        f"{where} sets {name!r}, which is no setting.{did_you_mean(name, known)} docs/cli.md lists the settings.",
        code="unknown-setting",
    )


def unknown_variable(name: str, known: Iterable[str], prefix: str) -> UsageError:
    """An environment variable that plusx would own and does not know."""
    return UsageError(
        f"The environment sets {name}, which plusx does not know.{did_you_mean(name, known, prefix)} "
        "docs/cli.md lists the settings; unset what is none.",
        code="unknown-variable",
    )


def bad_setting(name: str, value: object, why: str, where: str) -> UsageError:
    """A field has a value of the wrong kind or out of its bounds."""
    return UsageError(f"{where} sets {name} to {value!r}: {why}.", code="bad-setting")


def unknown_precision(name: str, known: Iterable[str]) -> UsageError:
    """Answers cannot be computed in that precision."""
    return UsageError(
        f"precision is {name!r}, and answers are computed in {', '.join(known)}; auto takes what is best here.",
        code="unknown-precision",
    )


def two_crops() -> UsageError:
    """Padding and random-resized crops were both asked for."""
    return UsageError(
        "pad and crop_scale both crop at random, and only one of them can; set pad=0 or crop_scale=null.",
        code="two-crops",
    )


def balanced_window() -> UsageError:
    """Classes cannot be balanced over photos that are only seen a window at a time."""
    return UsageError(
        "sampling=balanced draws from all of DATA, and a window lets photos of a few archives meet only; "
        "set window=null or sampling=shuffle.",
        code="balanced-window",
    )


def small_window(found: int, most: int) -> UsageError:
    """So many archives have to be at hand, and the cache holds fewer; `most`: the largest window, 0: none."""
    do = f"set window={most} with --set, or PLUSX_CACHE_GB to more" if most else "set PLUSX_CACHE_GB to more"
    return UsageError(
        f"The photos do not fit into the cache decoded, so they are read from their archives in every epoch, and "
        f"{_gb(found)} of those have to be at hand at a time, more than the cache has left: {do}. "
        "A window of N archives mixes photos of N archives at a time, and fetches the next N meanwhile.",
        code="small-window",
    )


def not_key_value(text: str) -> UsageError:
    """A `--set` without an equals sign."""
    return UsageError(f"--set expects key=value, such as --set checkpoint_every=3, and got {text!r}.", code="bad-set")


def time_and_epochs() -> UsageError:
    """Both budgets were given."""
    return UsageError(
        "--time and --epochs were both given, and only one of them can decide how long to train; leave one out.",
        code="time-and-epochs",
    )


def bad_duration(text: str) -> UsageError:
    """A `--time` that cannot be read."""
    return UsageError(
        f"--time expects a duration such as 90s, 10m or 2h, and got {text!r}.",
        code="bad-duration",
    )


def bad_risk(text: str) -> UsageError:
    """A `--risk` that is no share of errors."""
    return UsageError(
        f"--risk expects a share of errors above 0 and up to 50%, such as 1% or 0.01, and got {text!r}.",
        code="bad-risk",
    )


def unreadable_file(path: Path, why: str, expected: str) -> UsageError:
    """A config or plan file that cannot be read."""
    return UsageError(f"{path} cannot be read as {expected}: {why}.", code="bad-file")


def plan_of_another(path: Path, what: str, planned: int, found: int) -> UsageError:
    """`--plan` names the plan of a run on other data or with other settings."""
    return UsageError(
        f"{path} is the plan of another run: it has {what} of {planned:,} and this run {found:,}; "
        "give the data and settings it was made for, or leave --plan out.",
        code="other-plan",
    )


def plan_and_budget() -> UsageError:
    """`--plan` beside `--time` or `--epochs`."""
    return UsageError(
        "--plan says how long to train, and --time or --epochs says something else; leave one out.",
        code="plan-and-budget",
    )


def no_device(name: str) -> UsageError:
    """The device that was named is not there."""
    return UsageError(
        f"There is no {name} device that this PyTorch can use; choose --device cpu, or --device auto for the best one.",
        code="no-device",
    )


def no_precision(precision: str, device: str) -> UsageError:
    """The device does not compute in the precision that was asked for."""
    return UsageError(
        f"{device} cannot train in {precision}; leave --set precision=... out, or choose another --device.",
        code="no-precision",
    )


def changed_settings(run: Path, differences: Iterable[tuple[str, object, object]]) -> UsageError:
    """`--resume` was given other settings than the run was started with."""
    listed = "; ".join(f"{name} was {before!r} and is now {now!r}" for name, before, now in differences)
    return UsageError(
        f"{run} cannot be resumed with other settings: {listed}. "
        "Give the same flags again (or none but --resume), or start a new run without --resume.",
        code="changed-settings",
    )


def resume_without_run() -> UsageError:
    """`--resume` needs to know which run."""
    return UsageError(
        "--resume needs the run folder it continues: add --out runs/NAME, as printed when the run started.",
        code="resume-without-run",
    )


def accept_without_resume() -> UsageError:
    """`--accept-changes` of a run that has not begun."""
    return UsageError(
        "--accept-changes goes on with a run whose photos have changed: add --resume and its --out, or leave it out.",
        code="accept-without-resume",
    )


class TooShortError(UsageError):
    """A time budget that holds no useful run: `needed` are the seconds of the smallest."""

    def __init__(self, message: str, *, needed: float) -> None:
        super().__init__(message, code="time-too-short")
        self.needed = needed


def too_short(seconds: float, needed: float, steps: int) -> TooShortError:
    """The time budget does not hold even the smallest useful run, of `steps` steps."""
    training = "1 step" if steps == 1 else f"{steps} steps"
    return TooShortError(
        f"--time {seconds:g}s is too short: preparing the photos and {training} of training need about "
        f"{needed:.0f} s on this machine; give at least that, or train with --epochs 1.",
        needed=needed,
    )


def folds_too_short(seconds: float, folds: int, each: float, needed: float) -> TooShortError:
    """The time of `check --labels` leaves a fold less than the seconds that `each` takes; all of it `needed` more."""
    return TooShortError(
        f"--time {seconds:g}s is too short for {folds} folds: each takes at least {each:.0f} s on this machine; "
        f"give {needed:.0f} s or more, or choose fewer --folds.",
        needed=needed,
    )


def too_few_folds(folds: int) -> UsageError:
    """Cross-validation with fewer than two parts."""
    return UsageError(f"--folds expects 2 or more, such as 5, and got {folds}.", code="bad-folds")


def labels_by_a_model() -> UsageError:
    """`check --labels --model`."""
    return UsageError(
        "--labels trains networks of its own, which have not seen the photos they judge, and --model lists photos that "
        "look alike; give one of the two.",
        code="labels-or-model",
    )


def another_check(out: Path, differences: Iterable[tuple[str, object, object]]) -> UsageError:
    """`check --labels` finds the folds of another question in its folder."""
    listed = "; ".join(f"{name} was {before!r} and is now {now!r}" for name, before, now in differences)
    return UsageError(
        f"{out} holds a check of labels that was begun differently: {listed}. "
        "Give the same command again to continue it, or name another --out.",
        code="another-check",
    )


def unknown_flag(flag: str, verb: str, known: Iterable[str]) -> UsageError:
    """A flag that the verb does not have, and no file of that name either."""
    return UsageError(
        f"There is no option or file {flag}.{did_you_mean(flag, known)} `plusx {verb} --help` lists what it takes.",
        code="unknown-flag",
    )


def would_overwrite(out: Path, read: object) -> UsageError:
    """`--out` names a file that is read."""
    return UsageError(f"--out {out} would overwrite what is read ({read}); name another file.", code="would-overwrite")


def no_batch(size: int) -> UsageError:
    """A batch of no photos."""
    return UsageError(f"--batch-size is {size} and must be at least 1.", code="bad-batch-size")


def several_formats(chosen: Iterable[str]) -> UsageError:
    """More than one output format was asked for."""
    listed = " and ".join(f"--{name}" for name in chosen)
    return UsageError(f"{listed} ask for different outputs; give one of them.", code="several-formats")


def not_a_check_folder(folder: Path) -> UsageError:
    """`check --out` names a folder that holds other things."""
    return UsageError(
        f"{folder} holds files that check did not write; name a new or an empty folder with --out.",
        code="not-a-check-folder",
    )


def too_many_to_compare(photos: int, most: int) -> UsageError:
    """`check --model` on more photos than can be compared in pairs."""
    return UsageError(
        f"check --model compares every photo with every other, at most {most:,} of them, and here are {photos:,}; "
        "leave --model out, or check a part of them.",
        code="too-many-to-compare",
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
