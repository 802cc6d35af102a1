"""Whether every network gives the same answers once it is exported.

    python benchmarks/parity.py names PHOTOS --width 0.25 --out lines.jsonl
    python benchmarks/parity.py batches PHOTOS --names resnet18 vgg11-bn --photos 1000 --out lines.jsonl

PHOTOS is any DATA of plusx. `names` tries all of `list_models` (or `--names`) on a few photos, `batches` few networks
on many photos in batches of 1, 7 and 8. Weights are drawn; so that answers differ from photo to photo, norms have seen
the photos once and the last layer is scaled until the logits spread over the photos as a trained network's do. Model
and export differ where a probability is off by more than 1e-4, or another class is likeliest and the margin of the two
likeliest is above 1e-3. One JSON line for each network; the table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from table import row_of
from torch import nn

from plusx import keyed
from plusx.classifier import Classifier
from plusx.data.source import scan
from plusx.engines.torch_engine import build, trained_network
from plusx.export.agreement import MARGIN, MOST
from plusx.export.onnx import to_onnx
from plusx.images.decode import BadPhoto
from plusx.images.pool import DecodePool
from plusx.images.preprocess import Preprocess
from plusx.model_file import Header, ModelFile
from plusx.models import list_models, minimum_size
from plusx.models.described import descriptor_size
from plusx.models.normalise import Normalised
from plusx.models.registry import TIMM
from plusx.trust.calibration import Calibration
from plusx.trust.novelty import Discriminant

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

SIDE, CLASSES = 64, 10
VIEWS = ("identity", "closer-flip")
CALIBRATION = Calibration(1.7, 100, 100, 1.0, 0.9, 0.1, 0.05).to_json()
SPREAD = 2.0  # standard deviation of the logits of a class over the photos
BATCHES = (1, 8, 7)
CHAOS = 10  # times the network's own rounding, which is measured on one view of a few photos


@dataclass(frozen=True)
class Found:
    """What one network showed: `apart` is the largest difference of a probability, `flips` other answers where the
    margin is above MARGIN, `classes` how many classes were answered at all; accuracies are of model and export.

    `own` is the largest difference between PyTorch's own answers in float32 and in float64: drawn networks of many
    layers are chaotic, and what they make of a rounding says nothing of the export.
    """

    name: str
    width: float
    pixels: int
    photos: int
    batch: int
    apart: float
    own: float
    novelty: float
    flips: int
    classes: int
    accuracy: tuple[float, float]
    megabytes: float
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether the two are the same, or no further apart than the network is from itself."""
        same = self.apart <= MOST and not self.flips and self.accuracy[0] == self.accuracy[1]
        return same or (self.own > MOST and self.apart <= CHAOS * self.own)


def drawn_model(name: str, photos: Pixels, classes: int, width: float = 1.0) -> ModelFile:
    """A network with drawn weights whose answers differ between `photos` [n, S, S, 3], with temperature and novelty."""
    torch.manual_seed(0)
    network = {"name": name} if width == 1 or name.startswith(TIMM) else {"name": name, "width": width}
    preprocess = Preprocess(photos.shape[1], photos.shape[1])
    built = build(network, classes, preprocess.mean, preprocess.std)
    _lively(built, torch.from_numpy(photos).permute(0, 3, 1, 2))
    tensors = {key: value.detach().numpy() for key, value in built.state_dict().items()}
    described = descriptor_size(built.network)
    if described:
        weights = keyed.uniform(0, 0, np.arange(described), "novelty", 1)[:, 0] - 0.5
        tensors |= Discriminant(weights.astype(np.float32) / described, 0.1).tensors()
    names = tuple(f"class {i}" for i in range(classes))
    return ModelFile(Header(names, preprocess, network, views=VIEWS, calibration=CALIBRATION), tensors)


@torch.no_grad()
def _lively(network: Normalised, images: torch.Tensor) -> None:
    """Norms get the statistics of the images, and the last layer logits that differ between them."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of what is seen
    network.train()
    for part in images.split(32):
        network(part)
    network.eval()
    head: Any = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    logits = torch.cat([network(part) for part in images.split(32)])
    scale = SPREAD / logits.std(0).clamp_min(1e-12)
    view = (-1, *[1] * (head.weight.ndim - 1))
    head.weight.mul_(scale.view(view))
    before = torch.zeros(len(scale)) if head.bias is None else head.bias
    if head.bias is not None:
        head.bias.copy_(scale * (before - logits.mean(0)))


def compared(model: ModelFile, photos: Pixels, labels: npt.NDArray[np.int64], batch: int) -> Found:
    """Model and export on photos [n, S, S, 3] with `labels` [n], in batches of `batch`."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(to_onnx(model))
        pair = Classifier.of(model, "cpu", path, "fp32"), Classifier.load(path)
        (ours, our_novelty), (theirs, their_novelty) = (_said(each, photos, batch) for each in pair)
        megabytes = path.stat().st_size / 1e6
    top = np.sort(ours, axis=1)
    flips = (ours.argmax(1) != theirs.argmax(1)) & (top[:, -1] - top[:, -2] > MARGIN)
    strange = np.abs(our_novelty - their_novelty)
    network = model.header.network
    return Found(
        name=str(network["name"]),
        width=float(network.get("width", 1.0)),
        pixels=photos.shape[1],
        photos=len(photos),
        batch=batch,
        apart=float(np.abs(ours - theirs).max()),
        own=_own(model, photos[:64]),
        novelty=0.0 if np.isnan(strange).all() else float(strange.max()),
        flips=int(flips.sum()),
        classes=len(set(ours.argmax(1).tolist())),
        accuracy=(float((ours.argmax(1) == labels).mean()), float((theirs.argmax(1) == labels).mean())),
        megabytes=megabytes,
        seconds=time.perf_counter() - begun,
    )


