"""Rows as JSON, CSV and a Kaggle submission; model files that are none."""

from __future__ import annotations

import csv
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from plusx import model_file
from plusx.errors import ModelError, UsageError
from plusx.images.preprocess import Preprocess
from plusx.model_file import Header, ModelFile
from plusx.verbs.predict import Row, Tally, to_csv, to_json, to_kaggle

GOOD = Row("dog.17.jpg", "dog", 0.75, {"cat": 0.25, "dog": 0.75}, "dog", None)
BAD = Row("=1+1.jpg", None, None, None, None, {"code": "empty", "message": "the file is empty"})


def written(writer: object, rows: list[Row]) -> str:
    text = io.StringIO(newline="")
    writer(iter(rows), text)  # type: ignore[operator]
    return text.getvalue()


def test_json_is_one_document() -> None:
    document = json.loads(written(to_json, [GOOD, BAD]))
    assert [p["path"] for p in document["predictions"]] == ["dog.17.jpg", "=1+1.jpg"]
    assert document["predictions"][1]["error"] == {"code": "empty", "message": "the file is empty"}


def test_csv_survives_any_name_and_holds_no_formula() -> None:
    odd = Row('-a "b"\n\udcff.jpg', "cat", 1.0, {"cat": 1.0}, "cat", None)
    rows = list(csv.DictReader(io.StringIO(written(to_csv, [GOOD, BAD, odd]), newline="")))
    assert rows[0] == {
        **{"path": "dog.17.jpg", "label": "dog", "probability": "0.75", "answer": "dog", "error": ""},
        "probabilities": '{"cat": 0.25, "dog": 0.75}',
    }
    assert rows[1]["path"] == "'=1+1.jpg"
    assert rows[2]["path"] == '\'-a "b"\n\\udcff.jpg'


def test_a_kaggle_submission_has_the_second_class_and_half_for_what_cannot_be_read() -> None:
    assert written(to_kaggle, [GOOD, BAD]).split() == ["id,label", "17,0.750000", "1,0.500000"]
    names = ("-abc.jpg", "photo", "a\udcff.jpg")
    rows = [Row(name, "dog", 0.75, {"cat": 0.25, "dog": 0.75}, "dog", None) for name in names]
    lines = written(to_kaggle, rows).splitlines()[1:]
    assert lines == ["-abc,0.750000", "photo,0.750000", "a\\udcff,0.750000"], "an id is compared: it is not marked"
    three = Row("1.jpg", "a", 1.0, {"a": 1.0, "b": 0.0, "c": 0.0}, "a", None)
    with pytest.raises(UsageError, match="--kaggle writes the probability of the second of two classes"):
        written(to_kaggle, [three])


@pytest.mark.parametrize(
    ("rows", "strict", "code"), [([GOOD], False, 0), ([GOOD, BAD], False, 0), ([GOOD, BAD], True, 3), ([BAD], False, 3)]
)
def test_the_exit_code_tells_whether_anything_was_read(rows: list[Row], strict: bool, code: int) -> None:
    tally = Tally()
    assert list(tally.counted(rows)) == rows
    assert tally.exit_code(strict) == code


def saved(path: Path) -> ModelFile:
    header = Header(classes=("a", "é\n"), preprocess=Preprocess(32, 32), network={"name": "resnet20"}, step=3)
    seen = model_file.seen_hashes(["ab" * 32, "01" * 32])
    model = ModelFile(header, {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, seen)
    model_file.save(path, model)
    return model


def test_a_model_file_comes_back_as_it_was(tmp_path: Path) -> None:
    model = saved(tmp_path / "m.safetensors")
    found = model_file.load(tmp_path / "m.safetensors")
    assert found.header == model.header
    assert np.array_equal(found.tensors["w"], model.tensors["w"])
    assert found.known.has_seen("ab" * 32)
    assert not found.known.has_seen("cd" * 32)


ZIP = "{path} is a zip archive, perhaps a PyTorch .pt file; plusx never loads pickles; "
EXPECTED = "expected a model.safetensors of plusx, an .onnx file it was exported to, or the run folder that holds it."


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "{path} is an empty file; " + EXPECTED),
        (
            b"PK\x03\x04rest",
            "{path} is a zip archive, perhaps a PyTorch .pt file; plusx never loads pickles; " + EXPECTED,
        ),
        (b"\x80\x04\x95rest", "{path} is a Python pickle, which plusx never loads; " + EXPECTED),
        (b"hello, this is text", "{path} is not a safetensors file, or a part of one; " + EXPECTED),
        (struct.pack("<Q", 2**60), "{path} is not a safetensors file, or a part of one; " + EXPECTED),
        (b"GGUF\x03\0\0\0", "{path} is a GGUF file; " + EXPECTED),
        (
            b"\x93NUMPY\x01\0",
            "{path} is an array of NumPy, which may hold pickles; plusx never loads those; " + EXPECTED,
        ),
        (
            safetensors.numpy.save({"w": np.zeros(2)}),
            "{path} is a safetensors file that plusx did not write; " + EXPECTED,
        ),
        (
            safetensors.numpy.save({"w": np.zeros(2)}, metadata={"format": "pt"}),
            "{path} is a safetensors file that plusx did not write; " + EXPECTED,
        ),
    ],
)
def test_another_file_is_refused_in_one_sentence(tmp_path: Path, data: bytes, sentence: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        model_file.load(path)
    assert caught.value.message == sentence.format(path=path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "m")
    whole = (tmp_path / "m").read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "m").write_bytes(whole[:length])
        with pytest.raises(ModelError):
            model_file.load(tmp_path / "m")


def test_another_format_version_and_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "m")
    data = (tmp_path / "m").read_bytes()
    (tmp_path / "m").write_bytes(data.replace(b'\\"format\\": 1', b'\\"format\\": 9'))
    with pytest.raises(ModelError, match="has model format 9 and this plusx reads format 1; use the version of plusx"):
        model_file.load(tmp_path / "m")
    header = Header(classes=("a",), preprocess=Preprocess(32, 32), network={"name": "resnet8"})
    model_file.save(tmp_path / "n", ModelFile(header, {"w": np.array([np.nan], dtype=np.float32)}))
    with pytest.raises(ModelError, match="n is damaged: 'w' holds numbers that are not finite; copy it again"):
        model_file.load(tmp_path / "n")
