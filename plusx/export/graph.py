"""The whole answer as one network: pixels as photos are decoded in, probabilities, strangeness and evidence out.

What a model file says in its header is in the graph: normalisation, views, temperature, the score of novelty. So
whoever runs the graph needs to know nothing of them.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from plusx.data import geometry
from plusx.engines.folded import folded
from plusx.engines.looks import VIEWS
from plusx.engines.onnx_engine import EVIDENCE, NOVELTY, PROBABILITIES
from plusx.engines.torch_engine import trained_network
from plusx.metrics import LEAST
from plusx.model_file import ModelFile
from plusx.models.described import Staged, descriptor, descriptor_size
from plusx.models.resnet import ResNet
from plusx.trust.calibration import Calibration
from plusx.trust.novelty import Discriminant


class Exportable(nn.Module):
    """uint8 pixels [n, S, S, 3] to calibrated probabilities [n, C] and, where the network has them, two more.

    Novelty [n], by the first view; evidence [n, C, h, w], the class-activation maps of the first view: what every place
    contributes to the logit of every class (Zhou et al. 2016, section 2). `outputs` names what there is, in order.
    """

    mean: Tensor
    std: Tensor
    strange: Tensor

    def __init__(self, model: ModelFile) -> None:
        super().__init__()
        header = model.header
        network = trained_network(model).network.eval()
        size = descriptor_size(network)
        self.discriminant = Discriminant.found(model.tensors, size)
        self.pooled = isinstance(network, ResNet)
        self.network: nn.Module = folded(Seen(network)) if size is not None else network
        self.describes = size is not None
        self.views = header.views
        self.temperature = Calibration.from_json(header.calibration).temperature if header.calibration else 1.0
        self._keep_geometry(header.preprocess.crop, header.size or header.preprocess.crop)
        for name, values in (("mean", header.preprocess.mean), ("std", header.preprocess.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        if self.discriminant is not None:
            self.register_buffer("strange", torch.from_numpy(self.discriminant.weights))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it gives."""
        given = {PROBABILITIES: True, NOVELTY: self.discriminant is not None, EVIDENCE: self.pooled}
        return tuple(name for name, there in given.items() if there)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Everything in `outputs`."""
        images = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        looks = [self.network(self._seen(images, view)) for view in self.views]
        if not self.describes:
            return (self._tempered(looks),)
        found = [self._tempered([logits for logits, *_ in looks])]
        _, descriptors, maps = looks[0]
        if self.discriminant is not None:
            found.append(descriptors @ self.strange + self.discriminant.bias)
        return (*found, maps) if self.pooled else tuple(found)

    def _keep_geometry(self, pixels: int, size: int) -> None:
        for share in {VIEWS[view].share for view in self.views}:
            same = share == 1 and pixels == size
            self.register_buffer(_matrix(share), None if same else geometry.middle_weights(pixels, size, share))

    def _seen(self, images: Tensor, view: str) -> Tensor:
        share, mirrored = VIEWS[view]
        weights: Any = getattr(self, _matrix(share))
        seen = images if weights is None else weights @ images @ weights.T
        return seen.flip(3) if mirrored else seen

    def _tempered(self, looks: list[Tensor]) -> Tensor:
        """`averaged`, then `temper`, in one."""
        mean = torch.stack([logits.softmax(dim=1) for logits in looks]).mean(dim=0)
        if self.temperature == 1:
            return mean
        return (mean.double().clamp(LEAST, 1.0).log() / self.temperature).softmax(dim=1).float()


class Seen(nn.Module):
    """A network of stages on normalised images: logits [n, C], descriptors [n, D], and what every place contributes.

    That is [n, C, h, w] where the network ends in pooling and one linear layer; else it is its last maps.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.places: nn.Module = nn.Identity()
        if isinstance(network, ResNet):
            self.places = nn.Conv2d(network.fc.in_features, network.fc.out_features, 1)
            self.places.load_state_dict({"weight": network.fc.weight[:, :, None, None], "bias": network.fc.bias})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[n, 3, H, W] -> [n, C], [n, D], [n, C or channels, h, w]."""
        staged = cast(Staged, self.network)
        maps = staged.stage_maps(x)
        return staged.head(maps[-1]), descriptor(maps), self.places(maps[-1])


def _matrix(share: float) -> str:
    return f"weights_{round(100 * share)}"
