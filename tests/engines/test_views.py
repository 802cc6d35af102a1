"""The views whose answers are averaged at test time."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plusx.config import Config
from plusx.engines.looks import VIEWS
from plusx.engines.views import mean_probabilities
from plusx.errors import UsageError
from plusx.recipes.resolve import resolve
from plusx.verbs import labelled


class Seen(nn.Module):
    """Answers class 0 with the mean of the left half, class 1 with that of the right; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, 2]."""
        self.images.append(x)
        half = x.shape[-1] // 2
        return torch.stack([x[..., :half].mean((1, 2, 3)), x[..., half:].mean((1, 2, 3))], dim=1)


def test_the_settings_say_which_views_are_averaged_and_know_no_others() -> None:
    assert resolve({}).views == ("identity", "flip", "closer", "closer-flip")
    assert resolve({}, sets=("views=[closer, flip]",)).views == ("closer", "flip")
    assert set(get_args(get_args(Config.model_fields["views"].annotation)[0])) == set(VIEWS)
    with pytest.raises(UsageError, match="sets views"):
        resolve({}, sets=("views=[upside-down]",))
    with pytest.raises(UsageError, match="sets views"):
        resolve({}, sets=("views=[]",))


def test_the_probabilities_are_the_mean_over_the_views() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (5, 3, 30, 30)).astype(np.float32))
    images[..., :15] += 1
    network = Seen()
    found = mean_probabilities(network, images, ("identity", "flip", "closer", "closer-flip"), 24)
    whole = F.interpolate(images, size=24, mode="bilinear", antialias=True)
    closer = images[..., 3:27, 3:27]  # four fifths of 30 px are 24
    shown = (whole, whole.flip(3), closer, closer.flip(3))
    for seen, expected in zip(network.images, shown, strict=True):
        torch.testing.assert_close(seen, expected)
    torch.testing.assert_close(found, sum(Seen()(x).softmax(1) for x in shown) / 4)
    assert not torch.allclose(found, Seen()(images).softmax(1))


def test_a_closer_view_is_the_middle_of_the_photo_enlarged() -> None:
    images = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    network = Seen()
    mean_probabilities(network, images, ("closer", "closer-flip"), 32)
    torch.testing.assert_close(network.images[0], images[..., 4:36, 4:36])
    torch.testing.assert_close(network.images[1], images[..., 4:36, 4:36].flip(3))
    mean_probabilities(network, images, ("closer",), 48)
    assert network.images[2].shape == (3, 3, 48, 48)


def test_photos_are_tested_as_they_are_trained_decoded_to_the_size_of_the_cache_and_scaled() -> None:
    config = resolve({"scale": "small"})
    assert labelled.tested_preprocess(config) == labelled.training_preprocess(config, config.size)
    assert (labelled.tested_preprocess(config).crop, labelled.tested_size(config)) == (107, 80)
    textbook = resolve({"recipe": "textbook"})
    assert (labelled.tested_preprocess(textbook).crop, labelled.tested_size(textbook)) == (224, 224)


def test_the_network_looks_at_photos_at_the_size_of_testing() -> None:
    images = torch.zeros(2, 3, 32, 32)
    network = Seen()
    mean_probabilities(network, images, ("identity", "closer-flip"), 28)
    assert [x.shape[-1] for x in network.images] == [28, 28]
