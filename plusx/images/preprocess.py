"""Preprocess: from a photo to the pixels a network gets, one frozen value that travels with the weights.

Geometry is that of torchvision's Resize and CenterCrop on Pillow images, bit for bit; the result is
uint8. Scaling and normalisation are the network's first operation, so that nothing else needs them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, features

from plusx.errors import images as errors
from plusx.images import decode
from plusx.images.colour import WHITE, flatten

Pixels = npt.NDArray[np.uint8]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_RULES = 1  # counted up when the decoder or the geometry gives other pixels, so that caches are rebuilt


@dataclass(frozen=True)
class Preprocess:
    """Short side to `resize` pixels (bilinear, antialiased), then the central `crop` x `crop` of it.

    `background` shows through transparency, RGB 0..255. `mean` and `std` are those of the normalisation
    on the 0..1 scale; they ride along for the network and change no pixel here. With `decoder_scale`,
    JPEGs are decoded at a fraction of their size, never below twice `resize`: faster, with other pixels.
    Raises UsageError where `crop` does not fit into `resize`.
    """

    resize: int
    crop: int
    background: tuple[int, int, int] = WHITE
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    decoder_scale: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise errors.crop_over_resize(self.resize, self.crop)

    def __call__(self, image: Image.Image) -> Pixels:
        """An upright image to uint8 pixels [crop, crop, 3]; modes other than RGB are flattened first."""
        image = flatten(image, self.background)
        width, height = _resized(image.width, image.height, self.resize)
        if width * height > decode.MAX_PIXELS:
            image, width, height = self._sliver(image)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = _centre(width, self.crop), _centre(height, self.crop)
        return np.array(image.crop((left, top, left + self.crop, top + self.crop)))

    def from_bytes(self, data: bytes, most: int = decode.MAX_PIXELS) -> Pixels:
        """An image file's bytes, of `most` pixels at most, to uint8 pixels [crop, crop, 3]. Raises Undecodable."""
        draft = 2 * self.resize if self.decoder_scale else 0
        return self(decode.decode(data, self.background, draft=draft, most=most))

    def seen(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of an upright photo that is kept, in its pixels: left, top, right, bottom."""
        resized = _resized(width, height, self.resize)
        left, top = (_centre(side, self.crop) for side in resized)
        across, down = width / resized[0], height / resized[1]
        return left * across, top * down, (left + self.crop) * across, (top + self.crop) * down

    def enlarged(self, factor: float) -> Preprocess:
        """The same rule with `resize` and `crop` at `factor` times their size, rounded up."""
        crop = _up(self.crop * factor)
        return replace(self, resize=max(crop, _up(self.resize * factor)), crop=crop)

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON types, readable by `from_json`."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items()}

    @classmethod
    def from_json(cls, d: Mapping[str, Any]) -> Preprocess:
        """The value that `to_json` wrote. Raises ModelError where a field is missing, unknown or of another type."""
        for name in {**d, **_FIELDS}:
            expected, is_valid = _FIELDS.get(name, ("absent", lambda _: False))
            if not is_valid(d.get(name)):
                raise errors.bad_preprocess(name, expected, d.get(name))
        if d["crop"] > d["resize"]:
            raise errors.bad_preprocess("crop", f"at most the short side, {d['resize']}", d["crop"])
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in d.items()}
        return cls(**fields)

    def key(self) -> str:
        """A stable hash of all that decides the pixels: geometry, background, decoder; not `mean` and `std`."""
        decider = {
            "resize": self.resize,
            "crop": self.crop,
            "background": self.background,
            "decoder_scale": self.decoder_scale,
            "rules": _RULES,
            "pillow": PIL.__version__,
            "libjpeg": features.version("jpg"),
        }
        if heif := decode.heif_version():  # with it, what was refused before is read
            decider["pi-heif"] = heif
        return hashlib.sha256(json.dumps(decider, sort_keys=True).encode()).hexdigest()[:32]

    def _sliver(self, image: Image.Image) -> tuple[Image.Image, int, int]:
        # One pixel by 20,000 would be resized to a gigabyte, nearly all of it outside the crop: what lies
        # outside is cut away before. Only such photos differ from torchvision, by rounding.
        short = min(image.size)
        keep = math.ceil(short * self.crop / self.resize) + 4
        boxes = [(_centre(side, min(side, keep)), min(side, keep)) for side in image.size]
        (left, width), (top, height) = boxes
        cut = image.crop((left, top, left + width, top + height))
        return cut, *_resized(width, height, self.resize)


def _resized(width: int, height: int, short: int) -> tuple[int, int]:
    if width <= height:
        return short, int(short * height / width)
    return int(short * width / height), short


def _centre(side: int, crop: int) -> int:
    return round((side - crop) / 2.0)


def _up(size: float) -> int:
    return math.ceil(round(size, 6))  # 60 x 1.15 is 69, whatever the last bit of the product says


def _is_size(value: object) -> bool:
    return type(value) is int and value >= 1


def _is_three(value: object, low: float, high: float, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) in kinds and low <= v <= high for v in value)


_TINY = 1e-6  # a standard deviation of zero would divide by zero
_FIELDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "resize": ("a whole number of pixels", _is_size),
    "crop": ("a whole number of pixels", _is_size),
    "background": ("three whole numbers from 0 to 255", lambda v: _is_three(v, 0, 255, (int,))),
    "mean": ("three numbers from 0 to 1", lambda v: _is_three(v, 0.0, 1.0, (int, float))),
    "std": ("three positive numbers", lambda v: _is_three(v, _TINY, math.inf, (int, float))),
    "decoder_scale": ("true or false", lambda v: isinstance(v, bool)),
}
