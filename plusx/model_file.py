"""The model file: weights and everything needed to use them, in one safetensors file. No pickle, no torch.

The safetensors header holds one JSON document under the key "plusx": classes, preprocess, network,
test-time views, calibration, thresholds, metrics, the fingerprint of the data, the format version,
and last the SHA-256 of all of it and of every tensor: a flipped bit is told, and not answered with.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from plusx import onnx_file
from plusx.durable import write_file
from plusx.errors import model_file as sentences
from plusx.images.preprocess import Preprocess
from plusx.onnx_file import is_onnx
from plusx.tensor_file import MOST_HEADER, Contents, NoTensorFile, look, open_regular, parsed, short
from plusx.version import __version__

FORMAT = 1
KEY = "plusx"
OURS = "plusx."  # before the names of tensors that are no weights of the network
SEEN = "plusx.trained_hashes"  # first 8 bytes of the SHA-256 of every photo the run trained or chose on, sorted
MOST_NAME, MOST_CLASSES = 255, 20_000  # characters of the name of a class; a folder's has no more
MOST_SIDE, MOST_VIEWS = 4096, 16  # px, twice the largest size of a training

Arrays = dict[str, npt.NDArray[Any]]
_SIGNED = ', "sha256": "{}"}}'  # the end of a document


@dataclass(frozen=True)
class Header:
    """What a model file says of itself."""

    classes: tuple[str, ...]
    preprocess: Preprocess
    network: Mapping[str, Any]  # the arguments of plusx.models.create_model, classes left out
    size: int | None = None  # at which the network looks, in pixels; None: as photos are decoded
    views: tuple[str, ...] = ("identity",)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    data_fingerprint: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    calibration: Mapping[str, Any] | None = None
    thresholds: Mapping[str, Any] | None = None
    novelty: Mapping[str, Any] | None = None
    plusx: str = __version__
    format: int = FORMAT


@dataclass(frozen=True)
class Known:
    """What a model file or an exported one says of itself, and the photos it has seen."""

    header: Header
    seen: npt.NDArray[np.uint64]

    def has_seen(self, sha256: str) -> bool:
        """Whether the photo of this content was trained or chosen on."""
        key = short_hash(sha256)
        place = int(np.searchsorted(self.seen, key))
        return place < len(self.seen) and self.seen[place] == key


@dataclass(frozen=True)
class ModelFile:
    """A header, the network's tensors by state-dict name, and the photos it has seen."""

    header: Header
    tensors: Arrays
    seen: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))

    @property
    def weights(self) -> Arrays:
        """The tensors of the network alone."""
        return {name: value for name, value in self.tensors.items() if not name.startswith(OURS)}

    @property
    def known(self) -> Known:
        """All but the tensors."""
        return Known(self.header, self.seen)


def short_hash(sha256: str) -> np.uint64:
    """The first 8 bytes of a hexadecimal SHA-256."""
    return np.uint64(int(sha256[:16], 16))


def seen_hashes(hashes: Sequence[str]) -> npt.NDArray[np.uint64]:
    """The sorted short hashes that go into a model file."""
    return np.unique(np.array([short_hash(h) for h in hashes], dtype=np.uint64))


def save(path: Path, model: ModelFile) -> None:
    """Write the model file, whole or not at all."""
    write_file(path, to_bytes(model))


def to_bytes(model: ModelFile) -> bytes:
    """The bytes of a model file."""
    tensors = {name: np.ascontiguousarray(value) for name, value in model.tensors.items()} | {SEEN: model.seen}
    document = _document(model.header)
    signed = document.removesuffix("}") + _SIGNED.format(_digest(document, tensors))
    return safetensors.numpy.save(tensors, metadata={KEY: signed})


