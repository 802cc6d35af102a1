"""An exported file answers as the model it was made from: every network, any number of photos, every view."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from plusx.classifier import Classifier
from plusx.engines.onnx_engine import OnnxEngine
from plusx.engines.torch_engine import build
from plusx.errors import ModelError, UsageError
from plusx.explain.cam import class_activation, pooled_head
from plusx.export.onnx import to_onnx
from plusx.images.preprocess import Preprocess
from plusx.model_file import Header, ModelFile, metadata_of, read_header, read_known, seen_hashes
from plusx.models.described import descriptor_size
from plusx.trust.calibration import Calibration
from plusx.trust.novelty import Discriminant

CLASSES = ("cat", "dog", "owl")
CALIBRATION = Calibration(0.6, 100, 100, 1.0, 0.9, 0.1, 0.05).to_json()
SEEN = seen_hashes([f"{number:016x}{48 * '0'}" for number in range(1, 6)])
VIEWS = ("identity", "flip", "closer", "closer-flip")


def model(name: str = "resnet10", *, size: int | None = None, views: tuple[str, ...] = VIEWS) -> ModelFile:
    """A network whose norms have seen something, with temperature, novelty and photos that it knows."""
    torch.manual_seed(3)
    preprocess = Preprocess(64, 64)
    network = {"name": name} if name in ("alexnet",) else {"name": name, "width": 0.25}
    built = build(network, len(CLASSES), preprocess.mean, preprocess.std)
    for module in built.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    tensors = {key: value.numpy() for key, value in built.state_dict().items()}
    described = descriptor_size(built.network)
    if described:
        weights = np.random.default_rng(0).normal(size=described).astype(np.float32) / described
        tensors |= Discriminant(weights, 0.1).tensors()
    header = Header(CLASSES, preprocess, network, size=size, views=views, calibration=CALIBRATION)
    return ModelFile(header, tensors, SEEN)


def exported(made: ModelFile, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(to_onnx(made))
    return path


def photos(count: int, pixels: int = 64) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, pixels, pixels, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [None, 48, 80])
def test_it_answers_as_its_model_does_for_any_number_of_photos(size: int | None, tmp_path: Path) -> None:
    made = model(size=size)
    ours, theirs = Classifier.of(made, "cpu", tmp_path, "fp32"), Classifier.load(exported(made, tmp_path))
    for count in (1, 3, 8):
        expected = ours._answered(ours.engine.answers(photos(count)))
        found = theirs._answered(theirs.engine.answers(photos(count)))
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
        np.testing.assert_allclose(found.novelty, expected.novelty, atol=1e-5)
        assert [p.answer for p in theirs.answers(photos(count))] == [p.answer for p in ours.answers(photos(count))]


def test_its_evidence_is_the_class_activation_map(tmp_path: Path) -> None:
    made = model(views=("identity",))
    engine = OnnxEngine(exported(made, tmp_path), len(CLASSES))
    ours = Classifier.of(made, "cpu", tmp_path, "fp32").engine
    head = pooled_head(ours.network, 64)
    assert head is not None
    every = torch.eye(len(CLASSES))
    pixels = photos(2)
    for label in range(len(CLASSES)):
        expected = class_activation(ours.network, head, ours.images(pixels), every[[label, label]])
        np.testing.assert_allclose(engine.evidence(pixels)[:, label], expected.numpy(), atol=1e-4)


def test_it_says_of_itself_what_its_model_said(tmp_path: Path) -> None:
    made = model()
    path = exported(made, tmp_path)
    assert read_header(path) == read_header_of(made, tmp_path)
    known = read_known(path)
    assert known.has_seen(f"{5:016x}{48 * '0'}")
    assert not known.has_seen(f"{6:016x}{48 * '0'}")
    assert set(metadata_of(made)) == {"plusx", "plusx.trained_hashes"}


def read_header_of(made: ModelFile, folder: Path) -> Header:
    from plusx.model_file import save

    save(folder / "model.safetensors", made)
    return read_header(folder / "model.safetensors")


def test_a_network_without_pooling_has_no_evidence(tmp_path: Path) -> None:
    engine = OnnxEngine(exported(model("alexnet", views=("identity",)), tmp_path), len(CLASSES))
    assert engine.outputs == ["probabilities", "novelty"]
    assert engine.evidence(photos(1)) is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "an ONNX file that plusx did not write"),
        (b"\xff" * 40, "no ONNX file, or a part of one"),
        (b"\x08\x0a\x3a\xff\x01abc", "no ONNX file, or a part of one (it ends too early)"),
    ],
)
def test_what_is_no_exported_file_is_refused_in_a_sentence(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        Classifier.load(path)


def test_a_header_that_is_not_as_written_is_a_damaged_file(tmp_path: Path) -> None:
    made = model("resnet10", views=("identity",))
    broken = replace(made, header=replace(made.header, calibration={"temperature": 1.0}))
    path = exported(made, tmp_path)
    told, meant = (metadata_of(each)["plusx"].encode() for each in (made, broken))
    path.write_bytes(path.read_bytes().replace(told, meant + b" " * (len(told) - len(meant))))  # equally long
    with pytest.raises(ModelError, match="its calibration, thresholds or novelty are not as written"):
        Classifier.load(path)


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    path = exported(model(), tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match=r"model\.onnx is"):
        Classifier.load(path)


def test_other_devices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which plusx computes on the CPU, and --device says cuda"):
        Classifier.load(exported(model(), tmp_path), device="cuda")
