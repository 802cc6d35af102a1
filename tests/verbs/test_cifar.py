"""The recipe `cifar`, through every room: published augmentation of exactly the stored pixels, published rates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from plusx.data.augment import Augment
from plusx.data.loader import Batches, Order, Samples
from plusx.model_file import load
from plusx.recipes import resolve
from plusx.training.settings import Settings
from plusx.verbs import labelled
from plusx.verbs.network import build_network
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.verbs.conftest import draw

FLAGS = {"recipe": "cifar", "model": "resnet8", "size": 16, "batch_size": 16, "device": "cpu", "epochs": 8}
SETS = ("width=0.25", "workers=0", "log_every=1")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNGs of 16 px in train/ and test/."""
    root = tmp_path_factory.mktemp("tiny")
    for split, count in (("train", 40), ("test", 10)):
        for label, name in enumerate(("lying", "standing")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                draw(label, number + 1000 * (split == "test"), (16, 16)).save(root / split / name / f"{number}.png")
    return root


def test_batches_are_the_stored_photos_shifted_by_up_to_an_eighth(tiny: Path) -> None:
    config = resolve(FLAGS, sets=SETS, environment={})
    photos = labelled.look([str(tiny)], config)
    rows = photos.rows("train")
    pixels = labelled.decode(photos, rows, labelled.training_preprocess(config, config.size), config, lambda *_: None)
    files = [photo.source.file for photo in photos.photos(rows)]
    samples = Samples(photos.labels(rows), pixels.store_rows, files, 2)
    order = Order(0, config.batch_size)
    batches = Batches(
        pixels.store, samples, order, Augment.of(config.model_dump()), lambda _: config.size, torch.device("cpu")
    )
    colour = [round(255 * mean) for mean in config.mean]
    shifts = set()
    for step in range(batches.steps_per_epoch):
        batch = batches.batch(step)
        for image, index in zip(batch.images, batch.indices, strict=True):
            shifts.add(shift_of(image.permute(1, 2, 0).numpy(), np.asarray(Image.open(files[index])), colour))
    batches.close()
    pixels.store.close()
    assert {place for *place_of, _ in shifts for place in place_of} == {-2, -1, 0, 1, 2}
    assert {mirrored for *_, mirrored in shifts} == {False, True}


def shift_of(seen: np.ndarray, stored: np.ndarray, colour: list[int]) -> tuple[int, int, bool]:  # type: ignore[type-arg]
    """The only shift that makes `seen` of `stored`, found by trying all."""
    found = []
    for mirrored in (False, True):
        canvas = np.full((20, 20, 3), colour, dtype=np.uint8)
        canvas[2:18, 2:18] = stored[:, ::-1] if mirrored else stored
        found += [
            (top - 2, left - 2, mirrored)
            for top in range(5)
            for left in range(5)
            if np.array_equal(canvas[top : top + 16, left : left + 16], seen)
        ]
    assert len(found) == 1
    return found[0]


def test_every_weight_decays() -> None:
    config = resolve(FLAGS, sets=SETS, environment={})
    from plusx.training.optimizer import build_optimizer

    network = build_network(config, 2, torch.device("cpu"))
    optimizer = build_optimizer(network, Settings.of(config.model_dump(), total_steps=8, steps_per_epoch=1))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {id(p): 1e-4 for p in network.parameters()}
    assert all(group["momentum"] == 0.9 and not group["nesterov"] for group in optimizer.param_groups)


def test_a_training_divides_its_rate_by_ten_twice_and_its_model_looks_once(tiny: Path, tmp_path: Path) -> None:
    wish = Wish(flags=FLAGS | {"split": "80/20/0"}, sets=SETS, out=tmp_path / "run")
    trained = train([str(tiny)], wish)
    history = [json.loads(line) for line in (trained.run / "history.jsonl").read_text().splitlines()]
    rates = [row["rate"] for row in history if "rate" in row]
    assert rates == pytest.approx([0.1] * 16 + [0.01] * 8 + [0.001] * 8)
    header = load(trained.model).header
    assert (header.views, header.size, header.preprocess.crop) == (("identity",), 16, 16)
    assert header.preprocess.mean == (0.4914, 0.4822, 0.4465)