def _digest(document: str, tensors: Arrays) -> str:
    """Hexadecimal SHA-256 of a document, and of the tensors in the order of their names."""
    digest = hashlib.sha256(document.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\n{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def _is_as_written(document: str, tensors: Arrays) -> bool:
    """Whether the digest at the end of a document is right; files from before there was one are believed."""
    start = len(document) - len(_SIGNED.format("0" * 64))
    if '"sha256"' not in document[max(0, start) :]:
        return True
    before = document[:start] + "}"
    return document == before.removesuffix("}") + _SIGNED.format(_digest(before, tensors))


def _document(header: Header) -> str:
    return json.dumps(asdict(header) | {"preprocess": header.preprocess.to_json()})


def has_room(classes: Sequence[str]) -> bool:
    """Whether a header can hold so many classes of such names, and what is measured of each."""
    names = sum(len(json.dumps(json.dumps(name))) for name in classes)
    return len(classes) <= MOST_CLASSES and 4 * names + 400 * len(classes) <= MOST_HEADER


def load(path: Path) -> ModelFile:
    """The model file at `path`. Raises ModelError where it is something else, of another version or damaged."""
    if is_onnx(path):
        raise sentences.exported(path)
    with _opened(path) as (file, found):
        document = _document_in(path, found)
        header = _header(path, document)
        file.seek(0)
        tensors = safetensors.numpy.load(file.read())
    if not _is_as_written(document, tensors):
        raise sentences.damaged(path, "its bytes are not those that were written")
    for name, value in tensors.items():
        if value.dtype.kind in "fc" and not np.isfinite(value).all():
            raise sentences.damaged(path, f"{short(name)} holds numbers that are not finite")
    return ModelFile(header, tensors, _known_photos(path, tensors.pop(SEEN, np.zeros(0, dtype=np.uint64))))


def read_known(path: Path) -> Known:
    """All but the tensors, of a model file or an exported one. Raises ModelError as `load` does."""
    header = read_header(path)
    try:
        seen = _seen_of_onnx(path) if is_onnx(path) else _seen_of_safetensors(path)
    except (safetensors.SafetensorError, ValueError) as error:
        raise sentences.damaged(path, str(error)) from None
    return Known(header, _known_photos(path, seen))


def _seen_of_onnx(path: Path) -> npt.NDArray[np.uint64]:
    return np.frombuffer(base64.b64decode(_onnx_metadata(path).get(SEEN, ""), validate=True), dtype=np.uint64)


def _seen_of_safetensors(path: Path) -> npt.NDArray[np.uint64]:
    with safetensors.safe_open(path, framework="np") as file:
        found: npt.NDArray[np.uint64] = (
            file.get_tensor(SEEN) if SEEN in file.keys() else np.zeros(0, dtype=np.uint64)  # noqa: SIM118 no mapping
        )
    return found


def _known_photos(path: Path, found: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    if found.dtype != np.uint64 or found.ndim != 1:
        raise sentences.damaged(path, f"{SEEN} holds no hashes of photos")
    return found


def metadata_of(model: ModelFile) -> dict[str, str]:
    """The metadata of a file exported from `model`: the header as JSON, and the photos it has seen."""
    return {KEY: _document(model.header), SEEN: base64.b64encode(model.seen.tobytes()).decode()}


def read_header(path: Path) -> Header:
    """The header alone, of a model file or an exported one. Raises ModelError as `load` does."""
    if is_onnx(path):
        document = _onnx_metadata(path).get(KEY)
        if document is None:
            raise sentences.foreign(path, "an ONNX file that plusx did not write")
        return _header(path, document)
    with _opened(path) as (_, found):
        return _header(path, _document_in(path, found))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], Contents]]:
    """A safetensors file and what it holds. Raises ModelError for what is none or damaged, found here or within."""
    try:
        with open_regular(path) as file:
            kind = foreign_kind(file.read(8))
            if kind:
                raise sentences.foreign(path, kind)
            file.seek(0)
            yield file, look(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise sentences.unreadable(path, error) from None
    except NoTensorFile:
        raise sentences.foreign(path, "not a safetensors file, or a part of one") from None
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise sentences.damaged(path, str(error)) from None


def _document_in(path: Path, found: Contents) -> str:
    document = (found.metadata or {}).get(KEY)
    if document is None:
        raise sentences.foreign(path, "a safetensors file that plusx did not write")
    strangers = [name for name in found.tensors if name.startswith(OURS) and name not in _OWN_TENSORS]
    if strangers:
        raise sentences.damaged(path, f"it holds {short(strangers[0])}, which no model file does")
    return document


def _header(path: Path, document: str) -> Header:
    """The header in a document. Raises ModelError where it is not as written, so that all it says can be believed."""
    try:
        values = parsed(document)
        values.pop("sha256", None)  # of the whole file, which `load` compares
        if values.get("format") != FORMAT:
            raise sentences.other_format(path, str(values.get("format"))[:20], FORMAT)
        values["preprocess"] = Preprocess.from_json(values["preprocess"])
        for name, (expected, is_valid) in _FIELDS.items():
            if not is_valid(values.get(name, _DEFAULTS.get(name))):
                raise ValueError(f"{name} should be {expected}")
        return Header(**values | {"classes": tuple(values["classes"]), "views": tuple(values["views"])})
    except ValueError as error:
        raise sentences.damaged(path, f"its header is not as written: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise sentences.damaged(path, f"its header is not as written ({type(error).__name__})") from None


def _onnx_metadata(path: Path) -> Mapping[str, str]:
    try:
        return onnx_file.metadata(path)
    except OSError as error:
        raise sentences.unreadable(path, error) from None
    except ValueError as error:
        raise sentences.foreign(path, f"no ONNX file, or a part of one ({error})") from None


def foreign_kind(start: bytes) -> str | None:
    """What a file is by its first eight bytes, in words, where that is a known other format."""
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle, which plusx never loads"
    if not start:
        return "an empty file"
    return next((kind for magic, kind in _KINDS.items() if start.startswith(magic)), None)


def _is_texts(value: object, most: int, longest: int) -> bool:
    """Whether it is a list of 1 to `most` texts, none empty, none of more characters than `longest`."""
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        return False
    return all(isinstance(text, str) and 0 < len(text) <= longest for text in value)


def _is_network(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return False
    plain = all(isinstance(v, str | bool | int | float) for v in value.values())
    return plain and all(math.isfinite(v) for v in value.values() if isinstance(v, float))


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= MOST_SIDE


_ZIP = "a zip archive, perhaps a PyTorch .pt file; plusx never loads pickles"
_KINDS = {
    **{b"PK\x03\x04": _ZIP, b"PK\x05\x06": _ZIP, b"PK\x07\x08": _ZIP},
    b"\x93NUMPY": "an array of NumPy, which may hold pickles; plusx never loads those",
    b"\x89HDF": "an HDF5 file, as Keras writes them",
    b"GGUF": "a GGUF file",
    b"7z\xbc\xaf": "a 7z archive",
    **{b"\x1f\x8b": "a compressed file", b"BZh": "a compressed file", b"\xfd7zXZ": "a compressed file"},
    b"\x28\xb5\x2f\xfd": "a compressed file",
}
_OWN_TENSORS = {SEEN, f"{OURS}novelty.weights", f"{OURS}novelty.bias"}
_DEFAULTS: dict[str, Any] = {"metrics": {}, "config": {}, "data_fingerprint": "", "step": 0, "plusx": "0"}
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "classes": (
        f"names, none twice, of at most {MOST_NAME} characters",
        lambda v: _is_texts(v, MOST_CLASSES, MOST_NAME) and len(set(v)) == len(v),
    ),
    "network": ("its name, and texts and numbers", _is_network),
    "preprocess": (f"of at most {MOST_SIDE} pixels", lambda v: v.resize <= MOST_SIDE),
    "size": (f"a whole number of pixels, at most {MOST_SIDE}", lambda v: v is None or _is_size(v)),
    "views": (f"1 to {MOST_VIEWS} names", lambda v: _is_texts(v, MOST_VIEWS, MOST_NAME)),
    **{name: ("an object", lambda v: isinstance(v, dict)) for name in ("metrics", "config")},
    **{
        name: ("a short text", lambda v: isinstance(v, str) and len(v) <= MOST_NAME)
        for name in ("data_fingerprint", "plusx")
    },
    "step": ("a whole number", lambda v: type(v) is int and v >= 0),
    **{
        name: ("an object or nothing", lambda v: v is None or isinstance(v, dict))
        for name in ("calibration", "thresholds", "novelty")
    },
}
