"""The model file: weights and everything needed to use them, in one safetensors file. No pickle, no torch.

The safetensors header holds one JSON document under the key "plusx": classes, preprocess, network,
test-time views, calibration, thresholds, metrics, the fingerprint of the data, the format version.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from plusx import onnx_file
from plusx.durable import write_file
from plusx.errors import model_file as sentences
from plusx.images.preprocess import Preprocess
from plusx.onnx_file import is_onnx
from plusx.version import __version__

FORMAT = 1
KEY = "plusx"
OURS = "plusx."  # before the names of tensors that are no weights of the network
SEEN = "plusx.trained_hashes"  # first 8 bytes of the SHA-256 of every photo the run trained or chose on, sorted
MAX_HEADER = 100_000_000

Arrays = dict[str, npt.NDArray[Any]]


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
    tensors = {name: np.ascontiguousarray(value) for name, value in model.tensors.items()}
    return safetensors.numpy.save(tensors | {SEEN: model.seen}, metadata={KEY: _document(model.header)})


def _document(header: Header) -> str:
    return json.dumps(asdict(header) | {"preprocess": header.preprocess.to_json()})


def load(path: Path) -> ModelFile:
    """The model file at `path`. Raises ModelError where it is something else, of another version or damaged."""
    if is_onnx(path):
        raise sentences.exported(path)
    header = read_header(path)
    try:
        tensors = safetensors.numpy.load(path.read_bytes())
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise sentences.damaged(path, str(error)) from None
    for name, value in tensors.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise sentences.damaged(path, f"{name} holds numbers that are not finite")
    seen = tensors.pop(SEEN, np.zeros(0, dtype=np.uint64))
    return ModelFile(header, tensors, seen)


def read_known(path: Path) -> Known:
    """All but the tensors, of a model file or an exported one. Raises ModelError as `load` does."""
    header = read_header(path)
    try:
        return Known(header, _seen_of_onnx(path) if is_onnx(path) else _seen_of_safetensors(path))
    except (safetensors.SafetensorError, ValueError) as error:
        raise sentences.damaged(path, str(error)) from None


def _seen_of_onnx(path: Path) -> npt.NDArray[np.uint64]:
    return np.frombuffer(base64.b64decode(_metadata(path).get(SEEN, ""), validate=True), dtype=np.uint64)


def _seen_of_safetensors(path: Path) -> npt.NDArray[np.uint64]:
    with safetensors.safe_open(path, framework="np") as file:
        found: npt.NDArray[np.uint64] = (
            file.get_tensor(SEEN) if SEEN in file.keys() else np.zeros(0, dtype=np.uint64)  # noqa: SIM118 no mapping
        )
    return found


def metadata_of(model: ModelFile) -> dict[str, str]:
    """The metadata of a file exported from `model`: the header as JSON, and the photos it has seen."""
    return {KEY: _document(model.header), SEEN: base64.b64encode(model.seen.tobytes()).decode()}


def read_header(path: Path) -> Header:
    """The header alone, of a model file or an exported one. Raises ModelError as `load` does."""
    document = _metadata(path).get(KEY)
    if not isinstance(document, str):
        kind = "an ONNX file" if is_onnx(path) else "a safetensors file"
        raise sentences.foreign(path, f"{kind} that plusx did not write")
    try:
        values = json.loads(document)
        if values.get("format") != FORMAT:
            raise sentences.other_format(path, values.get("format"), FORMAT)
        values["preprocess"] = Preprocess.from_json(values["preprocess"])
        return Header(**values | {"classes": tuple(values["classes"]), "views": tuple(values["views"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise sentences.damaged(path, f"its header is not as written ({type(error).__name__})") from None


def _metadata(path: Path) -> Mapping[str, Any]:
    return _onnx_metadata(path) if is_onnx(path) else _safetensors_metadata(path)


def _onnx_metadata(path: Path) -> Mapping[str, Any]:
    try:
        return onnx_file.metadata(path)
    except OSError as error:
        raise sentences.unreadable(path, error) from None
    except ValueError as error:
        raise sentences.foreign(path, f"no ONNX file, or a part of one ({error})") from None


def _safetensors_metadata(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            start = file.read(8)
            kind = foreign_kind(start)
            if kind:
                raise sentences.foreign(path, kind)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER + 1
            text = file.read(length) if length <= MAX_HEADER else b""
        values = json.loads(text.decode()) if len(text) == length else {}
        found = values.get("__metadata__")
    except OSError as error:
        raise sentences.unreadable(path, error) from None
    except (ValueError, AttributeError):
        found = None
    if not isinstance(found, dict):
        raise sentences.foreign(path, "not a safetensors file, or a part of one")
    return found


def foreign_kind(start: bytes) -> str | None:
    """What a file is by its first bytes, in words, where that is a known other format."""
    if start[:4] == b"PK\x03\x04":
        return "a zip archive, perhaps a PyTorch .pt file; plusx never loads pickles"
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle, which plusx never loads"
    if not start:
        return "an empty file"
    return None
