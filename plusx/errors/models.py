"""Sentences about networks."""

from __future__ import annotations

from collections.abc import Iterable

from plusx.errors import UsageError, did_you_mean


def unknown_model(name: str, known: Iterable[str]) -> UsageError:
    """There is no network of that name."""
    return UsageError(
        f"There is no model {name!r}; `plusx models` lists them.{did_you_mean(name, known)}", code="unknown-model"
    )


def no_such_option(name: str, option: str) -> UsageError:
    """The network has no such part to change."""
    return UsageError(f"{name} has no {option} to set; leave it out.", code="no-such-option")


def missing_extra(what: str, extra: str) -> UsageError:
    """An optional dependency is not installed."""
    return UsageError(f"{what} needs an extra: pip install 'plusx[{extra}]'.", code="missing-extra")


def too_small(name: str, size: int, minimum: int) -> UsageError:
    """The input is smaller than the network can shrink."""
    return UsageError(
        f"{name} needs photos of at least {minimum} px and --size is {size}; choose --size {minimum} or more.",
        code="size-too-small",
    )