def _said(classifier: Classifier, photos: Pixels, batch: int) -> tuple[Floats, Floats]:
    """Probabilities [n, C] and novelty [n]."""
    rows = [p for i in range(0, len(photos), batch) for p in classifier.answers(photos[i : i + batch])]
    probabilities = np.array([list(row.probabilities.values()) for row in rows])
    return probabilities, np.array([np.nan if row.novelty is None else row.novelty for row in rows])


@torch.no_grad()
def _own(model: ModelFile, photos: Pixels) -> float:
    """By how much the network itself differs between float32 and float64, at its first view."""
    images = torch.from_numpy(photos).permute(0, 3, 1, 2)
    normalised = trained_network(model).eval()
    seen = normalised.normalise(images)
    single = normalised.network(seen).softmax(1).double()
    return float((single - normalised.network.double()(seen.double()).softmax(1)).abs().max())


def decoded(data: str, count: int, side: int) -> tuple[Pixels, npt.NDArray[np.int64], int]:
    """`count` photos of DATA, evenly, as pixels [n, side, side, 3]; their labels [n]; how many classes there are."""
    listing = scan([data], trainable=False)
    places = np.linspace(0, len(listing.photos) - 1, count).round().astype(int)
    chosen = [listing.photos[i] for i in places]
    with DecodePool(Preprocess(side, side)) as pool:
        found = {i: row for i, row in pool.map([p.source for p in chosen]) if not isinstance(row, BadPhoto)}
    labels = np.array([chosen[i].label or 0 for i in sorted(found)])
    return np.stack([found[i] for i in sorted(found)]), labels, len(listing.classes)


def table(lines: Sequence[dict[str, Any]]) -> list[str]:
    """A Markdown table, a row for each network and batch size."""
    head = ("network", "width", "px", "photos", "batch", "largest difference", "its own", "of novelty", "other answers")
    rows = [row_of(*head, "classes answered", "accuracy", "MB"), row_of(*["---"] * (len(head) + 3))]
    for line in lines:
        ours, theirs = line["accuracy"]
        same = f"{ours:.4f}" if ours == theirs else f"{ours:.4f}, {theirs:.4f}"
        size = (line["name"], line["width"], line["pixels"], line["photos"], line["batch"])
        apart = (f"{line['apart']:.1e}", f"{line['own']:.1e}", f"{line['novelty']:.1e}", line["flips"])
        rows.append(row_of(*size, *apart, line["classes"], same, f"{line['megabytes']:.1f}"))
    return rows


def _of_names(names: Sequence[str], data: str, count: int, width: float) -> list[Found]:
    found = []
    for name in names:
        side = max(SIDE, 0 if name.startswith(TIMM) else minimum_size(name))
        photos, labels, _ = decoded(data, count, side)
        found.append(compared(drawn_model(name, photos, CLASSES, width), photos, labels, len(photos)))
        _told(found[-1])
    return found


def _of_batches(names: Sequence[str], data: str, count: int, width: float) -> list[Found]:
    photos, labels, classes = decoded(data, count, SIDE)
    found = []
    for name in names:
        model = drawn_model(name, photos[:: max(1, count // 128)], max(2, classes), width)
        for batch in BATCHES:
            found.append(compared(model, photos, labels, batch))
            _told(found[-1])
    return found


def _told(found: Found) -> None:
    mark = "" if found.holds else "  DIFFERS"
    print(f"{found.name} x{found.batch}: {found.apart:.1e}, {found.seconds:.1f} s{mark}", flush=True)


def main() -> None:
    """Compare, then print the table; exit code 1 where a network differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("names", "batches"))
    parser.add_argument("data")
    parser.add_argument("--names", nargs="+", default=list(list_models()))
    parser.add_argument("--photos", type=int, default=32)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    run = _of_names if wanted.what == "names" else _of_batches
    found = run(wanted.names, wanted.data, wanted.photos, wanted.width)
    lines = [asdict(each) for each in found]
    if wanted.out:
        wanted.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print("\n".join(table(lines)))
    raise SystemExit(0 if all(each.holds for each in found) else 1)


if __name__ == "__main__":
    main()
