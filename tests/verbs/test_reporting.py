"""The pages of a run: what they say, when they are written, and that they never cost a run."""

from __future__ import annotations

import io
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plusx.errors import DiskError, UsageError
from plusx.images.preprocess import Preprocess
from plusx.model_file import Header, ModelFile, load, save, seen_hashes
from plusx.models import create_model
from plusx.report.advice import Evidence
from plusx.run_folder import open_run
from plusx.training.events import Notice
from plusx.trust.novelty import Novelty
from plusx.verbs.answers import read_answers
from plusx.verbs.evaluate import evaluate
from plusx.verbs.labelled import split_photos
from plusx.verbs.reporting import parameters_of, run_story, write_pages
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.verbs.conftest import QUICK, SETS, fill

SECTIONS = ("advice", "accuracy", "curves", "trust", "photos", "facts")


def trained(data: Path, out: Path, events: list[Any] | None = None, **flags: Any) -> Path:
    wish = Wish(flags=QUICK | flags, sets=SETS, out=out)
    return train([str(data)], wish, on_event=None if events is None else events.append).run


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Photos whose classes are called as nobody would like them."""
    return fill(tmp_path / "stripes", {"<script>lying": 30, "standing | & more": 30})


def text_of(path: Path) -> str:
    return path.read_bytes().decode()


def test_a_training_ends_with_a_page_of_validation_and_evaluate_puts_the_test_in_its_place(
    hostile: Path, tmp_path: Path
) -> None:
    run = trained(hostile, tmp_path / "run", epochs=12)
    page, card = text_of(run / "report.html"), text_of(run / "card.md")
    assert "Measured on validation photos; the test split was not touched. plusx evaluate RUN tests." in page
    assert all(f'<section id="{name}">' in page for name in SECTIONS)
    assert "<script" not in page
    assert "&lt;script&gt;lying" in page
    assert "\\<script\\>lying" in card
    assert "standing \\| & more" in card
    assert page.count("data:image/jpeg;base64,") >= 6
    validation = read_answers(run / "validation.csv")
    metrics = json.loads((run / "metrics.json").read_text())
    assert validation is not None
    assert validation.figures() == metrics["validation"]

    evaluation = evaluate(run)
    assert evaluation.report == run / "report.html"
    assert evaluation.notices == ()
    page, card = text_of(run / "report.html"), text_of(run / "card.md")
    assert "Measured on the test split, which neither training nor any choice has seen." in page
    assert "Validation, for comparison: accuracy" in page
    assert "| test | 6 |" in card
    assert "| validation | 6 |" in card
    test = read_answers(run / "answers.csv")
    assert test is not None
    assert test.figures().items() <= evaluation.figures.items()
    assert json.loads((run / "test.json").read_text()) == json.loads(json.dumps(evaluation.to_json()))
    assert json.loads((run / "metrics.json").read_text()) == metrics


def test_a_model_tested_on_other_photos_has_a_page_where_it_is_wanted_and_its_run_stays(
    data: Path, tmp_path: Path
) -> None:
    run = trained(data, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    more = fill(tmp_path / "more", {"lying": 5, "standing": 5}, first=100)
    evaluation = evaluate(run, [str(more)], report=tmp_path / "more.html")
    page = text_of(tmp_path / "more.html")
    assert evaluation.report == tmp_path / "more.html"
    assert f"Measured on {more}." in page
    assert '<section id="curves">' not in page
    train([], Wish(out=run, resume=True))
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_a_page_of_other_photos_that_cannot_be_written_costs_a_sentence_and_not_the_figures(
    data: Path, tmp_path: Path
) -> None:
    run = trained(data, tmp_path / "run")
    more = fill(tmp_path / "more & more", {"lying": 5, "standing": 5}, first=100)
    evaluation = evaluate(run, [str(more)], report=tmp_path / "nowhere" / "more.html")
    assert (evaluation.figures["n"], evaluation.report) == (10, None)
    assert evaluation.notices[0].startswith(f"{tmp_path / 'nowhere' / 'more.html'} could not be written (DiskError: ")
    assert evaluation.notices[0].endswith("; the figures are whole: test again with another --report.")


def test_the_data_that_a_page_tells_to_check_can_be_typed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(data, tmp_path / "run", epochs=1)
    roots = [str(fill(tmp_path / f"{i} more", {"lying": 5, "standing": 5}, first=100 * i)) for i in (1, 2)]
    asked: list[Evidence] = []
    monkeypatch.setattr("plusx.verbs.reporting.advise", lambda evidence: asked.append(evidence) or ())
    evaluate(run, roots, report=tmp_path / "more.html")
    assert shlex.split(asked[0].data) == roots


def test_a_photo_whose_map_is_refused_is_shown_without_it(data: Path, tmp_path: Path) -> None:
    run = open_run(trained(data, tmp_path / "run", epochs=1))
    photos = split_photos([str(data)], run).listing.photos

    def refused(*_: object) -> bytes:
        raise UsageError("There is no such device.")

    assert write_pages(run, photos, refused) is None
    page = text_of(run.report)
    assert "data:image/jpeg;base64," in page
    assert "what the answer" not in page


def test_a_page_that_cannot_be_made_costs_a_sentence_and_not_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(story: object) -> str:
        raise RuntimeError("no\nink")

    monkeypatch.setattr("plusx.verbs.reporting.run_page", broken)
    events: list[Any] = []
    run = trained(data, tmp_path / "run", events)
    told = [event.text for event in events if isinstance(event, Notice)]
    sentence = (
        f"{run / 'report.html'} could not be written (RuntimeError: no ink); the run is whole, and `plusx evaluate` "
        "writes its pages anew."
    )
    assert told == [sentence]
    assert (run / "model.safetensors").exists()
    assert evaluate(run).notices == (sentence,)


@pytest.mark.parametrize("gone", [False, True])
def test_pages_lost_to_an_interruption_come_back_when_the_finished_run_is_resumed(
    data: Path, tmp_path: Path, *, gone: bool
) -> None:
    run = trained(data, tmp_path / "run")
    page = text_of(run / "report.html")
    (run / "report.html").unlink()
    if gone:
        data.rename(tmp_path / "elsewhere")
    train([], Wish(out=run, resume=True))
    again = text_of(run / "report.html")
    assert page.split("<nav")[0] == again.split("<nav")[0]
    assert ("data:image/jpeg;base64," in again) != gone


def test_a_run_folder_that_takes_no_files_is_still_tested(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(data, tmp_path / "run")

    def refused(*_: object) -> None:
        raise DiskError("The disk is read-only.")

    monkeypatch.setattr("plusx.verbs.evaluate.write_answers", refused)
    evaluation = evaluate(run)
    assert (evaluation.figures["n"], evaluation.notices, evaluation.report) == (6, ("The disk is read-only.",), None)


def test_maps_stand_beside_the_mistakes_and_photos_that_are_gone_are_named(data: Path, tmp_path: Path) -> None:
    run = open_run(trained(data, tmp_path / "run", epochs=1))  # one epoch makes mistakes
    photos = split_photos([str(data)], run).listing.photos
    asked: list[tuple[tuple[int, ...], int]] = []

    def overlay(pixels: np.ndarray, label: int) -> bytes:
        asked.append((pixels.shape, label))
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    assert write_pages(run, photos, overlay) is None
    page = text_of(run.report)
    answered = read_answers(run.validation_answers)
    assert answered is not None
    wrong = int(answered.wrong.sum())
    assert wrong > 0
    assert len(asked) == page.count("data:image/png") == wrong
    assert {shape for shape, _ in asked} == {(43, 43, 3)}  # as photos are decoded
    assert sorted(label for _, label in asked) == sorted(answered.probabilities[answered.wrong].argmax(1).tolist())

    shutil.rmtree(data)
    assert write_pages(run, photos, overlay) is None
    assert "data:image" not in text_of(run.report)
    assert "cannot be shown" in text_of(run.report)


def test_the_story_holds_what_the_run_measured(data: Path, tmp_path: Path) -> None:
    (data / "lying" / "bad.jpg").write_text("no photo")
    run = open_run(trained(data, tmp_path / "run", epochs=6, skip_bad=True, split="80/20/0"))
    story = run_story(run, {})
    assert [name for name, _ in story.skipped] == ["lying/bad.jpg"]
    assert story.main is not None
    assert story.main.decisions.n == story.main.figures["n"] == 12
    assert story.main.where == "Measured on validation photos; the run has no test split."
    course = story.course
    assert course is not None
    records = [json.loads(line) for line in (run.path / "history.jsonl").read_text().splitlines()]
    steps = [r for r in records if "loss" in r]
    assert [epoch for epoch, _ in course.loss] == pytest.approx([r["step"] / 3 for r in steps])
    assert [v for _, v in course.loss] == [r["loss"] for r in steps]
    assert [v for _, v in course.validation_loss] == [r["validation"]["log_loss"] for r in records if "validation" in r]
    assert "Photos that cannot be read" in {a.title for a in story.advice}
    assert "Few photos" in {a.title for a in story.advice}
    assert dict(story.training)["budget"] == "--epochs 6"


def test_a_run_without_validation_has_pages_that_say_so(data: Path, tmp_path: Path) -> None:
    wish = Wish(flags=QUICK, sets=(*SETS, "validation=false"), out=tmp_path / "run")
    run = train([str(data)], wish).run
    assert "Nothing was measured: the run has no validation photos." in text_of(run / "report.html")
    assert "Nothing was measured: the run had no validation photos." in text_of(run / "card.md")
    assert not (run / "validation.csv").exists()


def test_a_card_names_the_thresholds_that_a_model_has(data: Path, tmp_path: Path) -> None:
    run = open_run(trained(data, tmp_path / "run"))
    model = load(run.model)
    classes = [
        {"name": "lying", "threshold": 0.75, "n": 3, "answered": 2, "errors": 0},
        {"name": "standing", "threshold": None, "n": 3, "answered": 0, "errors": 0},
    ]
    fitted = {"risk": 0.01, "confidence": 0.95, "n": 3, "coverage": 0.5, "classes": classes, "note": "<script> Few."}
    calibration = {"temperature": 1.25, "n": 3, "measured_n": 3, "log_loss_before": 0.5, "log_loss_after": 0.4}
    header = replace(
        model.header,
        calibration=calibration | {"ece_before": 0.1, "ece_after": 0.05},
        thresholds=fitted,
        novelty=Novelty(1.5, 0.04, 3).to_json(),
    )
    save(run.model, replace(model, header=header))
    assert write_pages(run, []) is None
    card, page = text_of(run.card), text_of(run.report)
    assert "temperature 1.250 (n = 3)" in card
    assert (
        '- "unsure" below these probabilities, so that at most 1 % of what is answered as one of\n'
        "  these classes is wrong, for each class alone\n  (confidence 95 %, n = 3):\n"
        "  lying 75.00 %.\n  \\<script\\> Few."
    ) in card
    assert (
        "Of what it answers as a class with a threshold, at most 1.0 % should be wrong, with 95 % confidence for"
        in page
    )
    assert '"none of these" where the novelty (discriminant) is above 1.5.' in card
    assert "took the log loss from 0.5000 to 0.4000 and the calibration error from 10.00 % to 5.00 %" in page
    assert "no threshold" in page
    assert "risk 1.0 %" in page


@pytest.mark.parametrize("threshold", [None, 0.0])
def test_a_risk_is_only_promised_where_a_threshold_holds_it(
    data: Path, tmp_path: Path, *, threshold: float | None
) -> None:
    run = open_run(trained(data, tmp_path / "run"))
    model = load(run.model)
    classes = [{"name": n, "threshold": threshold, "n": 3, "answered": 3, "errors": 0} for n in ("lying", "standing")]
    fitted = {"risk": 0.1, "confidence": 0.95, "n": 6, "coverage": 1.0, "classes": classes, "note": None}
    save(run.model, replace(model, header=replace(model.header, thresholds=fitted)))
    assert write_pages(run, []) is None
    card, page = text_of(run.card), text_of(run.report)
    promised = threshold is not None
    assert ("at most 10.0 % should be wrong" in page) == promised
    assert ("at most 10 % of what is answered" in card) == promised
    assert ('It never says "unsure".' in card) != promised
    assert page.count("always answered") == (2 if promised else 0)
    assert ("lying always answered, standing always answered." in card) == promised


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnet50", "vgg11-bn", "alexnet"])
def test_parameters_are_counted_without_building_the_network(name: str, tmp_path: Path) -> None:
    network = create_model(name, classes=3)
    tensors = {f"network.{key}": value.numpy() for key, value in network.state_dict().items()}
    header = Header(("a", "b", "c"), Preprocess(32, 32), {"name": name})
    save(tmp_path / "m.safetensors", ModelFile(header, tensors, seen_hashes(["0" * 64])))
    assert parameters_of(tmp_path / "m.safetensors") == sum(p.numel() for p in network.parameters())
