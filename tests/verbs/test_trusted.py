"""Calibration and "unsure", from the end of a training to the answers of every verb."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import plusx
from plusx import metrics
from plusx.classifier import Classifier
from plusx.cli.formats import write_rows
from plusx.cli.live import Live
from plusx.cli.run import run as cli
from plusx.cli.terminal import console
from plusx.data import split
from plusx.engines.torch_engine import Answers
from plusx.errors import ModelError
from plusx.images.decode import BadPhoto
from plusx.images.preprocess import Preprocess
from plusx.images.source import Source
from plusx.model_file import Header, load
from plusx.trust.calibration import temper
from plusx.trust.risk import Thresholds, upper_bound
from plusx.verbs.evaluate import evaluate
from plusx.verbs.figures import answered_lines, trust_lines
from plusx.verbs.finish import Trained
from plusx.verbs.predict import predict
from plusx.verbs.train import train
from plusx.verbs.trusted import Validated, trusted
from plusx.verbs.wish import Wish
from tests.verbs.conftest import QUICK, SETS, fill

CLASSES = ("cat", "dog")
RAW = np.array([[0.9, 0.1], [0.6, 0.4], [0.45, 0.55], [0.02, 0.98]], dtype=np.float32)
PIXELS = np.zeros((4, 8, 8, 3), dtype=np.uint8)


class Fixed:
    """An engine that always says the same four things."""

    streams, most = 1, 64

    def answers(self, pixels: npt.NDArray[np.uint8]) -> Answers:
        return Answers(RAW[: len(pixels)])

    def many(self, batches: Iterable[tuple[list[int], Any]]) -> Iterator[tuple[list[int], Any]]:
        return ((places, Answers(RAW[places])) for places, _ in batches)


def header(temperature: float | None = None, thresholds: tuple[float | None, float | None] | None = None) -> Header:
    figures = dict.fromkeys(("log_loss_before", "log_loss_after", "ece_before", "ece_after"))
    calibration = None if temperature is None else {"temperature": temperature, "n": 50, "measured_n": 0, **figures}
    counts = {"n": 100, "answered": 90, "errors": 1}
    classes = [{"name": n, "threshold": t, **counts} for n, t in zip(CLASSES, thresholds or (), strict=False)]
    fitted = {"risk": 0.05, "confidence": 0.95, "n": 200, "coverage": 0.9, "classes": classes, "note": None}
    held = fitted if thresholds else None
    return Header(CLASSES, Preprocess(8, 8), {"name": "resnet20"}, calibration=calibration, thresholds=held)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, str]:
    """A run with validation photos enough for thresholds, and what its end said."""
    root = tmp_path_factory.mktemp("trusted")
    data = fill(root / "stripes", {"lying": 130, "standing": 130})
    flags = QUICK | {"split": "20/60/20", "epochs": 8, "risk": "10%"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        trained = train([str(data)], Wish(flags=flags, sets=SETS, out=root / "run"))
    return trained, "\n".join(trust_lines(trained.metrics))


def test_a_training_ends_calibrated_with_thresholds_that_its_metrics_repeat(finished: tuple[Trained, str]) -> None:
    trained, said = finished
    held = load(trained.model).header
    assert held.calibration == trained.metrics["calibration"]
    assert held.thresholds == trained.metrics["thresholds"]
    assert held.calibration is not None
    assert held.thresholds is not None
    assert held.novelty == trained.metrics["novelty"]
    assert held.novelty is not None
    assert (held.calibration["n"], held.calibration["measured_n"]) == (78, 78)
    fitted = Thresholds.from_json(held.thresholds)
    assert (fitted.risk, [one.name for one in fitted.classes]) == (0.1, ["lying", "standing"])
    refused = round(78 * held.novelty["refused"])
    assert fitted.n == 78 - refused  # what is none of these is not answered, whatever its probability
    given = [one for one in fitted.classes if one.threshold is not None]
    assert given
    assert all(upper_bound(one.errors, one.answered) <= 0.1 for one in given)
    assert "calibrat" in said
    assert "risk 10 % at 95 % confidence for each class: " in said


def test_temperature_and_thresholds_come_from_different_halves_of_validation() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 4000)
    right = np.clip(random.beta(8, 1, 4000), 0.02, 0.999)
    rows = np.where((labels == 0)[:, None], np.stack([right, 1 - right], 1), np.stack([1 - right, right], 1))
    chooses = np.array(split.halves([f"{i:064x}" for i in range(4000)], 0))
    fitted = trusted(Validated(rows, labels, chooses), CLASSES, 0.05)
    assert fitted.calibration is not None
    assert fitted.thresholds is not None
    assert (fitted.calibration.n, fitted.calibration.measured_n, fitted.thresholds.n) == (2000, 2000, 2000)
    assert fitted.calibration.log_loss_before == metrics.log_loss(rows[~chooses], labels[~chooses])
    turned = np.where(chooses, labels, 1 - labels)  # all errors are on the half that tests
    refused = trusted(Validated(rows, turned, chooses), CLASSES, 0.05)
    assert refused.calibration is not None
    assert refused.calibration.temperature == fitted.calibration.temperature
    assert refused.thresholds is not None
    assert [one.threshold for one in refused.thresholds.classes] == [None, None]


def test_without_validation_nothing_is_calibrated_nor_refused_and_that_is_said(data: Path, tmp_path: Path) -> None:
    sets = (*SETS, "validation=false")
    trained = train([str(data)], Wish(flags=QUICK | {"epochs": 1}, sets=sets, out=tmp_path / "run"))
    held = load(trained.model).header
    assert (held.calibration, held.thresholds) == (None, None)
    said = ["no validation photos: probabilities are not calibrated, and no answer is refused as unsure"]
    assert trust_lines(trained.metrics) == said
    assert trust_lines({"steps": 3}) == []


def test_few_validation_photos_calibrate_nothing_and_the_end_of_a_training_says_how_many_it_takes(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = train([str(data)], Wish(flags=QUICK | {"epochs": 1}, sets=SETS, out=tmp_path / "run"))
    Live(console()).ending(trained)
    out = capsys.readouterr().out
    assert "not calibrated: 3 photos are too few to calibrate by, 30 are needed at least\n" in out
    assert "No threshold can hold a risk of 10 %, so nothing is refused, for lying (" in out
    assert " answers to test on; 29 are needed at least)" in out
    assert "; the model is " in out


def test_probabilities_are_tempered_and_answers_below_their_classes_threshold_are_unsure() -> None:
    classifier = Classifier(header(2.0, (0.7, 0.7)), Fixed())
    answers = classifier.answers(PIXELS)
    tempered = temper(RAW, 2.0)
    assert [list(a.probabilities.values()) for a in answers] == tempered.tolist()
    assert [a.label for a in answers] == ["cat", "cat", "dog", "dog"]
    assert [a.answer for a in answers] == ["cat", "unsure", "unsure", "dog"]
    assert [a.novelty for a in answers] == [None] * 4
    assert classifier.rule.sure(tempered).tolist() == [True, False, False, True]
    assert tempered[0, 0] == pytest.approx(0.75)


def test_many_photos_are_calibrated_as_one_is(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", {"cat": 2, "dog": 2})
    sources = [Source(str(path)) for path in sorted(folder.rglob("*.jpg"))]
    classifier = Classifier(header(2.0, (0.7, 0.7)), Fixed())
    [(places, answered)] = classifier.answers_many(sources)
    assert places == [0, 1, 2, 3]
    assert not isinstance(answered, BadPhoto)
    assert np.array_equal(answered.probabilities, temper(RAW, 2.0))
    assert np.isnan(answered.novelty).all()
    predictions = dict(classifier.predict_many(sources))
    assert [predictions[i] for i in range(4)] == classifier.answers(PIXELS)


def test_a_class_without_a_threshold_refuses_nothing_and_one_at_the_threshold_is_answered() -> None:
    exactly = float(RAW[0, 0])
    classifier = Classifier(header(None, (exactly, None)), Fixed())
    assert [a.answer for a in classifier.answers(PIXELS)] == ["cat", "unsure", "dog", "dog"]


def test_a_model_file_without_the_fields_answers_as_before() -> None:
    answers = Classifier(header(), Fixed()).answers(PIXELS)
    assert [a.answer for a in answers] == [a.label for a in answers]
    assert [list(a.probabilities.values()) for a in answers] == RAW.astype(float).tolist()


def test_thresholds_that_are_none_are_a_damaged_model_file(finished: tuple[Trained, str], tmp_path: Path) -> None:
    model, path = load(finished[0].model), tmp_path / "model.safetensors"
    plusx.model_file.save(path, replace(model, header=replace(model.header, thresholds={"risk": 0.1})))
    with pytest.raises(ModelError, match="its calibration, thresholds or novelty are not as written"):
        plusx.load(path)


def test_evaluate_tests_what_is_answered(finished: tuple[Trained, str]) -> None:
    trained, _ = finished
    evaluation = evaluate(trained.run)
    figures, answered = evaluation.figures, evaluation.figures["answered"]
    assert answered["n"] + answered["unsure"] + answered["none_of_these"] == figures["n"] == 52
    assert figures["coverage"] == answered["coverage"] == answered["n"] / 52
    assert set(answered) == {"coverage", "n", "error", "error_ci95", "unsure", "none_of_these"}
    assert sum(row["n"] for row in figures["reliability"]) == 52
    lines = evaluation.lines()
    assert any(line.startswith(f"answered {100 * answered['coverage']:.2f} %, unsure of ") for line in lines)
    assert any(line.startswith("  surest 95 %: error ") and line.endswith("n = 49") for line in lines)


def test_evaluate_and_predict_say_the_same(finished: tuple[Trained, str]) -> None:
    trained, _ = finished
    header = load(trained.model).header
    assert header.calibration is not None
    rows = {
        Path(row.path).name + row.path.split("/")[-2]: row
        for row in predict(trained.run, [trained.run.parent / "stripes"])
    }
    tested = [row for row in split.read_split_csv(trained.run / "split.csv") if row.split == "test"]
    answers = [rows[Path(row.path).name + row.label] for row in tested]
    evaluation = evaluate(trained.run).figures
    assert sum(row.answer == "unsure" for row in answers) == evaluation["answered"]["unsure"]
    assert sum(row.label != t.label for row, t in zip(answers, tested, strict=True)) == 52 - round(
        evaluation["accuracy"] * 52
    )
    assert sum(row.answer == "none of these" for row in answers) == evaluation["answered"]["none_of_these"]
    wrong = sum(row.answer not in ("unsure", "none of these", t.label) for row, t in zip(answers, tested, strict=True))
    assert wrong == round((evaluation["answered"]["error"] or 0) * evaluation["answered"]["n"])


def test_unsure_shows_in_the_table_in_csv_and_in_json(
    finished: tuple[Trained, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, _ = finished
    model = load(trained.model)
    assert model.header.thresholds is not None
    never = [{**one, "threshold": 1.1} for one in model.header.thresholds["classes"]]
    thresholds = {**model.header.thresholds, "classes": never}
    strict = tmp_path / "model.safetensors"
    plusx.model_file.save(strict, replace(model, header=replace(model.header, thresholds=thresholds)))
    photo = str(trained.run.parent / "stripes" / "lying" / "0.jpg")
    rows = list(predict(strict, [photo]))
    assert (rows[0].answer, rows[0].label in ("lying", "standing")) == ("unsure", True)
    write_rows(iter(rows), "table", None)
    shown = capsys.readouterr().out
    assert shown.startswith("unsure ")
    assert f"{rows[0].label} " in shown
    write_rows(iter(rows), "csv", None)
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["answer"], row["label"]) == ("unsure", rows[0].label)
    write_rows(iter(rows), "json", None)
    assert json.loads(capsys.readouterr().out)["predictions"][0]["answer"] == "unsure"


@pytest.mark.parametrize(
    ("asked", "risk"), [("1%", 0.01), ("2.5 %", 0.025), ("0.01", 0.01), (".02", 0.02), ("auto", "auto")]
)
def test_a_risk_is_a_percentage_or_a_share(asked: str, risk: float | str) -> None:
    from plusx.recipes.resolve import resolve

    assert resolve({"risk": asked}).risk == risk
    assert resolve({}, sets=(f"risk={asked}",)).risk == risk


@pytest.mark.parametrize("asked", ["1", "60%", "0", "-1%", "one", "1%%", "nan"])
def test_a_risk_that_is_no_share_is_one_sentence(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["train", ".", f"--risk={asked}"]) == 2
    sentence = "--risk expects a share of errors above 0 and up to 50%, such as 1% or 0.01, and got "
    assert f"plusx: {sentence}{asked!r}.\n" in capsys.readouterr().err


def test_a_resumed_run_keeps_the_risk_it_was_started_with(
    finished: tuple[Trained, str], capsys: pytest.CaptureFixture[str]
) -> None:
    trained, _ = finished
    assert cli(["train", "--resume", "--out", str(trained.run), "--risk", "10%"]) == 0
    assert cli(["train", "--resume", "--out", str(trained.run), "--risk", "5%"]) == 2
    assert "risk was 0.1 and is now 0.05" in capsys.readouterr().err


def test_a_class_that_is_always_answered_is_said_to_be() -> None:
    held = header(1.5, (0.7, 0.0))
    assert trust_lines({"calibration": held.calibration, "thresholds": held.thresholds})[2:] == [
        "  cat: from 70.00 % on (90 of 100 answered, 1 wrong)",
        "  dog: always (90 of 100 answered, 1 wrong)",
    ]


def test_of_many_classes_the_range_of_thresholds_is_shown_and_of_no_answers_no_error() -> None:
    one = {"n": 100, "answered": 90, "errors": 1}
    classes = [{"name": f"c{i}", "threshold": 0.5 + i / 100, **one} for i in range(9)]
    fitted = {"risk": 0.05, "confidence": 0.95, "n": 900, "coverage": 0.9, "classes": classes, "note": None}
    calibration = header(1.5).calibration
    assert trust_lines({"calibration": calibration, "thresholds": fitted}) == [
        "temperature 1.500 (fitted on 50 photos)",
        "risk 5 % at 95 % confidence for each class: 90.00 % answered, the others unsure (on 900 photos)",
        "  thresholds of 9 classes, 50.00 % to 58.00 %",
    ]
    none = metrics.answered(RAW, np.array([0, 0, 1, 1]), np.zeros(4, dtype=bool))
    assert (none["error"], none["error_ci95"], none["coverage"], none["unsure"]) == (None, None, 0.0, 4)
    covered = metrics.risk_coverage(RAW, np.array([0, 0, 1, 1]))
    figures = {"answered": none | {"none_of_these": 0}, "risk_coverage": covered, "classes": ["c0", "c1"]}
    assert answered_lines(figures, fitted)[0] == "answered 0.00 %, unsure of 4"
    assert answered_lines(figures, None)[0].startswith("error where only the surest are answered")


def test_published_errors_stand_beside_ours_for_cats_and_dogs_alone() -> None:
    labels, raw = np.tile([0, 0, 1, 1], 250), np.tile(RAW, (250, 1))
    given = metrics.answered(raw, labels, np.ones(1000, dtype=bool))
    figures = {"answered": given, "risk_coverage": metrics.risk_coverage(raw, labels)}
    few = figures | {"classes": ["cat", "dog"], "risk_coverage": metrics.risk_coverage(raw[:999], labels[:999])}
    assert answered_lines(few, None)[0] == "error where only the surest are answered"
    head, *rows = answered_lines(figures | {"classes": ["cat", "dog"]}, None)
    assert head == (
        "error where only the surest are answered; published for VGG-16-BN at 64 px (Self-Adaptive Training, "
        "arXiv 2002.10319), on other photos of the same kind"
    )
    published = [row.rpartition("; published ")[2] for row in rows]
    assert published == ["3.01 %", "1.25 %", "0.59 %", "0.25 %", "0.15 %"]
    others = answered_lines(figures | {"classes": ["bird", "cat", "dog"]}, None)
    assert others[0] == "error where only the surest are answered"
    assert not any("published" in line for line in others)
