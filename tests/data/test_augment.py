"""Keyed augmentation: pure, exact where it can be, and never outside the range of pixels."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from plusx.config import Config
from plusx.data import augment, colour, geometry, mixing
from plusx.data.augment import Augment
from plusx.models.normalise import Normalised

SIZE = 12
EVERYTHING = Augment(
    flip="random", crop_scale=(0.35, 1.0), pad=0.1, colour=0.4, erasing=0.5, policy="trivial", mixup=0.2, cutmix=1.0
)


def pictures(n: int, size: int = SIZE) -> Tensor:
    return torch.randint(0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def labels(n: int) -> Tensor:
    return torch.arange(n) % 3


def augmented(
    images: Tensor, how: Augment, *, epoch: int = 0, step: int = 0, size: int = SIZE
) -> tuple[Tensor, Tensor]:
    parameters = augment.draw(how, 0, epoch, np.arange(len(images)), step)
    return augment.apply(images, labels(len(images)), how, parameters, size, 3)


def window(top: float, left: float, height: float, width: float, mirrored: bool = False) -> geometry.Window:
    columns = (np.array([value]) for value in (top, left, height, width))
    return geometry.Window(*columns, mirrored=np.array([mirrored]))


def test_no_augmentation_gives_the_very_pixels() -> None:
    images = pictures(4)
    out, targets = augmented(images, Augment())
    assert out.dtype == torch.uint8
    assert torch.equal(out, images)
    assert torch.equal(targets, labels(4))


def test_the_fields_are_those_of_the_configuration() -> None:
    config = Config(flip="random", crop_scale=(0.5, 1.0), erasing=0.25)
    assert Augment.of(config.model_dump()) == Augment(flip="random", crop_scale=(0.5, 1.0), erasing=0.25)
    assert Augment() == Augment.of(Config().model_dump())


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_augmenting_is_a_pure_function_of_seed_epoch_and_samples(cutmix: float) -> None:
    how = dataclasses.replace(EVERYTHING, cutmix=cutmix)
    images, first = pictures(8), augmented(pictures(8), how, epoch=3, step=30)
    augmented(images, how, epoch=4, step=31)
    torch.manual_seed(99)
    again = augmented(images, how, epoch=3, step=30)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(images, pictures(8))  # what goes in is left alone
    other = augmented(images, how, epoch=4, step=30)[0]
    assert not torch.equal(first[0], other)


def test_what_happens_to_a_photo_does_not_depend_on_its_batch() -> None:
    together = augment.draw(EVERYTHING, 5, 2, np.arange(64), 0)
    alone = augment.draw(EVERYTHING, 5, 2, np.array([7]), 9)
    for name in ("shift", "colour", "policy", "erased"):
        np.testing.assert_array_equal(getattr(together, name)[7], getattr(alone, name)[0])
    for field in dataclasses.fields(geometry.Window):
        assert getattr(together.window, field.name)[7] == getattr(alone.window, field.name)[0]


def test_a_flip_mirrors_the_columns_exactly() -> None:
    images = pictures(16)
    out, _ = augmented(images, Augment(flip="random"))
    flags = geometry.mirrored("random", 0, 0, np.arange(16))
    assert 3 <= flags.sum() <= 13
    for i, flag in enumerate(flags):
        assert torch.equal(out[i], images[i].flip(2) if flag else images[i])


def test_an_alternating_flip_shows_both_sides_in_any_two_epochs() -> None:
    samples = np.arange(1000)
    flips = [geometry.mirrored("alternating", 0, epoch, samples) for epoch in range(4)]
    assert 400 < flips[0].sum() < 600
    for before, after in itertools.pairwise(flips):
        np.testing.assert_array_equal(before, ~after)
    fresh = [geometry.mirrored("random", 0, epoch, samples) for epoch in range(2)]
    assert 400 < (fresh[0] != fresh[1]).sum() < 600


def test_a_whole_window_at_the_same_size_gives_the_same_pixels() -> None:
    images = pictures(3)
    upright, turned = (geometry.whole(np.full(3, flag)) for flag in (False, True))
    assert torch.equal(geometry.resample(images, upright, SIZE), images.float())
    assert torch.equal(geometry.resample(images, turned, SIZE), images.flip(3).float())


@pytest.mark.parametrize("size", [5, 8, 12, 30])
def test_resizing_equals_antialiased_bilinear_interpolation(size: int) -> None:
    images = pictures(3, 12)
    ours = geometry.resample(images, geometry.whole(np.zeros(3, dtype=bool)), size)
    theirs = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_crop_of_a_ramp_lands_where_geometry_says(mirrored: bool) -> None:
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    ramps = torch.stack([rows, columns, torch.full_like(rows, 7)])[None]  # each pixel's own coordinates
    out = geometry.resample(ramps, window(0.25, 0.5, 0.5, 0.25, mirrored), 10)[0]
    down = 10 + (torch.arange(10.0) + 0.5) * 2 - 0.5  # 20 rows from row 10 on, two to a pixel
    across = 20 + (torch.arange(10.0) + 0.5) * 1 - 0.5
    torch.testing.assert_close(out[0], down[:, None].expand(10, 10), rtol=0, atol=1e-4)
    torch.testing.assert_close(out[1], (across.flip(0) if mirrored else across).expand(10, 10), rtol=0, atol=1e-4)
    torch.testing.assert_close(out[2], torch.full((10, 10), 7.0), rtol=0, atol=1e-5)


def test_windows_keep_to_the_scale_the_ratio_and_the_photo() -> None:
    numbers = np.random.default_rng(0).random((5000, 4))
    w = geometry.random_windows(numbers, (0.35, 1.0), (0.75, 4 / 3), np.zeros(5000, dtype=bool))
    assert (w.top >= 0).all()
    assert (w.top + w.height <= 1 + 1e-12).all()
    assert (w.left + w.width <= 1 + 1e-12).all()
    area, whole = w.height * w.width, (w.height < 1) & (w.width < 1)
    assert area.max() <= 1
    assert 0.35 <= area[whole].min() < 0.36
    assert 0.75 - 1e-9 <= (w.width / w.height)[whole].min() < 0.76
    assert 1.32 < (w.width / w.height)[whole].max() <= 4 / 3 + 1e-9


def test_the_training_size_may_differ_from_the_stored_one() -> None:
    images = pictures(2, 16)
    for how in (Augment(), Augment(flip="random"), Augment(crop_scale=(0.5, 1.0))):
        assert augmented(images, how, size=9)[0].shape == (2, 3, 9, 9)


def padded_slowly(image: Tensor, pad: int, numbers: npt.NDArray[np.float64], mean: tuple[float, ...]) -> Tensor:
    """One photo at a time, one pixel after the other."""
    size = image.shape[1]
    top, left = (int(number * (2 * pad + 1)) - pad for number in numbers)
    out = torch.empty_like(image)
    for channel, row, column in itertools.product(range(3), range(size), range(size)):
        inside = 0 <= row + top < size and 0 <= column + left < size
        out[channel, row, column] = image[channel, row + top, column + left] if inside else round(255 * mean[channel])
    return out


@pytest.mark.parametrize(("pad", "pixels"), [(1 / 12, 1), (1 / 3, 4)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_padding_and_cropping_moves_photos_and_fills_with_the_mean_colour(
    pad: float, pixels: int, channels_last: bool
) -> None:
    images = pictures(40)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    how = Augment(flip="random", pad=pad, mean=(0.5, 0.25, 0.75))
    out, _ = augmented(images, how, epoch=3)
    assert (out.dtype, out.shape) == (torch.uint8, images.shape)
    assert out.is_contiguous(memory_format=torch.channels_last)
    numbers = augment.draw(how, 0, 3, np.arange(40), 0).shift
    assert numbers is not None
    flags = geometry.mirrored("random", 0, 3, np.arange(40))
    for i in range(40):
        image = images[i].flip(2) if flags[i] else images[i]
        assert torch.equal(out[i], padded_slowly(image, pixels, numbers[i], how.mean))
    assert torch.equal(images, pictures(40))


def test_a_padded_photo_lies_at_every_place_about_as_often_as_at_any_other() -> None:
    numbers = augment.draw(Augment(pad=0.125), 0, 0, np.arange(8100), 0).shift
    assert numbers is not None
    bright = torch.full((8100, 1, 1, 1), 255, dtype=torch.uint8).expand(-1, 3, 8, 8)
    out = geometry.padded_crop(bright, 1, numbers, (0.0, 0.0, 0.0))[:, 0] > 0
    up, down = ~out[:, 7].any(1), ~out[:, 0].any(1)
    left, right = ~out[:, :, 7].any(1), ~out[:, :, 0].any(1)
    rows, columns = (torch.stack([a, b, ~(a | b)]).float() for a, b in ((up, down), (left, right)))
    counts = rows @ columns.T
    assert counts.sum() == 8100
    assert (counts - 900).abs().max() < 4 * 900**0.5


def test_padding_follows_the_training_size_and_floats_stay_floats() -> None:
    out, _ = augmented(pictures(6, 16), Augment(pad=0.25), size=8)
    assert (out.dtype, out.shape) == (torch.float32, (6, 3, 8, 8))
    nothing, _ = augmented(pictures(6), Augment(pad=0.01))
    assert torch.equal(nothing, pictures(6))


def test_what_is_padded_is_zero_to_the_network() -> None:
    mean, std = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
    how = Augment(pad=0.5, mean=mean)
    out, _ = augmented(torch.full((30, 3, 8, 8), 255, dtype=torch.uint8), how, size=8)
    seen = Normalised(torch.nn.Identity(), mean, std)(out)
    filled = seen[(out != 255).all(1, keepdim=True).expand_as(seen)]
    assert len(filled) > 1000
    assert filled.abs().max() < 0.5 / 255 / 0.24  # half a level of 255


def test_erasing_covers_rectangles_of_some_photos_and_nothing_else() -> None:
    images = pictures(64, 32)
    out, _ = augmented(images, Augment(erasing=0.5), size=32)
    changed = (out != images).any(dim=1)  # [B, H, W]
    touched = changed.flatten(1).any(dim=1)
    assert 16 < int(touched.sum()) < 48
    for i in torch.nonzero(touched)[:, 0]:
        rows, columns = changed[i].any(dim=1).nonzero()[:, 0], changed[i].any(dim=0).nonzero()[:, 0]
        box = out[i, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (box == 128).all()
        assert 0.01 < box[0].numel() / 32**2 < 0.36


def test_colour_of_no_strength_changes_nothing_and_grey_stays_grey() -> None:
    images = pictures(5).float()
    numbers = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(colour.jitter(images, numbers, 0.0), images, rtol=0, atol=1e-4)
    grey = images[:, :1].expand(-1, 3, -1, -1)
    out = colour.jitter(grey, numbers, 0.4)
    torch.testing.assert_close(out[:, 0], out[:, 2], rtol=0, atol=1e-3)


def test_brightness_contrast_and_saturation_do_what_their_names_say() -> None:
    image = torch.tensor([[[[200.0, 100.0]], [[50.0, 100.0]], [[0.0, 100.0]]]])  # [1, 3, 1, 2]
    luma = 0.299 * 200 + 0.587 * 50
    mean = (luma + 100) / 2
    half = torch.full((1, 1, 1, 1), 0.5)
    torch.testing.assert_close(colour.brightness(image, half), image / 2)
    torch.testing.assert_close(colour.contrast(image, half), (image + mean) / 2)
    expected = torch.tensor([[[[(200 + luma) / 2, 100]], [[(50 + luma) / 2, 100]], [[luma / 2, 100]]]])
    torch.testing.assert_close(colour.saturation(image, half), expected)


@pytest.mark.parametrize("operation", range(len(colour.OPERATIONS)))
@pytest.mark.parametrize("strength", [-1.0, -0.3, 0.0, 1.0])
def test_every_operation_of_the_policy_keeps_shape_and_range(operation: int, strength: float) -> None:
    images = pictures(3).float()
    out = colour.trivial(images, torch.full((3,), operation), torch.full((3,), strength))
    assert out.shape == images.shape
    assert torch.isfinite(out).all()
    assert out.min() >= -1e-3
    assert out.max() <= 255 + 1e-3


def test_the_policy_does_one_thing_to_each_photo_and_all_of_them_over_many() -> None:
    images = pictures(1).float().expand(4, -1, -1, -1)
    choice = torch.tensor([0, 6, 0, 5])
    out = colour.trivial(images, choice, torch.ones(4))
    assert torch.equal(out[0], images[0])
    assert torch.equal(out[1], 255 - images[0])  # solarize from 0 on inverts
    assert torch.equal(out[3], torch.floor(images[0] / 64) * 64)  # two bits left
    numbers = augment.draw(Augment(policy="trivial"), 0, 0, np.arange(2000), 0).policy
    assert numbers is not None
    counts = np.bincount((numbers[:, 0] * len(colour.OPERATIONS)).astype(int))
    assert len(counts) == len(colour.OPERATIONS)
    assert counts.min() > 100


def test_a_quarter_turn_by_the_policy_moves_pixels_where_they_belong() -> None:
    images = pictures(1).float()
    rotate = [f.__name__ for f in colour.OPERATIONS].index("_rotate")
    out = colour.trivial(images, torch.tensor([rotate]), torch.tensor([90 / 135]))
    torch.testing.assert_close(out, torch.rot90(images, 1, (2, 3)), rtol=0, atol=0.05)


def test_mixup_blends_pixels_and_targets_by_the_same_share() -> None:
    images = pictures(6)
    out, targets = augmented(images, Augment(mixup=0.4), step=11)
    share = augment.draw(Augment(mixup=0.4), 0, 0, np.arange(6), 11).mix.share
    assert 0 <= share <= 1
    torch.testing.assert_close(out, share * images.float() + (1 - share) * images.flip(0).float(), rtol=0, atol=1e-3)
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    soft = F.one_hot(labels(6), 3).float()
    torch.testing.assert_close(targets, share * soft + (1 - share) * soft.flip(0))


def test_cutmix_gives_labels_the_share_of_pixels() -> None:
    brightness = torch.arange(6).view(6, 1, 1, 1).expand(6, 3, 20, 20).to(torch.uint8)
    for step in range(20):
        parameters = augment.draw(Augment(cutmix=1.0), 0, 0, np.arange(6), step)
        out, targets = augment.apply(brightness, torch.arange(6), Augment(cutmix=1.0), parameters, 20, 6)
        for i in range(6):
            own = float((out[i, 0] == i).float().mean())
            assert float(targets[i, i]) == pytest.approx(own, abs=1e-6)
            assert float(targets[i, 5 - i]) == pytest.approx(1 - own, abs=1e-6)


def test_mixing_goes_by_the_step_and_chooses_one_of_two() -> None:
    assert mixing.draw(0.0, 0.0, 0, 5) is None
    drawn = [mixing.draw(0.5, 1.0, 0, step) for step in range(200)]
    assert drawn == [mixing.draw(0.5, 1.0, 0, step) for step in range(200)]
    boxes = sum(mix is not None and mix.box is not None for mix in drawn)
    assert 60 < boxes < 140
