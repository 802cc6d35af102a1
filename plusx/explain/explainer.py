"""A trained network of PyTorch that is asked why: maps of evidence for its answers, in the frame of its photos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plusx import keyed
from plusx.data import geometry
from plusx.engines.torch_engine import TorchEngine, build, trained_network
from plusx.errors import explain as sentences
from plusx.explain import windows
from plusx.explain.cam import class_activation, pooled_head
from plusx.explain.evidence import CLOSER, METHODS, PLACES, Evidence, batches, contrasts, occlusions
from plusx.explain.grad_cam import grad_cam, last_convolution
from plusx.explain.windows import Window
from plusx.model_file import ModelFile

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Map = Callable[[Tensor, Tensor], Tensor]


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
        return Evidence.of_parts([self._evidence(pixels[part], labels[part]) for part in batches(len(pixels))])

    def features(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Unit vectors [n, D] of what the head sees of photos [n, S, S, 3]."""
        return self.engine.features(pixels)

    def _evidence(self, pixels: Pixels, labels: Labels) -> Evidence:
        images, header = self.engine.images(pixels), self.model.header
        contrast = torch.from_numpy(contrasts(labels, len(header.classes))).to(self.engine.device)
        views = windows.of_views(self.engine.views)
        odds = torch.stack([self._odds(images, view, contrast) for view in views]).mean(0).cpu().double().numpy()
        if self._map is None:
            return Evidence(occlusions(self.engine.probabilities, pixels, labels, header), odds)
        looks = [*views, *windows.sliding(CLOSER, PLACES)]
        maps = [(look, in_memory(self._map(self._shown(images, look), contrast))) for look in looks]
        return Evidence(windows.joined(maps), odds)

    def _shown(self, images: Tensor, window: Window) -> Tensor:
        return shown(images, window, self.engine.size)

    @torch.inference_mode()
    def _odds(self, images: Tensor, window: Window, contrast: Tensor) -> Tensor:
        odds: Tensor = (self.engine.network(self._shown(images, window)) * contrast).sum(1)
        return odds

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


def shown(images: Tensor, window: Window, size: int) -> Tensor:
    """The part of `images` [n, 3, S, S] in the window, at `size` px: [n, 3, size, size], float32 of bytes."""
    top, left, share = (np.array([value]) for value in window[:3])
    part = geometry.Window(top, left, share, share, np.array([window.mirrored]))
    dtype = images.dtype if images.is_floating_point() else torch.float32
    return geometry.resample(images, part, size, dtype)


def in_memory(maps: Tensor) -> npt.NDArray[np.floating[Any]]:
    """Maps [n, h, w] off their device, before they become float64, which some devices have not."""
    return np.asarray(maps.cpu().float().numpy())


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
