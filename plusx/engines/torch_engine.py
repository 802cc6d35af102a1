"""The PyTorch engine: rebuilds the network a model file names and answers with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from plusx.data import geometry
from plusx.errors import model_file as sentences
from plusx.model_file import ModelFile
from plusx.models import create_model
from plusx.models.normalise import Normalised

SMALLER = 6 / 7  # what a smaller view is of the size that photos are tested at


class TorchEngine:
    """A network in evaluation mode; probabilities are the mean over the model file's views."""

    def __init__(self, model: ModelFile, device: torch.device, origin: Any = "the model file") -> None:
        self.device = device
        self.views = model.header.views
        for view in set(self.views) - set(VIEWS):
            raise sentences.damaged(origin, f"it asks for the view {view!r}, and there are {', '.join(VIEWS)}")
        self.network = _network(model, origin).to(device).to(memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Pixels [n, S, S, 3] to probabilities [n, C]."""
        images = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
        images = images.permute(0, 3, 1, 2)  # [n, 3, S, S], channels last as it lies in memory
        answer: npt.NDArray[np.float32] = mean_probabilities(self.network, images, self.views).cpu().numpy()
        return answer


def smaller(images: Tensor) -> Tensor:
    """Images [n, 3, S, S] at six sevenths of their size."""
    return geometry.scaled(images, smaller_size(images.shape[-1]))


def smaller_size(size: int) -> int:
    """The size of the smaller view of photos of `size` pixels."""
    return round(size * SMALLER)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda images: images,
    "flip": lambda images: images.flip(3),
    "smaller": smaller,
    "smaller-flip": lambda images: smaller(images.flip(3)),
}


def mean_probabilities(network: nn.Module, images: Tensor, views: tuple[str, ...]) -> Tensor:
    """Softmax probabilities of images [n, 3, S, S], averaged over test-time views: [n, C]."""
    total = sum(network(VIEWS[view](images)).softmax(dim=1) for view in views)
    return torch.as_tensor(total) / len(views)


def build(network: Mapping[str, Any], classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Normalised:
    """The network that a header describes, with fresh weights, taking pixels."""
    return Normalised(create_model(classes=classes, **network), mean, std)


def _network(model: ModelFile, origin: Any) -> Normalised:
    header = model.header
    try:
        network = build(header.network, len(header.classes), header.preprocess.mean, header.preprocess.std)
        tensors = {name: torch.from_numpy(value.copy()) for name, value in model.tensors.items()}
        network.load_state_dict(tensors, strict=True)
    except (RuntimeError, TypeError) as error:
        first = " ".join(str(error).split())[:200]
        raise sentences.damaged(origin, f"its tensors do not fit its network ({first})") from None
    return network
