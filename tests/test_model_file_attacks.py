"""M03: safetensors files that no honest writer makes are refused by name, in 100 ms and 64 MB, before tensors are made.

The header that plusx keeps in them is hostile as well: it decides what is built, decoded and printed.
"""

from __future__ import annotations

import json
import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch

from plusx import model_file, tensor_file
from plusx.classifier import Classifier
from plusx.data.layouts import Labelled, refuse_unusable
from plusx.engines.torch_engine import trained_network
from plusx.errors import DataError, ModelError
from plusx.model_file import KEY, OURS, SEEN, ModelFile
from plusx.verbs import start
from tests.export.test_onnx import model
from tests.hostile_models import entry
from tests.hostile_models import tensor_file as made

SECONDS, BYTES = 0.1, 64 << 20


def many(count: int) -> dict[str, Any]:
    """So many tensors of one byte."""
    return {f"layer.{i}": entry(i, i + 1) for i in range(count)}


def padded(text: bytes, size: int) -> bytes:
    """A header of so many bytes."""
    return text + b" " * (size - len(text))


TWO = {"a": entry(0, 4), "b": entry(4, 8)}
ATTACKS: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "no header": (b"\0" * 8, "its header is longer than the file, or there is none"),
    "a header longer than the file": (made(TWO, b"12345678", 10**6), "its header is longer than the file"),
    "a header of 2**63": (made(TWO, b"12345678", 2**63), "its header is longer than the file"),
    "a header of 17 MB": (
        lambda: made(padded(b"{}", 17 << 20)),
        "its header has 17,825,792 bytes, and 16,777,216 are the most",
    ),
    "metadata of 17 MB": (lambda: made({"__metadata__": {"a": "x" * (17 << 20)}}), "its header has 17,825,819 bytes"),
    "100,000 tensors": (lambda: made(many(100_000), b"\0" * 100_000), "it has more than 20,000 tensors"),
    "30,000 tensors": (lambda: made(many(30_000), b"\0" * 30_000), "it has more than 20,000 tensors"),
    "lists in lists": (made(b"[" * 90_000), "the parts of its header lie within each other too deeply"),
    "objects in objects": (made(b'{"a":' * 90_000), "the parts of its header lie within each other too deeply"),
    "very many lists": (
        lambda: made(b"[" + b"[]," * 4_000_000 + b"[]]"),
        "its header has 4,000,002 lists and objects, and 100,000 are the most",
    ),
    "very many numbers": (
        lambda: made(b"[" + b"1," * 8_000_000 + b"1]"),
        "its header has 8,000,000 values, and 6,000,000 are the most",
    ),
    "a number of 100,000 digits": (made(b'{"a":' + b"9" * 100_000 + b"}"), "a number of thousands of digits"),
    "no JSON": (made(b"{'a': 1}"), "its header is no JSON"),
    "UTF-16": (made("{}".encode("utf-16-le")), "its header is no JSON"),
    "no UTF-8": (made(b'{"\xff": 1}'), "its header is no JSON"),
    "a list": (made([]), "its header is no object"),
    "a number": (made(b" 1"), "its header is no object"),
    "metadata that are numbers": (made({"__metadata__": {"a": 1}}), "its metadata are no texts"),
    "metadata that are a list": (made({"__metadata__": ["a"]}), "its metadata are no texts"),
    "metadata within metadata": (made({"__metadata__": {"a": {"b": "c"}}}), "its metadata are no texts"),
    "a tensor twice": (
        made(b'{"a":%b,"a":%b}' % ((json.dumps(entry(0, 4)).encode(),) * 2), b"1234"),
        "names 'a' twice",
    ),
    "metadata twice": (made(b'{"__metadata__":{},"__metadata__":{}}'), "its header names '__metadata__' twice"),
    "a key of metadata twice": (made(b'{"__metadata__":{"plusx":"","plusx":""}}'), "its header names 'plusx' twice"),
    "a field twice": (made(b'{"a":{"dtype":"U8","dtype":"F32"}}'), "its header names 'dtype' twice"),
    "a field more": (made({"a": entry(0, 4) | {"code": "os"}}, b"1234"), "'a' is not described by dtype, shape"),
    "a field less": (made({"a": {"dtype": "U8", "shape": [4]}}, b"1234"), "'a' is not described by dtype, shape"),
    "a tensor that is a number": (made({"a": 1}), "'a' is not described by dtype, shape and data_offsets"),
    "numbers of no type": (
        made({"a": entry(0, 4, "O8")}, b"1234"),
        "'a' has numbers of the type 'O8', which is unknown",
    ),
    "a type that is a list": (made({"a": entry(0, 4, ["U8"])}, b"1234"), "has numbers of the type"),
    "a negative side": (made({"a": entry(0, 4, shape=[-2, -2])}, b"1234"), "'a' has a shape that is none"),
    "a side of a half": (made({"a": entry(0, 4, shape=[0.5, 8])}, b"1234"), "'a' has a shape that is none"),
    "a true side": (made({"a": entry(0, 1, shape=[True])}, b"1"), "'a' has a shape that is none"),
    "sides that overflow": (made({"a": entry(0, 0, shape=[2**32, 2**32])}), "'a' has a shape that is none"),
    "a side of 2**64 + 4": (made({"a": entry(0, 4, shape=[2**64 + 4])}, b"1234"), "'a' has a shape that is none"),
    "a thousand axes": (made({"a": entry(0, 1, shape=[1] * 1000)}, b"1"), "'a' has a shape that is none"),
    "a shape too large": (
        made({"a": entry(0, 4, shape=[5])}, b"1234"),
        "'a' has another number of bytes than its shape",
    ),
    "a shape too small": (
        made({"a": entry(0, 4, shape=[3])}, b"1234"),
        "'a' has another number of bytes than its shape",
    ),
    "a wider type": (made({"a": entry(0, 4, "F64", [4])}, b"1234"), "'a' has another number of bytes than its shape"),
    "a negative place": (made({"a": entry(-4, 0)}, b"1234"), "'a' has a place that is none"),
    "a place backwards": (made({"a": entry(0, 4) | {"data_offsets": [4, 0]}}, b"1234"), "'a' has a place that is none"),
    "a place of 2**64": (made({"a": entry(0, 4) | {"data_offsets": [0, 2**64 + 4]}}, b"1234"), "a place that is none"),
    "three places": (made({"a": entry(0, 4) | {"data_offsets": [0, 4, 8]}}, b"1234"), "'a' has a place that is none"),
    "tensors that overlap": (made({"a": entry(0, 6), "b": entry(4, 8)}, b"12345678"), "'b' overlaps another tensor"),
    "two tensors in one place": (made({"a": entry(0, 4), "b": entry(0, 4)}, b"1234"), "'b' overlaps another tensor"),
    "a gap": (made({"a": entry(0, 2), "b": entry(4, 8)}, b"12345678"), "'b' leaves bytes before it that nothing uses"),
    "a gap at the beginning": (made({"a": entry(4, 8)}, b"12345678"), "'a' leaves bytes before it that nothing uses"),
    "bytes behind": (made(TWO, b"12345678evil"), "4 bytes follow its last tensor"),
    "bytes and no tensor": (made({}, b"evil"), "4 bytes follow its last tensor"),
    "a part of a file": (made(TWO, b"1234567"), "its tensors end 1 bytes behind the file"),
    "a tensor far behind": (
        made({"a": entry(0, 2**39)}, b"1"),
        "its tensors end 549,755,813,887 bytes behind the file",
    ),
    "a name that is long": (made({"a" * 5000: 1}), f"'{'a' * 57}...' is not described"),
    "a name that is a command": (made({"\x1b[2J": 1}), r"'\x1b[2J' is not described"),
}


