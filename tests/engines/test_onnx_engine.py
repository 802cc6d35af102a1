"""A hostile or wrong ONNX file is refused in a sentence, before a runtime sees it where it would reach elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from plusx import onnx_file
from plusx.classifier import Classifier
from plusx.cli.run import run
from plusx.engines.onnx_engine import OnnxEngine
from plusx.errors import ModelError
from plusx.export.onnx import to_onnx
from tests.export.test_onnx import model, photos

Change = Callable[[Any], None]
EXTERNAL = "keeps part of its data in other files, which no exported file of plusx does, so it is not opened"


@pytest.fixture(scope="module")
def honest() -> bytes:
    return to_onnx(model("resnet8", views=("identity",)))


@pytest.fixture
def no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime may not be asked."""

    def asked(*_: Any, **__: Any) -> None:
        raise AssertionError("the runtime was given a file that should have been refused")

    monkeypatch.setattr(onnxruntime, "InferenceSession", asked)


def changed(honest: bytes, change: Change, folder: Path) -> Path:
    """The honest file with one thing changed."""
    proto = onnx.load_from_string(honest)
    change(proto)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def elsewhere(tensor: Any, location: str) -> None:
    """The tensor says that its data lies in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "link", "hard", "", "model.onnx.data"])
def test_data_in_another_file_is_refused_before_it_is_looked_for(location: str, honest: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"x" * 100_000)
    (folder / "model.onnx.data").write_bytes(b"x" * 100_000)
    (folder / "link").symlink_to(tmp_path / "secret")
    os.link(tmp_path / "secret", folder / "hard")
    path = changed(honest, lambda proto: elsewhere(proto.graph.initializer[0], location), folder)
    with pytest.raises(ModelError, match=EXTERNAL):
        Classifier.load(path)


def in_a_subgraph(proto: Any) -> None:
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [0.0])
    elsewhere(tensor, "/etc/hostname")
    inner = helper.make_graph([], "inner", [], [], initializer=[tensor])
    proto.graph.node.append(helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner))


def in_a_constant(proto: Any) -> None:
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [0.0])
    elsewhere(tensor, "/etc/hostname")
    proto.graph.node.append(helper.make_node("Constant", [], ["k"], value=tensor))


def in_a_sparse_tensor(proto: Any) -> None:
    sparse = proto.graph.sparse_initializer.add()
    elsewhere(sparse.indices, "/etc/hostname")


def named_alone(proto: Any) -> None:
    proto.graph.initializer[0].external_data.add(key="location", value="../secret")


def said_alone(proto: Any) -> None:
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize("hide", [in_a_subgraph, in_a_constant, in_a_sparse_tensor, named_alone, said_alone])
def test_data_in_another_file_is_found_wherever_it_hides(hide: Change, honest: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=EXTERNAL):
        Classifier.load(changed(honest, hide, tmp_path))


def foreign_operator(proto: Any) -> None:
    proto.graph.node[0].domain = "evil.example"


def foreign_set(proto: Any) -> None:
    proto.opset_import.add(domain="evil.example", version=1)


def function(proto: Any) -> None:
    proto.functions.add(name="f", domain="")


def training(proto: Any) -> None:
    proto.training_info.add()


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (foreign_operator, "asks for operators of 'evil.example', and exported files of plusx have only those of ONNX"),
        (foreign_set, "asks for operators of 'evil.example'"),
        (function, "holds functions or a graph to train, which no exported file of plusx does"),
        (training, "holds functions or a graph to train"),
    ],
)
def test_programs_of_others_are_refused(change: Change, sentence: str, honest: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=sentence):
        Classifier.load(changed(honest, change, tmp_path))


def named(proto: Any) -> None:
    proto.graph.input[0].name = "image"
    for node in proto.graph.node:
        for place, name in enumerate(node.input):
            if name == "pixels":
                node.input[place] = "image"


def of_another_size(proto: Any) -> None:
    for place in (1, 2):
        proto.graph.input[0].type.tensor_type.shape.dim[place].dim_value = 80


def a_second_input(proto: Any) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))


def no_probabilities(proto: Any) -> None:
    del proto.graph.output[0]


def a_stranger_comes_out(proto: Any) -> None:
    name = proto.graph.node[0].output[0]
    proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.INT64, None))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (named, r"its graph takes image tensor\(uint8\) .*, and uint8 pixels \[n, 64, 64, 3\] are expected"),
        (of_another_size, r"\[n, 64, 64, 3\] are expected|ONNX Runtime does not take it"),
        (a_second_input, r"its graph takes pixels .*, other .* and uint8 pixels \[n, 64, 64, 3\] are expected"),
        (no_probabilities, "its graph does not give probabilities of 3 classes"),
        (a_stranger_comes_out, r"its graph gives val_0 tensor\(int64\)"),
    ],
)
def test_a_graph_that_takes_or_gives_something_else_is_damaged(
    change: Change, sentence: str, honest: bytes, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=sentence):
        Classifier.load(changed(honest, change, tmp_path))


def test_an_operator_set_of_the_future_is_refused(honest: bytes, tmp_path: Path) -> None:
    def later(proto: Any) -> None:
        proto.opset_import[0].version = 999

    with pytest.raises(ModelError, match="is damaged: ONNX Runtime does not take it"):
        Classifier.load(changed(honest, later, tmp_path))


def test_the_command_says_it_in_one_sentence(honest: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = changed(honest, lambda proto: elsewhere(proto.graph.initializer[0], "../secret"), tmp_path)
    assert run(["predict", str(path), str(tmp_path)]) == 4
    said = capsys.readouterr().err
    assert said == f"plusx: {path} {EXTERNAL}; export the model again.\n"


def message(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer that holds others."""
    return bytes([number << 3 | 2]) + number_of(len(content)) + content


