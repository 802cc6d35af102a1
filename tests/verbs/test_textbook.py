"""The recipe `textbook`, through every room, is the textbook program."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from plusx.data.augment import Augment
from plusx.data.loader import Batches, Order, Samples
from plusx.recipes import recipe
from plusx.recipes.plan import counted
from plusx.training.settings import Settings
from plusx.training.step import State, train_step
from plusx.verbs import labelled
from plusx.verbs.network import build_network
from tests.verbs.conftest import fill

CPU = torch.device("cpu")


@pytest.fixture
def batches(tmp_path: Path) -> Batches:
    """The recipe's batches over 22 drawn photos, at 48 px to be quick."""
    config = recipe("textbook").model_copy(update={"size": 48, "workers": 0})
    photos = labelled.look([str(fill(tmp_path / "photos", {"lying": 11, "standing": 11}))], config)
    rows = photos.rows("train")
    pixels = labelled.decode(photos, rows, labelled.training_preprocess(config, 48), config, lambda *_: None)
    names = [photo.name for photo in photos.photos(rows)]
    samples = Samples(photos.labels(rows), pixels.store_rows, names, 2)
    return Batches(
        pixels.store, samples, Order(0, config.batch_size), Augment.of(config.model_dump()), lambda _: 48, CPU
    )


def test_five_steps_equal_the_textbook_loop_to_the_bit(batches: Batches) -> None:
    config = recipe("textbook")
    network = build_network(config, 2, CPU)
    twin = copy.deepcopy(network)
    plan = counted(config, batches.steps_per_epoch, 2)
    settings = Settings.of(config.model_dump(), total_steps=plan.total_steps, steps_per_epoch=plan.steps_per_epoch)
    state = State.fresh(network, settings)
    ours = [train_step(state, batches.batch(step), settings).loss for step in range(5)]

    mean, std = torch.tensor(config.mean).view(3, 1, 1), torch.tensor(config.std).view(3, 1, 1)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(twin.network.parameters(), lr=0.01)
    theirs = []
    twin.train()
    for step in range(5):
        batch = batches.batch(step)
        images = (batch.images.float() / 255 - mean) / std
        optimizer.zero_grad()
        loss = criterion(twin.network(images), batch.targets)
        loss.backward()
        optimizer.step()
        theirs.append(loss.item())

    assert ours == theirs
    for name, value in twin.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name
    batches.close()


def test_batches_of_eight_are_shuffled_and_the_last_partial_one_is_kept(batches: Batches) -> None:
    sizes = [len(batches.batch(step).images) for step in range(batches.steps_per_epoch)]
    assert sizes == [8] * (len(sizes) - 1) + [sum(sizes) - 8 * (len(sizes) - 1)]
    first, second = (
        [
            int(i)
            for step in range(batches.steps_per_epoch)
            for i in batches.batch(step + e * batches.steps_per_epoch).indices
        ]
        for e in (0, 1)
    )
    assert sorted(first) == sorted(second) == list(range(sum(sizes)))
    assert first != second
    assert first != sorted(first)
    batches.close()


def test_the_pixels_are_the_preprocess_and_nothing_else(batches: Batches) -> None:
    batch = batches.batch(0)
    assert batch.images.dtype == torch.uint8
    assert batch.targets.dtype == torch.int64
    batches.close()
