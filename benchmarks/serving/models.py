"""Models to serve where the user has none: networks with random weights, whose work is that of trained ones."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Made(NamedTuple):
    """A network by name and width, and the pixels it sees."""

    network: str
    pixels: int
    width: float = 1.0


MADE = {"resnet18": Made("resnet18", 224), "small": Made("resnet10", 32, 0.25)}


def found(name: str, work: Path) -> Path:
    """The ONNX file of that name: one that is there, or one of MADE, written to `work` once."""
    if name not in MADE:
        return Path(name)
    path = work / f"{name}.onnx"
    if not path.exists():
        path.write_bytes(_exported(MADE[name]))
    return path


def _exported(made: Made) -> bytes:
    import torch

    from plusx.engines.torch_engine import build
    from plusx.export.onnx import to_onnx
    from plusx.images.preprocess import Preprocess
    from plusx.model_file import Header, ModelFile

    torch.manual_seed(0)
    preprocess = Preprocess(resize=made.pixels * 256 // 224, crop=made.pixels)
    network = {"name": made.network} | ({"width": made.width} if made.width != 1 else {})
    built = build(network, 2, preprocess.mean, preprocess.std)
    header = Header(classes=("cat", "dog"), preprocess=preprocess, network=network)
    return to_onnx(ModelFile(header, {name: tensor.numpy() for name, tensor in built.state_dict().items()}))