def number_of(value: int) -> bytes:
    found = b""
    while value >= 0x80:
        found, value = found + bytes([value & 0x7F | 0x80]), value >> 7
    return found + bytes([value])


def in_an_initializer(content: bytes) -> bytes:
    return message(7, message(5, content))


def test_a_place_that_is_said_in_an_odd_way_counts() -> None:
    assert not onnx_file.parts(in_an_initializer(b"\x70\x00")).external
    assert onnx_file.parts(in_an_initializer(b"\x70\x01")).external
    assert onnx_file.parts(in_an_initializer(b"\x70\x81\x80\x00")).external, "one, in three bytes"
    assert onnx_file.parts(in_an_initializer(b"\x70" + number_of(2**32 + 1))).external, "32 bits of it say one"
    with pytest.raises(ValueError, match="a field without a number"):
        onnx_file.parts(in_an_initializer(number_of(2**32 + 0x70) + b"\x01"))


def test_what_is_made_to_keep_a_reader_busy_is_given_up_in_time() -> None:
    deep = b""
    for _ in range(2_000):
        deep = message(1, message(5, message(6, deep)))
    begun = time.monotonic()
    with pytest.raises(ValueError, match="its graphs lie within each other too deeply"):
        onnx_file.parts(message(7, deep))
    with pytest.raises(ValueError, match="it has more than 500,000 parts"):
        onnx_file.parts(message(7, b"\x18\x00" * 3_000_000))
    assert time.monotonic() - begun < 10


def test_the_file_that_is_looked_through_is_the_one_that_computes(
    honest: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(honest)
    look = onnx_file.parts

    def swapped(content: bytes) -> onnx_file.Parts:
        path.write_bytes(b"another file by now")
        return look(content)

    monkeypatch.setattr(onnx_file, "parts", swapped)
    engine = OnnxEngine(path, 3, 64)
    assert np.isfinite(engine.answers(photos(2)).probabilities).all()
