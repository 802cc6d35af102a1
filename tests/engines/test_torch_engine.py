"""The engine answers as the trained network does, for one batch or many, and the classifier loses no photo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from plusx.classifier import Classifier
from plusx.engines.folded import fuses
from plusx.engines.looks import VIEWS
from plusx.engines.torch_engine import TorchEngine, build
from plusx.engines.views import mean_probabilities
from plusx.errors import UsageError
from plusx.images.decode import BadPhoto
from plusx.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from plusx.images.source import Source
from plusx.model_file import Header, ModelFile

CPU = torch.device("cpu")
SIZE = 32
NETWORK: dict[str, Any] = {"name": "resnet10", "width": 0.25, "stem": "whitened", "downsampling": "pool"}
CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def model() -> ModelFile:
    """An untrained network for three classes, answering by all views there are."""
    network = build(NETWORK, len(CLASSES), IMAGENET_MEAN, IMAGENET_STD)
    tensors = {name: value.numpy() for name, value in network.state_dict().items()}
    return ModelFile(Header(CLASSES, Preprocess(SIZE, SIZE), NETWORK, views=tuple(VIEWS)), tensors)


@pytest.fixture
def pixels() -> npt.NDArray[np.uint8]:
    """Noise."""
    return np.random.default_rng(0).integers(0, 256, (7, SIZE, SIZE, 3), np.uint8)


def as_trained(model: ModelFile, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What the network says that the model file describes, norms and all."""
    network = build(NETWORK, len(CLASSES), IMAGENET_MEAN, IMAGENET_STD).eval()
    network.load_state_dict({name: torch.from_numpy(value) for name, value in model.tensors.items()})
    with torch.inference_mode():
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        answers: npt.NDArray[np.float32] = mean_probabilities(network, images, model.header.views, SIZE).numpy()
    return answers


def test_the_engine_answers_as_the_trained_network(model: ModelFile, pixels: npt.NDArray[np.uint8]) -> None:
    answers = TorchEngine(model, CPU).probabilities(pixels)
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, as_trained(model, pixels), rtol=0, atol=2e-6)


@pytest.mark.skipif(not fuses(CPU), reason="PyTorch fuses no convolutions on this processor")
def test_in_bf16_the_answers_are_near(model: ModelFile, pixels: npt.NDArray[np.uint8]) -> None:
    answers = TorchEngine(model, CPU, precision="bf16").probabilities(pixels)
    expected = as_trained(model, pixels)
    assert 0 < np.abs(answers - expected).max() < 0.02


def test_an_answer_does_not_depend_on_the_batch_it_is_in(model: ModelFile, pixels: npt.NDArray[np.uint8]) -> None:
    engine = TorchEngine(model, CPU)
    whole = engine.probabilities(pixels)
    engine.streams = 2
    parts = dict(engine.many((start, pixels[start : start + 3]) for start in (0, 3, 6)))
    assert list(parts) == [0, 3, 6]
    np.testing.assert_allclose(
        np.concatenate([said.probabilities for said in parts.values()]), whole, rtol=0, atol=2e-6
    )


def test_large_photos_are_computed_in_smaller_batches(model: ModelFile) -> None:
    sizes = {}
    for side in (80, 224, 2048):
        header = replace(model.header, preprocess=Preprocess(side, side))
        sizes[side] = TorchEngine(replace(model, header=header), CPU).most
    assert sizes == {80: 81, 224: 10, 2048: 1}


@pytest.mark.parametrize("streams", [1, 2])
def test_every_photo_is_answered_once_and_a_bad_one_alone(model: ModelFile, tmp_path: Path, streams: int) -> None:
    sources = []
    for number in range(20):
        path = tmp_path / f"{number}.png"
        noise = np.random.default_rng(number).integers(0, 256, (40, 36, 3), np.uint8)
        Image.fromarray(noise).save(path)
        sources.append(Source(str(path)))
    for number in (0, 7, 19):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    engine = TorchEngine(model, CPU)
    engine.streams = streams
    classifier = Classifier(model.header, engine)
    found = list(classifier.predict_many(sources, workers=0, batch_size=4))
    assert sorted(place for place, _ in found) == list(range(20))
    assert {place for place, answer in found if isinstance(answer, BadPhoto)} == {0, 7, 19}
    for place, answer in found:
        if not isinstance(answer, BadPhoto):
            alone = classifier.predict(Path(sources[place].file)).probabilities
            assert answer.probabilities == pytest.approx(alone, abs=2e-6)


def test_answers_are_computed_in_no_precision_that_is_not_known(model: ModelFile) -> None:
    with pytest.raises(UsageError) as refused:
        Classifier.of(model, "cpu", Path("m.safetensors"), "fp16")
    assert refused.value.message == (
        "precision is 'fp16', and answers are computed in auto, fp32, bf16; auto takes what is best here."
    )
