"""The PyTorch engine: rebuilds the network a model file names and answers with it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from plusx.engines.features import pooled_features
from plusx.engines.folded import folded, fused, fuses, fuses_bf16
from plusx.engines.looks import VIEWS
from plusx.engines.streams import side_by_side
from plusx.engines.views import averaged, by_views
from plusx.errors import UsageError
from plusx.errors import model_file as sentences
from plusx.errors.models import MISSING_EXTRA
from plusx.model_file import Arrays, ModelFile
from plusx.models import create_model
from plusx.models.described import Described, descriptor_size
from plusx.models.normalise import Normalised
from plusx.models.registry import TIMM
from plusx.tensor_file import short

Key = TypeVar("Key")
Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float32]

MOST_STREAMS = 16  # each holds a batch
CACHED_PIXELS = 1 << 19  # of a batch: with more, what one layer hands to the next leaves the processor's cache


class Answers(NamedTuple):
    """Probabilities [n, C]; descriptors [n, D] of what was seen, by the first view, None of a network without any."""

    probabilities: Probabilities
    descriptors: Floats | None = None
    novelty: None = None  # what the answers lack, as calibration


class TorchEngine:
    """A network in evaluation mode; probabilities are the mean over the model file's views.

    `precision` is "fp32" or "bf16". bf16 is for convolutions on processors that fuse them (`folded.fuses`); elsewhere,
    and in the head, everything is float32. Networks from timm are computed as timm wrote them.
    """

    def __init__(
        self, model: ModelFile, device: torch.device, origin: Any = "the model file", precision: str = "fp32"
    ) -> None:
        self.device, preprocess = device, model.header.preprocess
        self.views = model.header.views
        self.size = model.header.size or preprocess.crop
        for view in set(self.views) - set(VIEWS):
            raise sentences.damaged(origin, f"it asks for the view {view!r}, and there are {', '.join(VIEWS)}")
        self.streams = min(torch.get_num_threads(), MOST_STREAMS) if device.type == "cpu" else 1
        self.most = max(1, CACHED_PIXELS // preprocess.crop**2) if device.type == "cpu" else sys.maxsize
        self.dtype = torch.float32
        self.network: nn.Module = trained_network(model, origin).network.to(device).eval()
        self.descriptor_size = descriptor_size(self.network)
        self.describes = self.descriptor_size is not None
        if not str(model.header.network["name"]).startswith(TIMM):
            graph = folded(Described(self.network) if self.describes else self.network)
            if fuses(device):
                self.dtype = torch.bfloat16 if precision == "bf16" and fuses_bf16() else torch.float32
                graph = fused(graph, self.dtype)
            self.network = Logits(graph) if self.describes else graph
        self.network.to(memory_format=torch.channels_last)
        mean, std = (torch.tensor(values, device=device) for values in (preprocess.mean, preprocess.std))
        self.scale, self.shift = 1 / (255 * std), -mean / std

    def probabilities(self, pixels: Pixels) -> Probabilities:
        """Pixels [n, S, S, 3] to probabilities [n, C]."""
        return self.answers(pixels).probabilities

    @torch.inference_mode()
    def answers(self, pixels: Pixels) -> Answers:
        """What the network says of pixels [n, S, S, 3], by all views, and what it saw by the first."""
        seen = list(by_views(self.images(pixels), self.views, self.size))
        if not isinstance(self.network, Logits):
            said, descriptors = [self.network(images) for images in seen], None
        else:
            described = [self.network.graph(images) for images in seen]
            said, descriptors = [logits for logits, _, _ in described], described[0][1].cpu().numpy()
        return Answers(averaged(said).cpu().numpy(), descriptors)

    @torch.inference_mode()
    def described(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """Descriptors [n, D] of pixels [n, S, S, 3] by the first view, and where the network is active, [n, h, w].

        Only of an engine that `describes`.
        """
        assert isinstance(self.network, Logits), "an engine that describes"
        images = next(by_views(self.images(pixels), self.views[:1], self.size))
        _, descriptors, activity = self.network.graph(images)
        return descriptors.cpu().numpy(), activity.cpu().numpy()

    @torch.inference_mode()
    def features(self, pixels: Pixels) -> Floats:
        """What the head sees of pixels [n, S, S, 3], by one view: unit vectors, float32 [n, D]."""
        images = self.images(pixels)
        features = torch.nn.functional.normalize(pooled_features(self.network, images, self.size))
        found: Floats = features.float().cpu().numpy()
        return found

    def images(self, pixels: Pixels) -> Tensor:
        """What `network` takes: normalised images [n, 3, S, S] of pixels [n, S, S, 3], on the device, channels last.

        `Normalised` in one multiplication, of whole rows: three channels are too few for a vector unit.
        """
        there = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
        count, height, width, channels = there.shape
        scale, shift = self.scale.repeat(width), self.shift.repeat(width)
        rows = there.view(count * height, width * channels).float()
        images = torch.addcmul(shift, rows, scale).to(self.dtype)
        return images.view(there.shape).permute(0, 3, 1, 2)

    def many(self, batches: Iterable[tuple[Key, Pixels]]) -> Iterator[tuple[Key, Answers]]:
        """Answers for every batch, with the key it came with, in order."""
        if self.streams > 1:
            return side_by_side(self.answers, batches, self.streams)
        return ((key, self.answers(pixels)) for key, pixels in batches)


class Logits(nn.Module):
    """The logits alone of a `graph` that describes as well."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C]."""
        logits: Tensor = self.graph(x)[0]
        return logits


def build(network: Mapping[str, Any], classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Normalised:
    """The network that a header describes, with fresh weights, taking pixels."""
    return Normalised(create_model(classes=classes, **network), mean, std)


def trained_network(model: ModelFile, origin: Any = "the model file") -> Normalised:
    """The network of a model file as it was trained, taking pixels. Raises ModelError where its tensors do not fit.

    A network of plusx is outlined first, without memory: a header may ask for one far larger than its file.
    """
    header = model.header
    make = partial(build, header.network, len(header.classes), header.preprocess.mean, header.preprocess.std)
    try:
        if not header.network["name"].startswith(TIMM):  # whose networks are what they are called, and no larger
            with torch.device("meta"):
                _refuse_misfits(make(), model.weights)
        network = make()
        _refuse_misfits(network, model.weights)
        network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in model.weights.items()})
    except UsageError as error:
        if error.code == MISSING_EXTRA:
            raise
        raise sentences.damaged(origin, error.message.rstrip(".")) from None
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        first = " ".join(str(error).split())[:200]
        raise sentences.damaged(origin, f"its tensors do not fit its network ({first})") from None
    return network


def _refuse_misfits(network: Normalised, found: Arrays) -> None:
    """Raise ValueError unless the tensors are those of the network, of the same shapes and kinds of numbers.

    A single number lies in a model file as a list of one.
    """
    expected = network.state_dict()
    for name in sorted(expected.keys() ^ found.keys()):
        raise ValueError(f"{short(name)} is missing" if name in expected else f"there is no place for {short(name)}")
    for name, value in expected.items():
        numbers, shape = str(value.dtype).removeprefix("torch."), tuple(value.shape)
        if found[name].shape not in (shape, shape or (1,)) or numbers != str(found[name].dtype):
            told = f"{found[name].dtype} of shape {list(found[name].shape)}"
            raise ValueError(f"{short(name)} is {told}, and {numbers} of shape {list(shape)} is expected")
