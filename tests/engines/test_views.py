"""The views whose answers are averaged at test time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plusx.engines.torch_engine import VIEWS, mean_probabilities, smaller_size
from plusx.errors import UsageError
from plusx.recipes.resolve import resolve
from plusx.verbs import labelled
from plusx.verbs.network import refuse_network
from plusx.verbs.testing import views_of


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


@pytest.mark.parametrize(
    ("sets", "views"),
    [
        ((), ("identity", "flip")),
        (("flip_views=false",), ("identity",)),
        (("smaller_views=true",), ("identity", "flip", "smaller", "smaller-flip")),
        (("flip_views=false", "smaller_views=true"), ("identity", "smaller")),
    ],
)
def test_the_settings_say_which_views_are_averaged(sets: tuple[str, ...], views: tuple[str, ...]) -> None:
    assert views_of(resolve({"scale": "small"}, sets=sets)) == views


def test_the_probabilities_are_the_mean_over_the_views() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (5, 3, 28, 28)).astype(np.float32))
    images[..., :14] += 1
    network = Seen()
    found = mean_probabilities(network, images, ("identity", "flip", "smaller", "smaller-flip"), 28)
    whole, small = images, F.interpolate(images, size=24, mode="bilinear", antialias=True)
    shown = (whole, whole.flip(3), small, small.flip(3))
    for seen, expected in zip(network.images, shown, strict=True):
        torch.testing.assert_close(seen, expected)
    torch.testing.assert_close(found, sum(Seen()(x).softmax(1) for x in shown) / 4)
    assert not torch.allclose(found, Seen()(images).softmax(1))


def test_the_smaller_view_is_six_sevenths_of_the_size_and_there_is_no_other() -> None:
    assert smaller_size(112) == 96
    assert list(VIEWS) == ["identity", "flip", "smaller", "smaller-flip"]


def test_a_network_that_cannot_take_the_smaller_view_is_refused_before_a_photo_is_read() -> None:
    config = resolve({"model": "alexnet", "size": 64, "batch_size": 2}, sets=("smaller_views=true", "sizes=[]"))
    with pytest.raises(UsageError) as refused:
        refuse_network(config)
    assert refused.value.message == "--set sets smaller_views to True: alexnet needs at least 63 px in all of them."


def test_photos_are_tested_as_they_are_trained_decoded_to_the_size_of_the_cache_and_scaled() -> None:
    config = resolve({"scale": "small"})
    assert labelled.tested_preprocess(config) == labelled.training_preprocess(config, config.size)
    assert (labelled.tested_preprocess(config).crop, labelled.tested_size(config)) == (107, 80)
    textbook = resolve({"recipe": "textbook"})
    assert (labelled.tested_preprocess(textbook).crop, labelled.tested_size(textbook)) == (224, 224)


def test_the_network_looks_at_photos_at_the_size_of_testing() -> None:
    images = torch.zeros(2, 3, 32, 32)
    network = Seen()
    mean_probabilities(network, images, ("identity", "smaller-flip"), 28)
    assert [x.shape[-1] for x in network.images] == [28, 24]
