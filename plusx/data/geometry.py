"""Crop, scale and flip of a whole batch in one resampling: two small matrix products per photo.

Resizing is separable, so a crop scaled to S pixels is R @ image @ C^T with one row of weights per output
pixel. The weights are those of an antialiased triangle filter; a mirrored photo reads its columns from the
right. Matrix products are fast on every device and give equal bits for equal inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plusx import keyed

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Window:
    """The part of each photo that is kept, as fractions of its height and width; each array has shape [B]."""

    top: Floats
    left: Floats
    height: Floats
    width: Floats
    mirrored: Flags


def whole(mirrored: Flags) -> Window:
    """Windows that keep everything, mirrored or not."""
    return middle(1.0, mirrored)


def middle(share: float, mirrored: Flags) -> Window:
    """Windows that keep the middle `share` of each side, mirrored or not."""
    margin, extent = np.full(len(mirrored), (1 - share) / 2), np.full(len(mirrored), share)
    return Window(margin, margin, extent, extent, mirrored)


def random_windows(numbers: Floats, scale: tuple[float, float], ratio: tuple[float, float], mirrored: Flags) -> Window:
    """Windows of random area, aspect ratio and place (Szegedy et al. 2014, arXiv 1409.4842, section 6).

    `numbers` are uniform, shape [B, 4]. The area is uniform in `scale`, the aspect ratio log-uniform in
    `ratio`; a side longer than the photo is cut to it.
    """
    area = scale[0] + numbers[:, 0] * (scale[1] - scale[0])
    low, high = np.log(ratio[0]), np.log(ratio[1])
    aspect = np.exp(low + numbers[:, 1] * (high - low))
    width = np.minimum(1.0, np.sqrt(area * aspect))
    height = np.minimum(1.0, np.sqrt(area / aspect))
    return Window(numbers[:, 2] * (1 - height), numbers[:, 3] * (1 - width), height, width, mirrored)


def mirrored(kind: str, seed: int, epoch: int, indices: npt.NDArray[np.int64]) -> Flags:
    """Which photos are mirrored in this epoch, shape [B].

    "random": each epoch anew. "alternating": at random in epoch 0, and then every other epoch, so that
    both sides are seen in any two (Jordan 2024, arXiv 2404.00498, section 3.6).
    """
    if kind == "none":
        return np.zeros(len(indices), dtype=bool)
    drawn_in = 0 if kind == "alternating" else epoch
    coin = keyed.words(seed, drawn_in, indices, "flip")[:, 0] >> np.uint64(63) == 1
    flipped: Flags = coin ^ bool(epoch % 2) if kind == "alternating" else coin
    return flipped


def padded_crop(images: Tensor, pixels: int, numbers: Floats, colour: Sequence[float]) -> Tensor:
    """`images` [B, 3, S, S] with `pixels` of `colour` (0..255) around them, each cropped at random back to its size.

    `numbers` are uniform, shape [B, 2]: the place of the crop, from the top and from the left. Of the dtype of
    `images`, and channels last (Lee et al. 2014, arXiv 1409.5185; He et al. 2015, arXiv 1512.03385, section 4.2).
    """
    batch, channels, size, _ = images.shape
    side, places = size + 2 * pixels, 2 * pixels + 1
    filled = torch.tensor(colour, device=images.device).round().to(images.dtype)
    canvas = filled.repeat(batch, side, side, 1)  # [B, side, side, 3]
    canvas[:, pixels : pixels + size, pixels : pixels + size] = images.permute(0, 2, 3, 1)
    row, line = channels, side * channels
    # every crop there is, as a view: [B, top, left, S, S*3]
    crops = canvas.as_strided((batch, places, places, size, size * row), (side * line, line, row, line, 1))
    top, left = torch.from_numpy((numbers * places).astype(np.int64).T).to(images.device)
    taken = crops[torch.arange(batch, device=images.device), top, left]
    return taken.view(batch, size, size, channels).permute(0, 3, 1, 2)


def resample(images: Tensor, window: Window, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The windows of `images` [B, 3, h, w] scaled to `size`, `dtype` [B, 3, size, size] on the same scale.

    bfloat16 holds every value of a byte exactly and rounds what is computed by up to half a level of 255.
    """
    height, width = images.shape[2:]
    upright = np.zeros_like(window.mirrored)
    rows = _weights(window.top, window.height, upright, (size, height), images.device)  # [B, size, h]
    columns = _weights(window.left, window.width, window.mirrored, (size, width), images.device)  # [B, size, w]
    return _product(images.to(dtype), rows.to(dtype), columns.to(dtype))


def scaled(images: Tensor, size: int, share: float = 1.0) -> Tensor:
    """The middle `share` of each side of images [B, 3, S, S] at `size`; the very same where all has that size."""
    if share == 1 and size == images.shape[-1]:
        return images
    dtype = images.dtype if images.is_floating_point() else torch.float32
    rows, columns = (middle_weights(side, size, share, images.device).to(dtype)[None] for side in images.shape[-2:])
    return _product(images.to(dtype), rows, columns)


def middle_weights(pixels: int, size: int, share: float, device: torch.device | None = None) -> Tensor:
    """What `size` places are made of, out of the middle `share` of `pixels`: [size, pixels], float32."""
    window = middle(share, np.zeros(1, dtype=bool))
    return _weights(window.top, window.height, window.mirrored, (size, pixels), device or torch.device("cpu"))[0]


def _product(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """R @ image @ C^T of every photo: images [B, 3, h, w], weights [B or 1, S, h or w] -> [B, 3, S, S], channels last.

    Photos are stored pixel by pixel: summing over heights first, then over widths, moves none of them about.
    """
    batch, channels, height, width = images.shape
    size = rows.shape[1]
    lines = images.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    low = torch.bmm(lines.transpose(1, 2), rows.expand(batch, size, height).transpose(1, 2))  # [B, w*3, S]
    small = torch.bmm(columns.expand(batch, size, width), low.view(batch, width, channels * size))  # [B, S, 3*S]
    upright = small.view(batch, size, channels, size).permute(0, 2, 3, 1)  # [B, 3, S, S]
    return upright.contiguous(memory_format=torch.channels_last)


def _weights(start: Floats, extent: Floats, backwards: Flags, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Triangle-filter weights [B, size, pixels] for `shape` = (size, pixels); every row sums to 1."""
    size, pixels = shape
    first, scale = (_column(values * pixels, device) for values in (start, extent / size))  # [B, 1], input pixels
    places = torch.arange(size, dtype=torch.float32, device=device) + 0.5
    places = torch.where(torch.from_numpy(backwards).to(device)[:, None], size - places, places)  # [B, size]
    # A centre outside the photo is moved to its edge, or enlarging would leave the outermost pixels without weight.
    centres = (first + places * scale - 0.5).clamp(0, pixels - 1)
    reach = scale.clamp(min=1.0)  # wider than a pixel when shrinking: antialiased
    distance = (torch.arange(pixels, dtype=torch.float32, device=device) - centres[:, :, None]).abs_()
    weights = distance.div_(reach[:, :, None]).neg_().add_(1.0).clamp_(min=0.0)
    return weights.div_(weights.sum(dim=2, keepdim=True))


def _column(values: Floats, device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device)[:, None]
