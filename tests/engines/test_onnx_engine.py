"""M04, M05: a hostile or wrong ONNX file is refused in a sentence, before a runtime sees it where it would reach
elsewhere; what has to be computed to be found out is computed within bounds.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from plusx import onnx_file
from plusx.classifier import Classifier
from plusx.cli.run import run
from plusx.engines import onnx_bounds, onnx_graph
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


def a_loop(proto: Any) -> None:
    """Without end: each step asks for the next."""
    names = [
        helper.make_tensor_value_info(n, kind, []) for n, kind in (("i", TensorProto.INT64), ("c", TensorProto.BOOL))
    ]
    out = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    body = helper.make_graph([helper.make_node("Identity", ["c"], ["go"])], "body", names, [out])
    proto.graph.node.append(helper.make_node("Loop", ["", "yes"], [], body=body))


def a_hidden_scan(proto: Any) -> None:
    inner = helper.make_graph([helper.make_node("Scan", [], [])], "inner", [], [])
    attribute = proto.graph.node[0].attribute.add(name="many", type=onnx.AttributeProto.GRAPHS)
    attribute.graphs.append(inner)


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            a_loop,
            r"holds loops, as exports made with onnxscript before 0\.7\.2 do, so it is not opened; export the model",
        ),
        (a_hidden_scan, "holds loops, as exports"),
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


def a_constant(size: int) -> Change:
    """Ones, `size` x `size` of them, which are made when the file is loaded."""

    def change(proto: Any) -> None:
        shape = numpy_helper.from_array(np.array([size, size], np.int64), "how_many")
        one = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
        nodes = [helper.make_node("ConstantOfShape", ["how_many"], ["ones"], value=one)]
        used(proto, [shape], [*nodes, helper.make_node("ReduceMax", ["ones"], ["bomb"], keepdims=0)])

    return change


def a_chain(times: int) -> Change:
    """A photo laid beside itself, again and again, which takes a photo to be computed."""

    def change(proto: Any) -> None:
        nodes = [helper.make_node("Cast", ["pixels"], ["x0"], to=TensorProto.FLOAT)]
        nodes += [helper.make_node("Concat", [f"x{i}", f"x{i}"], [f"x{i + 1}"], axis=1) for i in range(times)]
        used(proto, [], [*nodes, helper.make_node("ReduceMin", [f"x{times}"], ["bomb"], keepdims=0)])

    return change


def used(proto: Any, tensors: list[Any], nodes: list[Any]) -> None:
    """Nodes whose result, `bomb`, is added to the probabilities, so that it has to be computed."""
    proto.graph.initializer.extend(tensors)
    (last,) = (node for node in proto.graph.node if "probabilities" in node.output)
    last.output[list(last.output).index("probabilities")] = "honest"
    for node in reversed(nodes):
        proto.graph.node.insert(0, node)
    proto.graph.node.append(helper.make_node("Add", ["honest", "bomb"], ["probabilities"]))


NOT_COMPUTED = "ONNX Runtime does not take it|its graph cannot be computed"


def one_answer_for_two(proto: Any) -> None:
    """Twice as many answers as photos."""
    (last,) = (node for node in proto.graph.node if "probabilities" in node.output)
    last.output[list(last.output).index("probabilities")] = "honest"
    proto.graph.node.append(helper.make_node("Concat", ["honest", "honest"], ["probabilities"], axis=0))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux alone")
@pytest.mark.parametrize(
    ("bomb", "sentence"),
    [
        (a_constant(10**6), NOT_COMPUTED),
        (a_constant(30_000), NOT_COMPUTED),
        (a_chain(60), NOT_COMPUTED),
        (a_chain(16), NOT_COMPUTED),
        (one_answer_for_two, "its graph does not give one answer for one photo|ONNX Runtime does not take it"),
    ],
)
def test_a_graph_that_grows_without_bounds_is_refused_within_bounds(
    bomb: Change,
    sentence: str,
    honest: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """M05: 4 TB or 4 GB of ones, and a photo doubled 60 or 16 times (3 GB), where 1 GB may be taken."""
    monkeypatch.setattr(onnx_graph, "MOST_BYTES", 1 << 30)
    path = changed(honest, bomb, tmp_path)
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ModelError, match=sentence):
        Classifier.load(path)
    assert time.monotonic() - begun < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < (1 << 20) + (1 << 18), "kilobytes: 1.25 GB"
    assert capfd.readouterr() == ("", ""), "the runtime prints nothing of its own"
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY, "the bound is gone again"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux alone")
def test_a_graph_that_grows_a_little_is_taken(honest: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """M05, the control: the same graphs, small enough; and without the bound the runtime takes a larger one, too."""
    for small in (a_constant(100), a_chain(3)):
        assert Classifier.load(changed(honest, small, tmp_path)).classes
    assert Classifier.load(changed(honest, a_constant(10_000), tmp_path)).classes  # 0.4 GB
    monkeypatch.setattr(onnx_graph, "MOST_BYTES", 1 << 28)
    with pytest.raises(ModelError, match=NOT_COMPUTED):  # 2.5 GB: what tests before have freed may be as much as 0.6
        Classifier.load(changed(honest, a_constant(25_000), tmp_path))


def test_a_graph_that_computes_for_too_long_is_ended(
    honest: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M05: between two operators, after a minute; here at once."""
    monkeypatch.setattr(onnx_graph, "MOST_SECONDS", 0.0)
    real = onnx_bounds.ended_after

    @contextmanager
    def ended(options: Any, seconds: float) -> Iterator[Any]:
        with real(options, seconds):
            time.sleep(0.1)
            yield options

    monkeypatch.setattr(onnx_graph, "ended_after", ended)
    with pytest.raises(ModelError, match="its graph cannot be computed"):
        Classifier.load(changed(honest, lambda _: None, tmp_path))


@pytest.mark.parametrize("version", [0, 1, 7, 2**31])
def test_an_operator_set_that_does_not_fit_is_refused(version: int, honest: bytes, tmp_path: Path) -> None:
    """M05: too old for the operators that are used, or no version at all."""

    def other(proto: Any) -> None:
        proto.opset_import[0].version = version

    with pytest.raises(ModelError, match="is damaged: ONNX Runtime does not take it"):
        Classifier.load(changed(honest, other, tmp_path))


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


@pytest.mark.usefixtures("no_runtime")
def test_a_flipped_bit_anywhere_is_told_before_a_runtime_sees_it(honest: bytes, tmp_path: Path) -> None:
    content, path = onnx_file.signed(honest), tmp_path / "model.onnx"
    said = set()
    for place in np.linspace(0, len(honest) - 1, 400).astype(int):
        path.write_bytes(_flipped(content, place))
        with pytest.raises(ModelError) as refused:
            onnx_graph.Graph(path)
        said.add(refused.value.code)
    assert "model-damaged" in said
    path.write_bytes(_flipped(content, len(content) - 1))
    with pytest.raises(ModelError, match="its bytes are not those that were exported; copy it again, or export"):
        onnx_graph.Graph(path)


def test_a_signed_file_is_the_same_to_any_reader_and_one_without_a_hash_is_believed(
    honest: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_file.signed(honest))
    onnx.checker.check_model(path)
    ours, unsigned = onnx.load(path), onnx.load_from_string(honest)
    assert ours.metadata_props.pop().key == "plusx.sha256"
    assert ours == unsigned
    assert onnx_file.is_as_written(honest)
    assert {**onnx_file.metadata(path)}.keys() > {"plusx", "plusx.sha256"}
    OnnxEngine(path, 3)


def _flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
