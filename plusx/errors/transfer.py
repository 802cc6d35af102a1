"""Sentences about weights to start from: their file, the hub they come from, and whether they fit."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from plusx.errors import ModelError, UsageError, did_you_mean

EXPECTED = "--weights takes a .safetensors file, a run folder of plusx, or timm:NAME"
_CONVERT = (
    "import sys, torch, safetensors.torch as s; "
    "s.save_file(torch.load(sys.argv[1], map_location='cpu', weights_only=True), sys.argv[2])"
)


def missing(path: Path) -> ModelError:
    """There is nothing at the path."""
    return ModelError(f"There is no {path}; {EXPECTED}.", code="no-weights")


def unreadable(path: Path, error: OSError) -> ModelError:
    """The system does not let us read it."""
    return ModelError(f"{path} cannot be read: {error.strerror or error}; {EXPECTED}.", code="unreadable-weights")


def foreign(path: Path, kind: str) -> ModelError:
    """Another kind of file; where it may be a pickle, with the command that converts it."""
    advice = f"{EXPECTED}."
    if "pickle" in kind:
        command = shlex.join(["python", "-c", _CONVERT, str(path), str(path.with_suffix(".safetensors"))])
        advice = f"if you trust where it comes from, convert it once: {command}"
    return ModelError(f"{path} is {kind}; {advice}", code="not-weights")


def damaged(path: Path, what: str) -> ModelError:
    """What should be a safetensors file, and is not or not whole."""
    return ModelError(
        f"{path} is no safetensors file or a damaged one ({what}); copy or download it again.", code="weights-damaged"
    )


def not_finite(path: Path, name: str) -> ModelError:
    """NaN or infinity among the weights."""
    return ModelError(
        f"{name} in {path} holds numbers that are not finite, and nothing can be learned from them; "
        "take the weights of another step or source.",
        code="weights-not-finite",
    )


def misfit(path: Path, name: str, found: str, expected: str, networks: tuple[str, str | None]) -> ModelError:
    """A tensor has another shape or kind of numbers than the network's. `networks`: wanted, and what fits if known."""
    network, made_for = networks
    which = f", {made_for}" if made_for else ""
    return ModelError(
        f"{name} is {found} in {path} and {expected} in {network}: leave --model and the settings of the network out, "
        f"or give those that these weights were made for{which}.".replace(",.", "."),
        code="weights-misfit",
    )


def too_few(path: Path, share: str, example: str, networks: tuple[str, str | None]) -> ModelError:
    """Less than half of the network is in the file; `example` is a tensor that is not. `networks` as in `misfit`."""
    network, made_for = networks
    which = f", {made_for}" if made_for else ""
    return ModelError(
        f"{path} holds {share} of the parameters of {network} outside its head, and less than half is no start "
        f"({example} is missing, for one): choose the --model that these weights were made for{which}.",
        code="weights-misfit",
    )


def frozen_without_weights() -> UsageError:
    """A network of random weights is told to keep them."""
    return UsageError(
        "The finetune recipe, and `frozen`, hold still what was learned before, and there is nothing: "
        "add --weights FILE, or choose another --recipe.",
        code="no-weights",
    )


# weights that timm knows by name


def unknown_name(name: str, known: Iterable[str]) -> UsageError:
    """timm has no weights of that name."""
    return UsageError(
        f"timm knows no weights named {name!r}; expected the name of a network, with a tag if you like, such as "
        f"timm:resnet18 or timm:resnet18.a1_in1k.{did_you_mean(name, known)}",
        code="unknown-weights",
    )


def none_published(name: str) -> UsageError:
    """A network without weights on the hub."""
    return UsageError(
        f"timm has no safetensors weights for {name} on the hub; choose another network, or give a .safetensors file.",
        code="no-published-weights",
    )


def no_safetensors(repository: str) -> ModelError:
    """The repository holds other files only."""
    return ModelError(
        f"The hub's repository {repository} has no model.safetensors, and plusx never loads pickles; "
        "choose another tag or network.",
        code="no-safetensors",
    )


def refused(repository: str, why: str) -> ModelError:
    """The hub answered, and not with the file."""
    return ModelError(
        f"The hub does not give out {repository} ({why}); check the name and your access to it, "
        "or download model.safetensors by other means and give the file.",
        code="hub-refused",
    )


def no_answer(repository: str, why: str) -> ModelError:
    """The network, the server or the connection failed."""
    return ModelError(
        f"{repository} could not be fetched from the hub ({why}); check the network and type the same command again, "
        "or download model.safetensors by other means and give the file.",
        code="hub-unreachable",
    )


# runs


def lost(run: Path, weights: str, what: str) -> ModelError:
    """A run without a checkpoint can only begin again with the very weights it was started from."""
    return ModelError(
        f"The run in {run} has no checkpoint yet and needs its weights {weights} again, and {what}; "
        "bring them back, or start a new run.",
        code="weights-lost",
    )
