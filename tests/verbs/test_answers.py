"""Answers as a file, and what thresholds make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plusx.errors import ModelError
from plusx.images.preprocess import Preprocess
from plusx.model_file import Header
from plusx.trust.novelty import Novelty
from plusx.trust.risk import ClassThreshold, Thresholds
from plusx.verbs.answers import Answered, read_answers, write_answers

CLASSES = ("path", "nov,el")
PHOTOS = [("a.jpg", "00"), ('odd "name"\n.jpg', "01"), ("b\udcff.jpg", "02"), ("c.jpg", "03")]
P = np.array([[0.9, 0.1], [0.4, 0.6], [1 / 3, 2 / 3], [0.55, 0.45]], dtype=np.float32)


def header(**fields: Any) -> Header:
    return Header(CLASSES, Preprocess(32, 32), {"name": "resnet10"}, **fields)


def held(*thresholds: float | None) -> dict[str, Any]:
    classes = tuple(ClassThreshold(name, t, 10, 9, 0) for name, t in zip(CLASSES, thresholds, strict=True))
    return Thresholds(0.05, 0.95, 20, 0.9, classes).to_json()


def answered() -> Answered:
    return Answered.of(CLASSES, PHOTOS, [0, 0, 1, 1], P)


def test_a_file_of_answers_keeps_every_bit_and_every_name(tmp_path: Path) -> None:
    written = answered().decided(header(), np.array([0.5, np.nan, -1.25, 1e-9]))
    write_answers(tmp_path / "a.csv", written)
    again = read_answers(tmp_path / "a.csv")
    assert again is not None
    for name, value in vars(written).items():
        assert np.array_equal(getattr(again, name), value, equal_nan=name == "novelty"), name
    first = (tmp_path / "a.csv").read_text(errors="surrogateescape").splitlines()[0]
    assert first == 'path,sha256,label,answer,p:path,"p:nov,el",novelty'


def test_without_thresholds_the_likeliest_class_is_the_answer() -> None:
    assert answered().decided(header()).answers == ("path", "nov,el", "nov,el", "path")
    assert answered().wrong.tolist() == [False, True, False, True]


def test_strangeness_is_asked_first_then_certainty_by_the_threshold_of_the_class() -> None:
    novelty = Novelty(2.0, 0.04, 100).to_json()
    decided = answered().decided(header(thresholds=held(0.8, None), novelty=novelty), np.array([3.0, 2.0, 0, 0]))
    assert decided.answers == ("none of these", "nov,el", "nov,el", "unsure")
    assert answered().decided(header(thresholds=held(float(P[3, 0]), 0.61))).answers == (
        "path",
        "unsure",
        "nov,el",
        "path",
    )


def test_a_missing_file_is_none_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert read_answers(tmp_path / "none.csv") is None
    for text in ("", "path,sha256\n", "path,sha256,label,answer,p:a,novelty\nx,0,b,b,0.5,\n", 'x,"\n'):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(ModelError, match=r"bad\.csv is damaged: it is not the table that was written"):
            read_answers(tmp_path / "bad.csv")
