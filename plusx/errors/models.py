"""Sentences about networks."""

from __future__ import annotations

from collections.abc import Iterable

from plusx.errors import UsageError, did_you_mean

MISSING_EXTRA = "missing-extra"


def unknown_model(name: str, known: Iterable[str]) -> UsageError:
    """There is no network of that name."""
    return UsageError(
        f"There is no model {name!r}; `plusx models` lists them.{did_you_mean(name, known)}", code="unknown-model"
    )


def no_such_option(name: str, option: str) -> UsageError:
    """The network has no such part to change."""
    return UsageError(f"{name} has no {option} to set; leave it out.", code="no-such-option")


def unknown_option(option: str, value: str, known: Iterable[str]) -> UsageError:
    """A stem, shortcut, norm ... that does not exist."""
    known = tuple(known)
    return UsageError(
        f"There is no {option} {value!r}; choose {', '.join(known)} or default.{did_you_mean(value, known)}",
        code="unknown-option",
    )


def zero_without_shortcut() -> UsageError:
    """A plain block whose last norm is zeroed gives nothing but zeros."""
    return UsageError(
        "zero_init_residual needs shortcuts: without them a block with a zeroed branch is dead; leave it out.",
        code="zero-without-shortcut",
    )


def zero_without_norm() -> UsageError:
    """There is no last norm whose weight could be zero."""
    return UsageError(
        "zero_init_residual zeroes the last norm of every block and norm=none has none; leave one of the two out.",
        code="zero-without-norm",
    )


def no_classes(classes: int) -> UsageError:
    """Fewer than one class."""
    return UsageError(f"A network needs at least one class and --classes is {classes}.", code="no-classes")


def missing_extra(what: str, extra: str) -> UsageError:
    """An optional dependency is not installed."""
    return UsageError(f"{what} needs an extra: pip install 'plusx[{extra}]'.", code=MISSING_EXTRA)


def too_small(name: str, size: int, minimum: int) -> UsageError:
    """The input is smaller than the network can shrink."""
    return UsageError(
        f"{name} needs photos of at least {minimum} px and --size is {size}; choose --size {minimum} or more.",
        code="size-too-small",
    )
