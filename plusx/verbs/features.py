"""What a trained network sees in photos: the values by which its last layer decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from plusx.images.decode import BadPhoto
from plusx.images.pool import DecodePool, Source
from plusx.model_file import ModelFile, load
from plusx.run_folder import model_path

if TYPE_CHECKING:
    from torch import nn

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]
See = Callable[[Pixels], Features]

_TOGETHER = 64


def features(
    model: Path, sources: Sequence[Source], device: str = "auto", workers: int | None = None
) -> tuple[Rows, Features]:
    """Pooled features [n, D] of the photos that can be read, and their positions in `sources`, ascending [n].

    `model` is a model file or a run folder. Raises ModelError where there is none.
    """
    file = model_path(model)
    loaded = load(file)
    see = _eye(loaded, device)
    rows, found = list[int](), [np.zeros((0, 1), np.float32)]
    with DecodePool(loaded.header.preprocess, workers) as pool:
        for places, pixels in _batches(pool, sources):
            rows += places
            found.append(see(pixels))
    order = np.argsort(rows)
    return np.array(rows, np.int64)[order], np.concatenate(found[1:] or found)[order]


def _batches(pool: DecodePool, sources: Sequence[Source]) -> Iterator[tuple[list[int], Pixels]]:
    places, rows = list[int](), list[Pixels]()
    for i, result in pool.map(sources):
        if not isinstance(result, BadPhoto):
            places.append(i)
            rows.append(result)
        if len(rows) == _TOGETHER:
            yield places, np.stack(rows)
            places, rows = [], []
    if rows:
        yield places, np.stack(rows)


def _eye(model: ModelFile, device: str) -> See:
    """A function from pixels uint8 [n, S, S, 3] to what enters the network's last linear layer, float32 [n, D]."""
    import torch

    from plusx.data.geometry import scaled
    from plusx.engines.torch_engine import build
    from plusx.training.environment import choose_device

    header, there = model.header, choose_device(device)
    network = build(header.network, len(header.classes), header.preprocess.mean, header.preprocess.std)
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in model.tensors.items()})
    network.to(there).eval()
    seen: list[torch.Tensor] = []
    _last_linear(network).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    @torch.inference_mode()
    def see(pixels: Pixels) -> Features:
        seen.clear()
        images = network.normalise(torch.from_numpy(pixels).to(there).permute(0, 3, 1, 2))
        network.network(scaled(images, header.size or header.preprocess.crop))
        values: Features = seen[0].flatten(1).float().cpu().numpy()
        return values

    return see


def _last_linear(network: nn.Module) -> nn.Module:
    from torch import nn

    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
