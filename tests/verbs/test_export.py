"""`export`: a run becomes one ONNX file that is tried on real photos, and is used as a model file is."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plusx
from plusx import model_file, onnx_file
from plusx.cli.run import run as cli
from plusx.errors import DataError, ModelError, UsageError
from plusx.export import agreement as agreeing
from plusx.export.agreement import Agreement
from plusx.trust.calibration import Calibration
from plusx.verbs import export as exporting
from plusx.verbs import int8 as eight_bits
from plusx.verbs.finish import Trained
from plusx.verbs.sanity import maps_tested
from tests.verbs.conftest import fill

SMALL: dict[str, Any] = {"size": 32, "batch_size": 16, "workers": 0, "model": "resnet20", "width": 0.25, "epochs": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        data = fill(root / "stripes", {"lying": 60, "standing": 60})
        return plusx.train(data, out=root / "run", split="40/50/10", recipe="fast", scale="small", **SMALL)


@pytest.fixture(scope="module")
def exported(trained: Trained) -> Path:
    return plusx.export(trained.run, out=trained.run.parent / "stripes.onnx").path


def test_a_run_is_tried_on_its_validation_photos(trained: Trained, tmp_path: Path) -> None:
    done = plusx.export(trained.run, out=tmp_path / "a.onnx", count=20)
    assert (done.agreement.photos, done.agreement.flips) == (20, 0)
    assert 0 < done.agreement.probability < 1e-5, "two programs that round differently"
    assert done.path.stat().st_size == done.bytes
    assert not list(tmp_path.glob("*.data")), "one file"
    content = done.path.read_bytes()
    assert onnx_file.is_as_written(content)
    assert not onnx_file.is_as_written(content[:1000] + b"?" + content[1001:])


def test_predict_and_evaluate_take_it_as_a_model_file(trained: Trained, exported: Path) -> None:
    data = trained.run.parent / "stripes"
    ours, theirs = (list(plusx.predict(model, [data])) for model in (trained.model, exported))
    assert [(row.path, row.answer) for row in ours] == [(row.path, row.answer) for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=5e-3), "bf16 may be at work in one of them"
    tested = plusx.evaluate(exported, data)
    assert tested.figures["n"] == plusx.evaluate(trained.model, data).figures["n"], "what was seen is left out"
    assert len(tested.left_out) > 0


def test_answers_of_an_exported_file_load_no_torch(trained: Trained, exported: Path) -> None:
    photo = next((trained.run.parent / "stripes" / "lying").iterdir())
    program = (
        "import sys; from plusx.cli.run import run; code = run(sys.argv[1:]); "
        "sys.exit(code or 'torch' in sys.modules or 'pydantic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "predict", str(exported), str(photo), "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"][0]["label"] in ("lying", "standing")


def without_torch(*arguments: str) -> Any:
    """The JSON of a command that has loaded no torch."""
    program = (
        "import sys; from plusx.cli.run import run; code = run(sys.argv[1:]); sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_exported_file_is_explained_as_its_model_without_torch(
    trained: Trained, exported: Path, tmp_path: Path
) -> None:
    photo = next((trained.run.parent / "stripes" / "lying").iterdir())
    told = without_torch("explain", str(exported), str(photo), "--out", str(tmp_path / "why.png"))
    ours = plusx.explain(trained.run, photo)
    assert (told["class"], told["method"], told["label"]) == (ours.explained, "cam", ours.prediction.label)
    assert told["log_odds"] == pytest.approx(ours.log_odds, rel=0.3), "what is looked at from nearer is scaled twice"
    assert told["where"]["words"].partition(":")[0] == ours.place.words().partition(":")[0]
    assert 0 < told["sanity"]["deletion"]["marked"] < 1, "of calibrated probabilities, as the graph gives them"
    assert told["sanity"]["rank_correlation"] is told["sanity"]["similarity"] is None
    assert told["remark"].startswith("An exported file gives no features to find the nearest training photos by;")
    theirs = plusx.explain(exported, photo)
    assert np.corrcoef(theirs.map.ravel(), ours.map.ravel())[0, 1] > 0.98
    assert any("compared with no untrained network, which needs the model file" in line for line in theirs.lines())


def test_maps_of_an_exported_file_are_tested_by_deletion_alone(trained: Trained, exported: Path) -> None:
    told = without_torch("explain", str(exported), str(trained.run.parent / "stripes"), "--sanity", "12")
    assert told["deletion"]["beats_random"]["n"] == told["n"] == 12
    assert told["rank_correlation"] is told["similarity"] is None
    assert {photo["rank_correlation"] for photo in told["photos"]} == {None}
    tested = maps_tested(exported, trained.run.parent / "stripes", 12)
    assert any("needs the model file it was exported from" in line for line in tested.lines())


def test_an_exported_file_is_evaluated_without_torch(trained: Trained, exported: Path) -> None:
    told = without_torch("evaluate", str(exported), str(trained.run.parent / "stripes"))
    assert told["n"] > 0


def test_a_file_that_answers_otherwise_is_not_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plusx.export import onnx

    honest = onnx.to_onnx

    def warmer(model: model_file.ModelFile) -> bytes:
        calibration = dict(model.header.calibration or {}) | {"temperature": 5.0}
        return honest(replace(model, header=replace(model.header, calibration=calibration)))

    monkeypatch.setattr(onnx, "to_onnx", warmer)
    calibrated = tmp_path / "model.safetensors"
    model = model_file.load(trained.model)
    known = Calibration(1.0, 50, 50, 1.0, 1.0, 0.0, 0.0).to_json()
    model_file.save(calibrated, replace(model, header=replace(model.header, calibration=known)))
    with pytest.raises(ModelError, match=r"does not agree with the model on 8 photos: .* nothing was written"):
        plusx.export(calibrated, photos=[str(trained.run.parent / "stripes")], count=8)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_flip_is_told_from_a_rounding_at_a_threshold() -> None:
    sure, other = np.array([0.9, 0.1], np.float32), np.array([0.1, 0.9], np.float32)
    close = np.array([0.5001, 0.4999], np.float32)
    assert agreeing._differs((sure, 0.0, "a"), (other, 0.0, "b"))
    assert not agreeing._differs((close, 0.0, "a"), (close[::-1], 0.0, "b")), "the margin is below a thousandth"
    assert not agreeing._differs((sure, 0.0, "a"), (sure + np.float32(1e-7), 0.0, "unsure")), "at a threshold"
    assert agreeing._differs((sure, 0.1, "a"), (sure, 0.4, "none of these")), "by another score of novelty alone"
    assert agreeing._differs((sure, float("nan"), "a"), (other, float("nan"), "b"))
    assert Agreement(5, 0, 1e-4, 0.0).holds
    assert not Agreement(5, 0, 0.0, 0.01).holds
    assert not Agreement(5, 1, 0.0, 0.0).holds
    assert not Agreement(5, 0, 2e-4, 0.0).holds


def test_photos_of_every_class_are_tried() -> None:
    assert exporting.spread(list(range(10)), 4) == [0, 2, 5, 7]  # type: ignore[arg-type, comparison-overlap]
    assert exporting.spread(list(range(3)), 8) == [0, 1, 2]  # type: ignore[arg-type, comparison-overlap]


def test_what_cannot_be_exported_is_refused_in_a_sentence(trained: Trained, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"stripes\.onnx is an exported file already; export the model\."):
        plusx.export(exported)
    with pytest.raises(UsageError, match=r"stripes\.onnx exists already, and exports are never overwritten"):
        plusx.export(trained.run, out=exported)
    with pytest.raises(UsageError, match="--count is 0, and an export has to agree on at least 1 photo"):
        plusx.export(trained.run, out=tmp_path / "x.onnx", count=0)
    with pytest.raises(UsageError, match="does not say where any are; name some with --photos FOLDER"):
        plusx.export(trained.model, out=tmp_path / "x.onnx")


def test_the_exporter_that_is_not_installed_is_named(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"install them with: pip install 'plusx\[export\]'"):
        exporting.export(trained.run, out=tmp_path / "x.onnx", count=2)


def test_the_command_says_where_the_file_is_and_how_well_it_agrees(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "shipped.onnx"
    assert cli(["export", str(trained.run), "--out", str(target), "--count", "5"]) == 0
    said, hint = capsys.readouterr()
    assert said.startswith(f"{target}: 0.")
    assert "agrees with the model on 5 photos: 0 other answers, probabilities differ by" in said
    assert hint.endswith(f"Next: plusx predict {target} PHOTO\n")
    assert cli(["export", str(trained.run), "--out", str(target)]) == 2
    assert cli(["predict", str(target), str(next((trained.run.parent / "stripes" / "lying").iterdir()))]) == 0


@pytest.fixture
def generous(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few photos that one of them is more than eight bits may lose."""
    monkeypatch.setattr(eight_bits, "MOST", 0.2)


