"""The preprocess: torchvision's geometry to the bit, one value that travels with the weights."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plusx.errors import ModelError, UsageError
from plusx.images.decode import decode, inspect
from plusx.images.preprocess import Preprocess


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def upright_photos(photos: Path, count: int) -> list[bytes]:
    found: list[bytes] = []
    with tarfile.open(photos / "photos-full-size.tar") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None and inspect(data := file.read()).orientation == 1:
                found.append(data)
            if len(found) == count:
                break
    return found


def test_fifty_real_photos_are_bit_equal_to_torchvision(photos: Path) -> None:
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    ours = Preprocess(256, 224)
    theirs = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(ours.mean, ours.std),
        ]
    )
    found = upright_photos(photos, 50)
    assert len(found) == 50
    mean, std = (torch.tensor(three).view(3, 1, 1) for three in (ours.mean, ours.std))
    for data in found:
        pixels = torch.from_numpy(ours.from_bytes(data)).permute(2, 0, 1)  # [3, 224, 224]
        expected = theirs(Image.open(io.BytesIO(data)).convert("RGB"))
        assert torch.equal((pixels.float() / 255 - mean) / std, expected)


@pytest.mark.parametrize("size", [(7, 5), (5, 7), (64, 64), (65, 64), (100, 33), (33, 101), (500, 375), (1, 90)])
@pytest.mark.parametrize(("resize", "crop"), [(64, 64), (65, 64), (73, 56), (33, 20)])
def test_every_rounding_is_that_of_torchvision(size: tuple[int, int], resize: int, crop: int) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    theirs = transforms.Compose([transforms.Resize(resize), transforms.CenterCrop(crop)])
    image = noise(*size)
    assert np.array_equal(Preprocess(resize, crop)(image), np.asarray(theirs(image)))


def test_pixels_are_owned_contiguous_bytes() -> None:
    pixels = Preprocess(40, 32)(noise(60, 50))
    assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous, pixels.flags.writeable) == (
        (32, 32, 3), np.dtype(np.uint8), True, True,
    )  # fmt: skip


def test_a_sliver_does_not_take_a_gigabyte() -> None:
    """D14."""
    sliver = Image.new("RGB", (1, 20_000), (10, 20, 30))
    sliver.paste((200, 100, 50), (0, 9_990, 1, 10_010))
    pixels = Preprocess(256, 224)(sliver)
    assert pixels.shape == (224, 224, 3)
    assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[200, 100, 50]]


def test_a_sliver_is_cut_where_torchvision_would_have_cut_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """D14."""
    whole = Preprocess(64, 56)(noise(20, 300))
    monkeypatch.setattr("plusx.images.decode.MAX_PIXELS", 64 * 300)
    cut = Preprocess(64, 56)(noise(20, 300))
    assert np.abs(whole.astype(int) - cut).mean() < 40  # noise shifted by half a pixel or more would differ by 85


def test_an_image_of_another_mode_is_flattened_over_the_background() -> None:
    clear = Image.new("RGBA", (50, 50), (0, 0, 0, 0))
    assert Preprocess(32, 32, background=(1, 2, 3))(clear)[0, 0].tolist() == [1, 2, 3]


def test_decoder_scale_changes_pixels_a_little_and_the_key() -> None:
    smooth = noise(50, 40).resize((1000, 800), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    smooth.save(file, "JPEG", quality=95)
    exact, fast = Preprocess(64, 64), Preprocess(64, 64, decoder_scale=True)
    difference = np.abs(exact.from_bytes(file.getvalue()).astype(int) - fast.from_bytes(file.getvalue()))
    assert 0 < difference.max() < 40
    assert difference.mean() < 4
    assert exact.key() != fast.key()


def test_enlarged_rounds_up_both_sides() -> None:
    assert Preprocess(64, 64).enlarged(1.15) == Preprocess(74, 74)
    assert Preprocess(60, 60).enlarged(1.15) == Preprocess(69, 69)
    assert Preprocess(256, 224).enlarged(1.15) == Preprocess(295, 258)
    assert Preprocess(64, 64, background=(1, 2, 3)).enlarged(2).background == (1, 2, 3)


def test_the_key_is_of_what_decides_pixels_and_of_nothing_else() -> None:
    base = Preprocess(64, 56)
    assert base.key() == Preprocess(64, 56, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).key()
    others = {Preprocess(65, 56).key(), Preprocess(64, 57).key(), Preprocess(64, 56, background=(0, 0, 0)).key()}
    assert len(others | {base.key()}) == 4


def test_the_key_knows_whether_and_which_pi_heif_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for version in (None, "1.0", "1.1"):
        monkeypatch.setattr("plusx.images.decode.heif_version", lambda version=version: version)
        keys.add(Preprocess(64, 56).key())
    assert len(keys) == 3


def test_json_and_back_is_the_same_value() -> None:
    value = Preprocess(256, 224, background=(1, 2, 3), decoder_scale=True)
    assert Preprocess.from_json(json.loads(json.dumps(value.to_json()))) == value


def test_a_crop_over_the_short_side_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        Preprocess(64, 65)
    assert str(caught.value) == (
        "The preprocess resizes the short side to 64 and crops 65 from it; "
        "the crop must be between 1 and the short side."
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"resize": "64"}, "resize should be a whole number of pixels and is '64'"),
        ({"crop": True}, "crop should be a whole number of pixels and is True"),
        ({"crop": 65}, "crop should be at most the short side, 64 and is 65"),
        ({"std": [0.0, 1.0, 1.0]}, "std should be three positive numbers and is [0.0, 1.0, 1.0]"),
        ({"mean": [float("nan")] * 3}, "mean should be three numbers from 0 to 1 and is [nan, nan, nan]"),
        ({"background": [0, 0, 256]}, "background should be three whole numbers from 0 to 255 and is [0, 0, 256]"),
        ({"flavour": 1}, "flavour should be absent and is 1"),
        ({"decoder_scale": None}, "decoder_scale should be true or false and is None"),
    ],
)
def test_a_damaged_preprocess_is_refused_by_field(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        Preprocess.from_json({**Preprocess(64, 64).to_json(), **change})
    assert str(caught.value) == f"The preprocess in the model file is damaged: {sentence}; copy the model file again."


def test_from_bytes_is_decode_then_call() -> None:
    file = io.BytesIO()
    noise(90, 70).save(file, "JPEG")
    rule = Preprocess(40, 32)
    assert np.array_equal(rule.from_bytes(file.getvalue()), rule(decode(file.getvalue())))
