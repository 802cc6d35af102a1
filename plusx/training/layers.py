"""The layers of any network in the order in which its parameters were made: which is first, which is the head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from plusx.training.schedule import progress
from plusx.training.settings import Settings

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def layers(model: nn.Module) -> list[list[str]]:
    """Names of the parameters by layer, from the input to the head, which is the last.

    A block of a stage (`layer1.0`) is one layer, and a norm belongs to the layer before it. The order is that of
    the modules' construction, which is the one a photo passes in everything that `plusx models` and timm build.
    """
    found: dict[str, list[str]] = {}
    for name, value in model.named_parameters():
        unit = _unit(name)
        follows = value.ndim <= 1 and unit not in found and found
        found.setdefault(list(found)[-1] if follows else unit, []).append(name)
    return list(found.values())


def head(model: nn.Module) -> list[str]:
    """Names of the parameters of the layer that tells the classes apart."""
    return layers(model)[-1]


def rate_shares(model: nn.Module, input_rate: float) -> dict[str, float]:
    """Share of the learning rate by parameter name: `input_rate` in the first layer, 1 in the head.

    Geometric in between, so that every layer learns faster than the one before by the same factor (Howard and
    Ruder 2018, arXiv 1801.06146, section 3.2).
    """
    found = layers(model)
    last = max(1, len(found) - 1)
    return {name: input_rate ** (1 - depth / last) for depth, names in enumerate(found) for name in names}


def is_frozen(settings: Settings, step: int) -> bool:
    """Whether only the head learns in `step`: while a share `frozen` of the run is not over."""
    return progress(step, settings.total_steps, settings.revisions) < settings.frozen


def freeze_or_thaw(model: nn.Module, learning: Sequence[nn.Parameter], settings: Settings, step: int) -> None:
    """Let those of the `learning` parameters learn that do in `step`, and hold still the norms of a frozen network.

    A function of the step alone, so that a resumed run is where it was. Frozen parameters get no gradient, hence
    neither momentum nor decay; frozen norms use their statistics and leave them as they are.
    """
    if not settings.frozen:
        return
    frozen = is_frozen(settings, step)
    last = {id(model.get_parameter(name)) for name in head(model)}
    for parameter in learning:
        parameter.requires_grad_(not frozen or id(parameter) in last)
    for norm in _norms(model) if frozen else ():
        norm.eval()


def _norms(model: nn.Module) -> Iterator[nn.Module]:
    return (module for module in model.modules() if isinstance(module, NORMS))


def _unit(name: str) -> str:
    """The block or layer that a parameter belongs to: up to the first number, or all but its own name."""
    parts = name.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1] if numbers else parts[:-1])
