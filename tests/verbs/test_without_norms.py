"""A network without batch norm is trained, averaged, tested, used, explained and started from like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plusx.engines.torch_engine import trained_network
from plusx.model_file import load
from plusx.verbs.evaluate import evaluate
from plusx.verbs.explain import explain
from plusx.verbs.predict import predict
from plusx.verbs.start import find
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.verbs.conftest import QUICK, SETS, fill

BARE: dict[str, Any] = QUICK | {"model": "resnet8", "epochs": 8}
BARE_SETS = (
    *(*SETS, "norm=none", "learning_rate=0.02", "norm_bias_rate=16", "input_rate=0.5", "average_decay=0.9"),
    *("views=[identity]", "crop_scale=null"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two kinds, and a run without norms."""
    world = tmp_path_factory.mktemp("bare")
    fill(world / "stripes", {"lying": 30, "standing": 30})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(world / "cache"))
        train([str(world / "stripes")], Wish(flags=BARE, sets=BARE_SETS, out=world / "run"))
    return world


def test_a_model_without_norms_learns_and_answers_as_it_was_trained(world: Path) -> None:
    model = load(world / "run" / "model.safetensors")
    assert model.header.network == {"name": "resnet8", "width": 0.25, "norm": "none"}
    assert not [name for name in model.weights if ".bn" in name]
    assert evaluate(world / "run").to_json()["accuracy"] > 0.8
    photo = world / "stripes" / "lying" / "3.jpg"
    (row,) = predict(world / "run", [photo], precision="fp32")
    pixels = model.header.preprocess.from_bytes(photo.read_bytes())
    with torch.inference_mode():
        logits = trained_network(model).eval()(torch.from_numpy(np.asarray(pixels)).permute(2, 0, 1)[None])
    expected = (logits / model.header.calibration["temperature"]).softmax(1)[0]
    assert list(row.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-4)
    assert explain(world / "run", photo).method == "cam"


def test_training_goes_on_from_a_model_without_norms(world: Path, tmp_path: Path) -> None:
    assert find(str(world / "run")).settings["norm"] == "none"
    wish = Wish(
        flags={"weights": str(world / "run"), "epochs": 1, "device": "cpu", "seed": 1},
        sets=("workers=0", "batch_size=16"),
        out=tmp_path / "on",
    )
    tuned = train([str(world / "stripes")], wish)
    assert load(tuned.model).header.network["norm"] == "none"
    assert json.loads((tuned.run / "weights.json").read_text())["share"] == 1.0
