"""A trained network that is asked why: maps of evidence for its answers, in the frame of the photos it was given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plusx import keyed
from plusx.engines.torch_engine import TorchEngine, build, trained_network
from plusx.errors import explain as sentences
from plusx.explain import occlusion, windows
from plusx.explain.cam import class_activation, contrasts, pooled_head
from plusx.explain.grad_cam import grad_cam, last_convolution
from plusx.explain.windows import Window
from plusx.model_file import Header, ModelFile

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Map = Callable[[Tensor, Tensor], Tensor]

METHODS = ("auto", "cam", "grad-cam", "occlusion")
CLOSER, PLACES = 0.8, 3  # besides its views, maps are made of 3 x 3 windows as near as the view "closer"
BATCH = 32


@dataclass(frozen=True)
class Evidence:
    """`maps` [n, GRID, GRID] say how much each place speaks for the class; `log_odds` [n] what the views add up to.

    `log_odds` is the mean over views of the class's logit less the mean of the others'. Maps of CAM are on that scale,
    those of occlusion on that of probabilities, those of Grad-CAM on none.
    """

    maps: Floats
    log_odds: Floats


class Explainer:
    """The network of a model file with one method of explaining it.

    `method` is "auto" (CAM where the network ends in global average pooling and one linear layer, else Grad-CAM), or
    one of METHODS. Raises UsageError for another, and for one that the network does not allow.
    """

    def __init__(self, model: ModelFile, engine: TorchEngine, method: str = "auto") -> None:
        self.model, self.engine = model, engine
        self.method, self._map = _chosen(method, model, engine)

    def randomised(self, number: int) -> Explainer:
        """The same method on the same network with fresh weights, which depend on `number` alone."""
        return Explainer(fresh(self.model, number), self._engine_of(fresh(self.model, number)), self.method)

    def evidence(self, pixels: Pixels, labels: Labels) -> Evidence:
        """Maps for the classes `labels` [n] of preprocessed photos [n, S, S, 3]."""
        parts = [slice(start, start + BATCH) for start in range(0, len(pixels), BATCH)]
        found = [self._evidence(pixels[part], labels[part]) for part in parts]
        return Evidence(np.concatenate([f.maps for f in found]), np.concatenate([f.log_odds for f in found]))

    def _evidence(self, pixels: Pixels, labels: Labels) -> Evidence:
        images = self.engine.images(pixels)
        contrast = contrasts(torch.from_numpy(labels), len(self.model.header.classes)).to(self.engine.device)
        views = windows.of_views(self.engine.views)
        odds = torch.stack([self._odds(images, view, contrast) for view in views]).mean(0).cpu().double().numpy()
        if self._map is None:
            return Evidence(self._occlusions(pixels, labels), odds)
        looks = [*views, *windows.sliding(CLOSER, PLACES)]
        maps = [(look, self._map(self._shown(images, look), contrast)) for look in looks]
        return Evidence(windows.joined(maps), odds)

    def _shown(self, images: Tensor, window: Window) -> Tensor:
        return windows.shown(images, window, self.engine.size)

    @torch.inference_mode()
    def _odds(self, images: Tensor, window: Window, contrast: Tensor) -> Tensor:
        odds: Tensor = (self.engine.network(self._shown(images, window)) * contrast).sum(1)
        return odds

    def _occlusions(self, pixels: Pixels, labels: Labels) -> Floats:
        size, fill = pixels.shape[1], mean_colour(self.model.header)
        side, stride = max(1, round(occlusion.SHARE * size)), max(1, size // occlusion.STEPS)
        rows = zip(pixels, labels.tolist(), strict=True)
        answer = self.engine.probabilities
        maps = [occlusion.occlusion(answer, photo, label, fill, side, stride) for photo, label in rows]
        return windows.resized(np.stack(maps))

    def _engine_of(self, model: ModelFile) -> TorchEngine:
        precision = "bf16" if self.engine.dtype == torch.bfloat16 else "fp32"
        return TorchEngine(model, self.engine.device, precision=precision)


def fresh(model: ModelFile, number: int) -> ModelFile:
    """The model file as it would be before training: the same network, its first weights a function of `number`."""
    header = model.header
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed.global_seed(number, 0))
        network = build(header.network, len(header.classes), header.preprocess.mean, header.preprocess.std)
    return replace(model, tensors={name: value.numpy() for name, value in network.state_dict().items()})


def mean_colour(header: Header) -> tuple[int, ...]:
    """The colour that the network sees as nothing, zero on every channel: RGB 0..255."""
    return tuple(round(255 * value) for value in header.preprocess.mean)


def _chosen(method: str, model: ModelFile, engine: TorchEngine) -> tuple[str, Map | None]:
    """The method's own name, and the function that makes maps [n, h, w] of images and contrasts; None of occlusion."""
    if method not in METHODS:
        raise sentences.unknown_method(method, METHODS)
    if method == "occlusion":
        return method, None
    name = str(model.header.network["name"])
    head = pooled_head(engine.network, engine.size) if method != "grad-cam" else None
    if method == "cam" and head is None:
        raise sentences.no_pooled_head(name)
    if head is not None:
        return "cam", partial(class_activation, engine.network, head)
    network = trained_network(model).network.to(engine.device).eval().requires_grad_(False)
    layer = last_convolution(network)
    if layer is None:
        raise sentences.no_convolution(name)
    # what an engine has made of the network knows no gradients
    return "grad-cam", lambda images, contrast: grad_cam(network, layer, images.float(), contrast)
