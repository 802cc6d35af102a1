"""The score of novelty at the end of a training, and what becomes of it in the model file and in answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plusx
from plusx import model_file
from plusx.classifier import Classifier
from plusx.config import Config
from plusx.engines.torch_engine import TorchEngine
from plusx.errors import ModelError
from plusx.trust.novelty import BIAS, WEIGHTS
from plusx.verbs import neighbours, strangers
from plusx.verbs.answers import read_answers
from plusx.verbs.finish import Trained, looks
from tests.verbs.conftest import fill

SMALL: dict[str, Any] = {"size": 32, "batch_size": 16, "workers": 0, "model": "resnet20", "width": 0.25, "epochs": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("strangers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        data = fill(root / "stripes", {"lying": 120, "standing": 120})
        return plusx.train(data, out=root / "run", split="40/50/10", recipe="fast", scale="small", **SMALL)


def test_the_score_is_in_the_model_file_and_says_of_validation_what_the_run_recorded(trained: Trained) -> None:
    model = model_file.load(trained.model)
    assert set(model.tensors) - set(model.weights) == {WEIGHTS, BIAS}
    classifier, recorded = Classifier.load(trained.model), read_answers(trained.run / "validation.csv")
    assert recorded is not None
    data = trained.run.parent / "stripes"
    predictions = [classifier.predict(data / name) for name in recorded.names]
    np.testing.assert_allclose([p.novelty for p in predictions], recorded.novelty, rtol=1e-3, atol=1e-3)
    assert [p.answer for p in predictions] == list(recorded.answers)


def test_what_lies_above_the_threshold_is_none_of_these(trained: Trained) -> None:
    model = model_file.load(trained.model)
    threshold = trained.metrics["novelty"]["threshold"]
    for shift, answer in ((1e6, {"none of these"}), (-1e6, {"lying", "standing", "unsure"})):
        tensors = model.tensors | {BIAS: model.tensors[BIAS] + np.float32(shift)}
        moved = dataclasses.replace(model, tensors=tensors)
        classifier = Classifier.of(moved, "cpu", trained.model)
        [found] = classifier.answers(np.full((1, 43, 43, 3), 99, np.uint8))
        assert found.answer in answer
        assert found.novelty is not None
        assert (found.novelty > threshold) == (shift > 0)


@pytest.mark.parametrize(
    "tensors",
    [{WEIGHTS: np.zeros(3, np.float32)}, {BIAS: np.zeros(0, np.float32)}, {WEIGHTS: np.zeros((2, 2), np.float32)}],
)
def test_a_score_that_does_not_fit_its_network_is_a_damaged_model_file(
    trained: Trained, tmp_path: Path, tensors: dict[str, Any]
) -> None:
    model, path = model_file.load(trained.model), tmp_path / "model.safetensors"
    model_file.save(path, dataclasses.replace(model, tensors=model.tensors | tensors))
    with pytest.raises(ModelError, match="its calibration, thresholds or novelty are not as written"):
        plusx.load(path)


def test_photos_are_cut_whatever_their_class(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training photos are listed class by class: the first of them are all of one."""

    class Stored:
        read_rows: tuple[int, ...] = ()

        def read(self, rows: Any) -> Any:
            Stored.read_rows += tuple(rows.tolist())
            return np.full((len(rows), 43, 43, 3), 50, np.uint8) + (rows % 50).astype(np.uint8)[:, None, None, None]

    monkeypatch.setattr(strangers, "MOST_CUT", 64)
    engine = TorchEngine(model_file.load(trained.model), torch.device("cpu"))
    looked = strangers.look(engine, Stored(), np.arange(200), seed=0)  # type: ignore[arg-type]
    assert Stored.read_rows == tuple(looked.order.tolist())
    assert sorted(Stored.read_rows) == list(range(200))  # each is read once
    assert sum(len(cut.activity) for cut in looked.cut) == 64
    assert 16 < sum(row < 100 for row in Stored.read_rows[:64]) < 48
    assert sum(map(len, looked.features)) == sum(map(len, looked.descriptors)) == 200
    assert strangers.fit(engine, looked, seed=0) is not None


def test_too_few_photos_give_no_score(trained: Trained) -> None:
    engine = TorchEngine(model_file.load(trained.model), torch.device("cpu"))
    few = strangers.Looked(np.arange(strangers.LEAST - 1), descriptors=[np.zeros((strangers.LEAST - 1, 8), np.float32)])
    assert strangers.fit(engine, few, seed=0) is None
    assert strangers.fit(engine, strangers.Looked(np.arange(1000)), seed=0) is None  # a network without descriptors


def test_how_many_photos_are_looked_at_follows_from_how_many_the_training_shows() -> None:
    config = Config(batch_size=64)
    assert neighbours.remembered(100_000, 600_000) == 4_000
    assert neighbours.remembered(100_000, 84_000) == 1_260
    assert neighbours.remembered(100_000, 1_000) == 100
    assert neighbours.remembered(60, 1_000_000) == 60
    assert looks(100_000, 9_000, config) == 4 * 4_000
    assert looks(100_000, 1_312, config) == 4 * round(0.015 * 64 * 1_312)


@pytest.mark.parametrize(
    "fields",
    [
        {"calibration": {"temperature": 0.0}},
        {"calibration": {"temperature": float("nan")}},
        {"calibration": {"temperature": "warm"}},
        {"novelty": {"threshold": float("nan")}},
        {"novelty": {"threshold": "high"}},
        {"thresholds": {"classes": []}},
    ],
    ids=str,
)
def test_a_header_that_makes_no_sense_is_a_damaged_model_file(
    trained: Trained, tmp_path: Path, fields: dict[str, dict[str, Any]]
) -> None:
    model, path = model_file.load(trained.model), tmp_path / "model.safetensors"
    [(name, value)] = fields.items()
    header = dataclasses.replace(model.header, **{name: {**getattr(model.header, name), **value}})
    model_file.save(path, dataclasses.replace(model, header=header))
    with pytest.raises(ModelError, match="are not as written"):
        plusx.load(path)