@pytest.mark.usefixtures("generous")
def test_eight_bits_are_calibrated_and_measured_on_the_photos_of_the_run(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "small.onnx"
    assert cli(["export", str(trained.run), "--int8", "--out", str(target), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    cost = told["int8"]
    assert cost["n"] == 60
    assert cost["accuracy"][0] == pytest.approx(trained.metrics["validation"]["accuracy"], abs=0.02)
    assert json.loads(onnx_file.metadata(target)["plusx.int8"]) == cost
    assert model_file.read_header(target) == model_file.read_header(trained.model)
    assert target.stat().st_size == told["bytes"]
    photo = next((trained.run.parent / "stripes" / "lying").iterdir())
    assert plusx.load(target).predict(photo).label in ("lying", "standing")


def test_eight_bits_that_lose_too_much_are_not_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = eight_bits.Cost(60, (0.9, 0.896), (-0.02, 0.01), (0.01, 0.01), 3)
    monkeypatch.setattr(eight_bits, "_cost", lambda *_: worse)
    target = tmp_path / "small.onnx"
    assert cli(["export", str(trained.run), "--int8", "--out", str(target), "--count", "5"]) == 4
    said = capsys.readouterr().err
    assert "With eight bits the model loses 0.40 % of accuracy on 60 validation photos, where 0.3 % are allowed" in said
    assert "nothing was written. Export without --int8, or name other photos to calibrate by with --photos." in said
    assert not target.exists()


def test_eight_bits_need_a_run_and_its_photos(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--int8 measures what is lost on the labelled validation photos of a run"):
        plusx.export(trained.model, int8=True)
    empty = tmp_path / "none"
    empty.mkdir()
    with pytest.raises(DataError):
        plusx.export(trained.run, out=tmp_path / "x.onnx", int8=True, photos=[str(empty)])