def measured(call: Callable[[], object]) -> tuple[str, float, int]:
    """The sentence with which a call ends, its quickest of three times in seconds, and the most bytes it needed."""
    seconds = []
    for _ in range(3):
        begun = time.process_time()
        with pytest.raises(ModelError) as caught:
            call()
        seconds.append(time.process_time() - begun)
    tracemalloc.start()
    with pytest.raises(ModelError):
        call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return caught.value.message, min(seconds), peak


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_no_honest_writer_makes_is_refused_in_no_time(attack: str, tmp_path: Path) -> None:
    """M03: as a model, and as weights to start from, which says more."""
    content, why = ATTACKS[attack]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content() if callable(content) else content)
    with pytest.raises(ValueError, match=r".") as caught:
        tensor_file.contents(path)
    assert why in str(caught.value)
    for read in (model_file.load, lambda path: start.find(str(path))):
        said, seconds, peak = measured(lambda read=read: read(path))
        assert str(path) in said
        assert why in said or isinstance(caught.value, tensor_file.NoTensorFile)
        assert len(said) < 600
        assert seconds <= SECONDS, f"{seconds:.3f} s"
        assert peak <= BYTES, f"{peak / 2**20:.0f} MB"


def test_a_header_of_100_mb_is_not_even_read(tmp_path: Path) -> None:
    """M03: the file is as long as it says, and costs nothing."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 100_000_000) + b'{"a":')
    os.truncate(path, 100_000_008)
    said, seconds, peak = measured(lambda: model_file.load(path))
    assert "its header has 100,000,000 bytes, and 16,777,216 are the most" in said
    assert seconds <= SECONDS
    assert peak <= 1 << 20


def test_the_largest_header_that_is_let_through_is_bounded_as_well(tmp_path: Path) -> None:
    """M03: what is just within the limits costs more than a refusal, and not much more."""
    path = tmp_path / "model.safetensors"
    for text in (
        b'{"a":"%b"}' % (b"x" * (16_000_000)),
        b"[" + b"[]," * 90_000 + b"1]",
        b"[" + b"0.5," * 4_100_000 + b"1]",
    ):
        path.write_bytes(made(text))
        _, seconds, peak = measured(lambda: model_file.load(path))
        assert seconds <= 20 * SECONDS, f"{seconds:.3f} s"  # 0.8 s, of floating-point numbers
        assert peak <= 4 * BYTES, f"{peak / 2**20:.0f} MB"


def test_readers_that_look_less_would_let_some_of_them_pass(tmp_path: Path) -> None:
    """M03, the control: the library alone takes names that stand twice, where readers may differ on which counts."""
    content, _ = ATTACKS["a tensor twice"]
    assert safetensors.numpy.load(content)["a"].shape == (4,)
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="twice"):
        tensor_file.contents(path)


def test_an_honest_file_is_what_its_writer_says(tmp_path: Path) -> None:
    """M03, the control: tensors of every kind, of no numbers and of one, in any order."""
    rng = np.random.default_rng(0)
    tensors = {"z": rng.normal(size=(2, 3)).astype(np.float32), "empty": np.zeros((0, 4), np.float64)}
    tensors |= {"one": np.array(3, np.int64), "flags": np.array([True]), "half": np.ones(3, np.float16)}
    safetensors.numpy.save_file(tensors, tmp_path / "x", metadata={"format": "np"})
    found = tensor_file.contents(tmp_path / "x")
    assert found.metadata == {"format": "np"}
    assert {name: each.shape for name, each in found.tensors.items()} == {n: t.shape for n, t in tensors.items()}


def test_a_table_of_two_thousand_classes_by_two_thousand_is_read() -> None:
    """M03, the control: until 0.1.0 the model files of runs held their whole confusion matrix."""
    table = [[0] * 2_300] * 2_300
    assert tensor_file.parsed(json.dumps({"confusion": table})) == {"confusion": table}
    with pytest.raises(ValueError, match="its header has 16,777,218 characters, and 16,777,216 are the most"):
        tensor_file.parsed("[" + " " * (16 << 20) + "]")


# what plusx's own header may say


@pytest.fixture(scope="module")
def honest() -> ModelFile:
    """A small network, as trained."""
    return model("resnet8", views=("identity",))


def forged(honest: ModelFile, path: Path, **said: Any) -> Path:
    """A model file whose header says something else."""
    values = asdict(honest.header) | {"preprocess": honest.header.preprocess.to_json()} | said
    tensors = {name: np.ascontiguousarray(value) for name, value in honest.tensors.items()}
    document = said.get("document") or json.dumps(values)
    path.write_bytes(safetensors.numpy.save(tensors | {SEEN: honest.seen}, metadata={KEY: document}))
    return path


PIXELS = {
    "resize": 64,
    "crop": 64,
    "background": [255] * 3,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "decoder_scale": False,
}
SAID: dict[str, tuple[dict[str, Any], str]] = {
    "deep": ({"document": "[" * 90_000}, "the parts of its header lie within each other too deeply"),
    "many": ({"document": "[" + "[]," * 250_000 + "1]"}, "its header has 250,144 lists and objects"),
    "no document": ({"document": "hello"}, "its header is not as written"),
    "a list": ({"document": "[]"}, "its header is not as written"),
    "twice": ({"document": '{"format": 1, "format": 1}'}, "its header names 'format' twice"),
    "format": ({"format": "9" * 10_000}, "has model format 99999999999999999999 and this plusx reads format 1"),
    "stranger": ({"code": "import os"}, "its header is not as written"),
    "no classes": ({"classes": []}, "classes should be names, none twice"),
    "classes that are numbers": ({"classes": [1, 2, 3]}, "classes should be names, none twice"),
    "classes that are a text": ({"classes": "cat"}, "classes should be names, none twice"),
    "classes that are lists": ({"classes": [["cat"], ["dog"], ["owl"]]}, "classes should be names, none twice"),
    "a class twice": ({"classes": ["cat", "dog", "cat"]}, "classes should be names, none twice"),
    "a class without a name": ({"classes": ["cat", "", "owl"]}, "classes should be names, none twice"),
    "a long class": ({"classes": ["cat", "d" * 256, "owl"]}, "of at most 255 characters"),
    "too many classes": ({"classes": [str(i) for i in range(20_001)]}, "classes should be names"),
    "no network": ({"network": {}}, "network should be its name, and texts and numbers"),
    "a network within": ({"network": {"name": {"name": "resnet8"}}}, "network should be its name"),
    "an unknown network": ({"network": {"name": "os.system"}}, "There is no model 'os.system'"),
    "a file as a network": (
        {"network": {"name": "timm/hf-hub:evil/model"}},
        "There is no model 'timm/hf-hub:evil/model'",
    ),
    "a checkpoint": (
        {"network": {"name": "resnet8", "checkpoint_path": "/tmp/x"}},
        "its tensors do not fit its network",
    ),
    "weights to fetch": (
        {"network": {"name": "timm/resnet18", "pretrained": True}},
        "its tensors do not fit its network",
    ),
    "a width of nothing": ({"network": {"name": "resnet8", "width": 0}}, "its tensors do not fit its network"),
    "an endless width": ({"document": "WIDTH Infinity"}, "network should be its name, and texts and numbers"),
    "a width that is no number": ({"document": "WIDTH NaN"}, "network should be its name, and texts and numbers"),
    "a huge width": ({"network": {"name": "resnet8", "width": 1e5}}, "its tensors do not fit its network"),
    "a wider network": ({"network": {"name": "resnet8", "width": 0.5}}, "'network.conv1.weight' is float32 of shape"),
    "a deeper network": ({"network": {"name": "resnet110", "width": 0.25}}, "is missing"),
    "huge photos": ({"preprocess": PIXELS | {"resize": 10**6, "crop": 10**6}}, "preprocess should be of at most 4096"),
    "no photos": ({"preprocess": PIXELS | {"crop": 0}}, "The preprocess in the model file is damaged"),
    "a huge size": ({"size": 10**6}, "size should be a whole number of pixels, at most 4096"),
    "a size of a half": ({"size": 0.5}, "size should be a whole number of pixels"),
    "very many views": ({"views": ["identity"] * 1000}, "views should be 1 to 16 names"),
    "no views": ({"views": []}, "views should be 1 to 16 names"),
    "an unknown view": ({"views": ["exec"]}, "it asks for the view 'exec'"),
    "a step before the first": ({"step": -1}, "step should be a whole number"),
    "a step that is a text": ({"step": "1"}, "step should be a whole number"),
    "metrics that are a list": ({"metrics": []}, "metrics should be an object"),
    "a config that is a text": ({"config": "x"}, "config should be an object"),
    "a long fingerprint": ({"data_fingerprint": "f" * 1000}, "data_fingerprint should be a short text"),
    "a calibration that is a list": ({"calibration": []}, "calibration should be an object or nothing"),
    "no temperature": (
        {"calibration": {"temperature": 0}},
        "its calibration, thresholds or novelty are not as written",
    ),
    "thresholds of others": (
        {"thresholds": {"classes": []}},
        "its calibration, thresholds or novelty are not as written",
    ),
    "novelty of others": (
        {"novelty": {"threshold": "high"}},
        "its calibration, thresholds or novelty are not as written",
    ),
}


@pytest.mark.parametrize("what", SAID)
def test_a_header_that_says_what_no_model_says_is_refused(what: str, honest: ModelFile, tmp_path: Path) -> None:
    """M03: nothing is built, fetched, allocated or printed because a header asks for it."""
    said, why = SAID[what]
    path = forged(honest, tmp_path / "model.safetensors", **said)
    if str(said.get("document", "")).startswith("WIDTH"):
        number = said["document"].split()[1]
        values = asdict(honest.header) | {"preprocess": honest.header.preprocess.to_json()}
        document = json.dumps(values).replace('"width": 0.25', f'"width": {number}')
        path = forged(honest, path, document=document)
    begun = time.process_time()
    with pytest.raises(ModelError) as caught:
        Classifier.load(path, device="cpu")
    assert why in caught.value.message
    assert caught.value.exit_code == 4
    assert time.process_time() - begun < 5


def changed(honest: ModelFile, **tensors: Any) -> ModelFile:
    """The same with other tensors; None takes one out."""
    named = {name.replace("__", "."): value for name, value in tensors.items()}
    kept = {name: value for name, value in (honest.tensors | named).items() if value is not None}
    return replace(honest, tensors=kept)


WEIGHT = "network__conv1__weight"
TENSORS: dict[str, tuple[Callable[[ModelFile], dict[str, Any]], str]] = {
    "a missing one": (lambda _: {WEIGHT: None}, "'network.conv1.weight' is missing"),
    "one more": (lambda _: {"network__evil": np.zeros(3, np.float32)}, "there is no place for 'network.evil'"),
    "one more of plusx": (lambda _: {"plusx__evil": np.zeros(3)}, "it holds 'plusx.evil', which no model file does"),
    "another shape": (
        lambda m: {WEIGHT: m.tensors["network.conv1.weight"][:1]},
        "'network.conv1.weight' is float32 of",
    ),
    "one that would spread": (
        lambda _: {WEIGHT: np.zeros(1, np.float32)},
        "'network.conv1.weight' is float32 of shape [1]",
    ),
    "doubles": (lambda m: {WEIGHT: m.tensors["network.conv1.weight"].astype(np.float64)}, "is float64 of shape"),
    "halves": (lambda m: {WEIGHT: m.tensors["network.conv1.weight"].astype(np.float16)}, "is float16 of shape"),
    "whole numbers": (lambda m: {WEIGHT: m.tensors["network.conv1.weight"].astype(np.int32)}, "is int32 of shape"),
    "NaN": (lambda m: {WEIGHT: m.tensors["network.conv1.weight"] * np.nan}, "holds numbers that are not finite"),
    "infinity": (lambda m: {WEIGHT: m.tensors["network.conv1.weight"] + np.inf}, "holds numbers that are not finite"),
    "novelty of another network": (
        lambda _: {"plusx__novelty__weights": np.zeros(3, np.float32)},
        "does not fit descriptors",
    ),
    "novelty without a bias": (lambda _: {"plusx__novelty__bias": None}, "does not fit descriptors"),
}


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_that_are_not_those_of_the_network_are_refused_by_name(
    what: str, honest: ModelFile, tmp_path: Path
) -> None:
    """M03: wrong shapes and kinds of numbers, extra and missing ones, NaN."""
    change, why = TENSORS[what]
    path = tmp_path / "model.safetensors"
    model_file.save(path, changed(honest, **change(honest)))
    with pytest.raises(ModelError) as caught:
        Classifier.load(path, device="cpu")
    assert why in caught.value.message


def test_hashes_of_photos_of_another_kind_are_refused(honest: ModelFile, tmp_path: Path) -> None:
    """M03: they are compared with, and a sorted list of 64 bits is expected."""
    for seen in (np.zeros(3, np.float64), np.zeros((2, 2), np.uint64)):
        path = tmp_path / "model.safetensors"
        model_file.save(path, replace(honest, seen=seen))
        for read in (model_file.load, model_file.read_known, lambda p: start.find(str(p))):
            with pytest.raises(ModelError, match=f"{OURS}trained_hashes holds no hashes of photos"):
                read(path)


def test_a_network_is_not_built_before_it_is_known_to_fit(honest: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """M03, with its control: of a network a hundred thousand times as wide nothing but an outline is made."""
    allocated: list[int] = []
    plain = torch.empty

    def noted(*shape: Any, **options: Any) -> torch.Tensor:
        made = plain(*shape, **options)
        if made.device.type != "meta":
            allocated.append(made.numel())
        return made

    monkeypatch.setattr(torch, "empty", noted)
    trained_network(honest)
    assert max(allocated) > 1000, "the control: what is built is noted"
    allocated.clear()
    wide = replace(honest, header=replace(honest.header, network={"name": "resnet8", "width": 1e5}))
    with pytest.raises(ModelError, match="its tensors do not fit its network"):
        trained_network(wide)
    assert max(allocated, default=0) <= 1000


def test_the_honest_model_is_taken(honest: ModelFile, tmp_path: Path) -> None:
    """M03, the control of everything above."""
    assert Classifier.load(forged(honest, tmp_path / "m.safetensors"), device="cpu").classes == honest.header.classes


def test_classes_that_no_model_file_could_name_are_refused_before_a_training() -> None:
    """M03: what is refused in a model file must never be written by one, hours later."""
    with pytest.raises(
        DataError, match=r"has a name of 256 characters \('x{40}'\.\.\.\), and 255 are the most: give it"
    ):
        refuse_unusable("DATA", Labelled([], ()), ["a", "x" * 256])
    many_long = [f"{'é' * 240} {i}" for i in range(15_000)]
    with pytest.raises(
        DataError, match="DATA has 15,000 classes, and a model file has room for 20,000 with short names"
    ):
        refuse_unusable("DATA", Labelled([], ()), many_long)
    assert model_file.has_room([f"class {i}" for i in range(20_000)])
    assert not model_file.has_room([f"class {i}" for i in range(20_001)])


def test_a_model_of_ten_thousand_classes_can_be_read_again(honest: ModelFile, tmp_path: Path) -> None:
    """M03: the limits leave room for what plusx itself writes, figures of every class included."""
    classes = tuple(f"n{i:08d} some kind of animal" for i in range(10_000))
    of_each = {
        name: {"n": 50, "accuracy": 0.7654321987654321, "accuracy_ci95": [0.6, 0.9], "precision": 0.7}
        for name in classes
    }
    thresholds = {
        "classes": [{"name": n, "threshold": 0.9123456789, "n": 50, "answered": 49, "errors": 1} for n in classes]
    }
    metrics = {"validation": {"per_class": of_each, "classes": list(classes)}}
    header = replace(honest.header, classes=classes, metrics=metrics, thresholds=thresholds)
    model_file.save(tmp_path / "m.safetensors", replace(honest, header=header))
    assert model_file.read_header(tmp_path / "m.safetensors") == header


def test_weights_of_a_damaged_model_file_start_no_training(honest: ModelFile, tmp_path: Path) -> None:
    """M03: a flipped bit in the weights is nothing that another reader would notice."""
    path = tmp_path / "model.safetensors"
    data = bytearray(model_file.to_bytes(honest))
    path.write_bytes(data)
    assert start._read("it", path, None).classes == honest.header.classes
    data[-1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="its bytes are not those that were written"):
        start._read("it", path, None)
