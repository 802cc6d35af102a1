"""The maps of an exported file are those of its model, without torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plusx.engines.onnx_engine import OnnxEngine
from plusx.engines.torch_engine import TorchEngine
from plusx.errors import UsageError
from plusx.explain import windows
from plusx.explain.evidence import Evidence, contrasts
from plusx.explain.explainer import Explainer
from plusx.explain.exported import ExportedExplainer, cut, evidence_of
from plusx.explain.windows import Window
from plusx.export.onnx import to_onnx
from plusx.model_file import ModelFile
from tests.explain.test_maps import RESNET, SIZE, VGG, file_of

CPU = torch.device("cpu")
Pair = tuple[Explainer, ExportedExplainer]


def pair_of(model: ModelFile, folder: Path, method: str = "auto") -> Pair:
    """The model and its export, both asked by one method."""
    path = folder / "model.onnx"
    path.write_bytes(to_onnx(model))
    engine = OnnxEngine(path, len(model.header.classes))
    theirs = "occlusion" if method == "grad-cam" else method
    return Explainer(model, TorchEngine(model, CPU), method), ExportedExplainer(model.header, engine, theirs)


def drawn(count: int) -> np.ndarray[Any, Any]:
    """Photos of a light shape on noise, each somewhere else: uint8 [n, S, S, 3]."""
    random = np.random.default_rng(11)
    made = random.integers(0, 90, (count, SIZE, SIZE, 3))
    for photo in made:
        top, left = random.integers(2, SIZE - 26, 2)
        photo[top : top + 22, left : left + 22] += random.integers(60, 160, 3)
    return made.astype(np.uint8)


def alike(ours: Evidence, theirs: Evidence) -> np.ndarray[Any, Any]:
    """Correlations of the maps, photo by photo: [n]."""
    pairs = zip(ours.maps, theirs.maps, strict=True)
    return np.array([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])


@pytest.mark.parametrize("views", [("identity",), ("identity", "flip", "closer", "closer-flip"), ("flip", "identity")])
def test_its_maps_and_log_odds_are_those_of_its_model(views: tuple[str, ...], tmp_path: Path) -> None:
    ours, theirs = pair_of(file_of(RESNET, views), tmp_path)
    pixels, labels = drawn(6), np.arange(6) % 3
    expected, found = ours.evidence(pixels, labels), theirs.evidence(pixels, labels)
    assert theirs.method == "cam"
    assert alike(expected, found).min() > 0.999
    spread = expected.log_odds.std()
    np.testing.assert_allclose(found.log_odds, expected.log_odds, atol=0.01 * spread)
    others = theirs.evidence(pixels, (labels + 1) % 3)
    assert alike(expected, others).mean() < 0.5, "another class has another map"


def test_maps_of_a_graph_that_scales_photos_are_those_of_its_model(tmp_path: Path) -> None:
    made = file_of(RESNET)
    ours, theirs = pair_of(replace(made, header=replace(made.header, size=48)), tmp_path)
    pixels, labels = drawn(6), np.arange(6) % 3
    assert alike(ours.evidence(pixels, labels), theirs.evidence(pixels, labels)).min() > 0.998, "smoothed once only"


def test_occlusion_asks_the_graph_as_it_asks_the_network(tmp_path: Path) -> None:
    ours, theirs = pair_of(file_of(RESNET), tmp_path, "occlusion")
    expected, found = ours.evidence(drawn(2), np.array([0, 2])), theirs.evidence(drawn(2), np.array([0, 2]))
    np.testing.assert_allclose(found.maps, expected.maps, atol=1e-4 * np.abs(expected.maps).max() + 1e-6)
    np.testing.assert_allclose(found.log_odds, expected.log_odds, atol=0.05)


def test_a_network_without_pooling_is_explained_by_occlusion_and_has_no_log_odds(tmp_path: Path) -> None:
    ours, theirs = pair_of(file_of(VGG, ("identity",)), tmp_path, "auto")
    assert (ours.method, theirs.method) == ("grad-cam", "occlusion")
    found = theirs.evidence(drawn(1), np.array([1]))
    assert found.maps.shape == (1, windows.GRID, windows.GRID)
    assert np.isnan(found.log_odds).all()
    with pytest.raises(UsageError, match=r"vgg11 does not end in global average pooling .* use --method occlusion"):
        ExportedExplainer(ours.model.header, theirs.engine, "cam")


def test_methods_that_a_graph_does_not_allow_are_refused(tmp_path: Path) -> None:
    ours, theirs = pair_of(file_of(RESNET, ("identity",)), tmp_path)
    with pytest.raises(UsageError, match="An exported file gives no gradients, which --method grad-cam needs"):
        ExportedExplainer(ours.model.header, theirs.engine, "grad-cam")
    with pytest.raises(UsageError, match="There is no method 'lime'; the methods are auto, cam, grad-cam, occlusion"):
        ExportedExplainer(ours.model.header, theirs.engine, "lime")


def test_the_service_gets_one_map_quickly(tmp_path: Path) -> None:
    model = file_of(RESNET)
    _, theirs = pair_of(model, tmp_path)
    pixels = drawn(1)
    whole, method = evidence_of(theirs.engine, model.header, pixels, 2)
    np.testing.assert_array_equal(whole, theirs.evidence(pixels, np.array([2])).maps[0])
    quick, again = evidence_of(theirs.engine, model.header, pixels, 2, quick=True)
    assert method == again == "cam"
    assert np.corrcoef(whole.ravel(), quick.ravel())[0, 1] > 0.7


def test_a_part_of_a_photo_is_cut_where_it_lies() -> None:
    photo = np.zeros((1, 40, 40, 3), np.uint8)
    photo[:, :20, 20:] = 200
    corner = cut(photo, Window(0.0, 0.5, 0.5, mirrored=False))
    assert corner.shape == photo.shape
    assert (corner[:, :-1, 1:] == 200).all(), "all but the edge, where what is beside it counts"
    mirrored = cut(photo, Window(0.0, 0.0, 1.0, mirrored=True))
    np.testing.assert_array_equal(mirrored, photo[:, :, ::-1])


def test_a_view_within_a_window_is_a_window() -> None:
    half = Window(0.0, 0.5, 0.5, mirrored=True)
    assert Window(0.0, 0.0, 1.0, mirrored=False).within(half) == half
    assert Window(0.0, 0.0, 0.5, mirrored=True).within(half) == Window(0.0, 0.75, 0.25, mirrored=False)


def test_contrasts_are_one_for_the_class_and_its_share_for_the_others() -> None:
    assert contrasts(np.array([0]), 3).tolist() == [[1.0, -0.5, -0.5]]
    assert contrasts(np.array([1, 0]), 2).tolist() == [[-1.0, 1.0], [1.0, -1.0]]


@pytest.mark.parametrize("cells", [3, 64, 100])
def test_maps_are_scaled_as_pytorch_scales_pictures(cells: int) -> None:
    values = np.random.default_rng(2).normal(size=(2, cells, cells + 1))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[:, None], size=(16, 16), mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(windows.resized(values, 16), expected[:, 0].numpy(), atol=1e-6)
