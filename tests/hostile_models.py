"""Model files that run a program when they are unpickled, and safetensors files that no honest writer makes.

Everything is made in memory. Each payload touches a canary file; `detonated`, in a process of its own, loads a file as
its format's own loader would, so that a test can show that the payloads are live.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import json
import lzma
import os
import pickle
import runpy
import shlex
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

VARIABLE = "CANARY_OF_HOSTILE_MODELS"  # of the environment; payloads in Python set it as well
ENDINGS = ("pt", "pth", "bin", "ckpt", "pkl", "safetensors", "onnx", "npz", "h5", "joblib", "")
LEGACY = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})  # of torch.save before 1.6


class Called:
    """Pickles as a call of `function` with these arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call

    def __call__(self) -> None:
        """What stands for a function has to look like one."""


class Hostile(NamedTuple):
    """A file: what it is called, the ending it usually has, its bytes, and how its format's own loader reads it."""

    name: str
    ending: str
    content: bytes
    loader: str


def payloads(canary: Path) -> dict[str, Any]:
    """Objects that touch the canary when they are unpickled, by what they use for it."""
    shell, code = f"touch {shlex.quote(str(canary))}", program(canary)
    script = f"exec({code!r})"
    return {
        "os.system": Called(os.system, shell),
        "os.mknod": Called(os.mknod, str(canary)),
        "os.spawn": Called(os.spawnlp, os.P_WAIT, "touch", "touch", str(canary)),
        "builtins.exec": Called(exec, code),
        "builtins.eval": Called(eval, script),
        "builtins.open": Called(open, str(canary), "w"),
        "importlib": Called(Called(getattr, Called(importlib.import_module, "os"), "system"), shell),
        "__import__": Called(Called(getattr, Called(__import__, "os"), "system"), shell),
        "subprocess.call": Called(subprocess.call, shell, -1, None, None, None, None, None, True, True),
        "subprocess.check_output": Called(subprocess.check_output, ["touch", str(canary)]),
        "runpy": Called(runpy._run_code, code, {}),  # type: ignore[attr-defined]
        "pickle.loads": Called(pickle.loads, pickle.dumps(Called(os.system, shell), 2)),
        "pathlib": Called(Path.touch, canary),
        "timeit": Called(
            importlib.import_module("timeit").timeit, script, "pass", importlib.import_module("time").time, 1
        ),
        "numpy": Called(importlib.import_module("numpy.testing._private.utils").runstring, code, {}),
        "cProfile": Called(importlib.import_module("cProfile").run, script, os.devnull),
        "bdb": Called(importlib.import_module("bdb").Bdb.run, Called(importlib.import_module("bdb").Bdb), code),
        "state": {"state_dict": {"conv1.weight": Called(os.system, shell)}, "epoch": 3},
    }


def program(canary: Path) -> str:
    """Python that touches the canary."""
    return f"import os; os.environ[{VARIABLE!r}] = '1'; open({str(canary)!r}, 'w').close()"


def by_hand(canary: Path) -> dict[str, bytes]:
    """Pickles written letter by letter, as scanners know them."""
    shell = f"touch {shlex.quote(str(canary))}"
    return {
        "posix.system": f"cposix\nsystem\n(S'{shell}'\ntR.".encode(),
        "nt and posix": f"(S'{shell}'\niposix\nsystem\n.".encode(),
        "memo": f"cposix\nsystem\np0\n0g0\n(V{shell}\ntR.".encode(),
        "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c"
        + bytes([len(shell)])
        + shell.encode()
        + b"\x85R.",
        "broken end": f"cposix\nsystem\n(S'{shell}'\ntR".encode() + b"\xff\xff",  # runs before it fails
        "object": b"\x80\x02cposix\nsystem\n(X" + struct.pack("<I", len(shell)) + shell.encode() + b"tR}b.",
    }


def corpus(canary: Path) -> list[Hostile]:
    """All of them: payloads bare and as PyTorch packs them, written by hand, and wrapped in what scanners pass over."""
    found = []
    for number, (name, payload) in enumerate(payloads(canary).items()):
        raw = pickle.dumps(payload, number % 6)
        found.append(Hostile(f"{name}, protocol {number % 6}", "pkl", raw, "pickle"))
        found.append(Hostile(f"{name} in a zip", "pt", zipped({"archive/data.pkl": pickle.dumps(payload, 2)}), "torch"))
    found += [Hostile(f"by hand: {name}", "bin", raw, "pickle") for name, raw in by_hand(canary).items()]
    raw = pickle.dumps(Called(os.system, f"touch {shlex.quote(str(canary))}"), 2)
    return found + wrapped(raw) + disguised(raw)


def wrapped(raw: bytes) -> list[Hostile]:
    """A pickle within something else, which its usual loader opens."""
    array = io.BytesIO()
    np.save(array, np.array([None], dtype=object), allow_pickle=True)
    npy = array.getvalue()[: array.getvalue().index(b"\n") + 1] + raw
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        entry = tarfile.TarInfo("pickle")
        entry.size = len(raw)
        archive.addfile(entry, io.BytesIO(raw))
    script = {"archive/code/__torch__.py": b"import os", "archive/constants.pkl": raw, "archive/data.pkl": raw}
    legacy = b"".join(pickle.dumps(part, 2) for part in LEGACY) + raw
    return [
        Hostile("an array of objects", "npy", npy, "numpy"),
        Hostile("arrays of objects", "npz", zipped({"weights.npy": npy}), "numpy"),
        Hostile("joblib", "joblib", raw, "pickle"),
        Hostile("joblib, compressed", "joblib", zlib.compress(raw), "zlib"),
        Hostile("gzip", "pkl.gz", gzip.compress(raw), "gzip"),
        Hostile("bzip2", "pkl.bz2", bz2.compress(raw), "bz2"),
        Hostile("xz", "pkl.xz", lzma.compress(raw), "lzma"),
        Hostile("tar, as the oldest PyTorch", "pth.tar", tar.getvalue(), "tar"),
        Hostile("PyTorch before 1.6", "pth", legacy, "torch"),
        Hostile("TorchScript", "ptc", zipped(script), "zip"),
        Hostile("a zip in a zip", "zip", zipped({"model.pt": zipped({"archive/data.pkl": raw})}), "nested"),
        Hostile("a compressed zip", "ckpt", zipped({"archive/data.pkl": raw}, zipfile.ZIP_DEFLATED), "zip"),
    ]


def disguised(raw: bytes) -> list[Hostile]:
    """What scanners take for something else or cannot open, and what looks like formats without pickles."""
    archive = zipped({"archive/data.pkl": raw})
    weights = safetensors.numpy.save({"w": np.zeros(4, np.float32)})
    hidden = safetensors.numpy.save({"w": np.frombuffer(raw, np.uint8)}, metadata={"data.pkl": raw.decode("latin-1")})
    return [
        Hostile("a wrong checksum", "pt", wrong_checksums(archive), "stored"),
        Hostile("a lie about encryption", "pt", flagged(archive), "stored"),
        Hostile("a lie about the size", "pt", wrong_sizes(archive), "stored"),
        Hostile("two names for one part", "pt", renamed(archive), "stored"),
        Hostile("a zip without its beginning", "pt", b"\0\0\0\0" + archive[4:], "stored"),
        Hostile("an empty zip before a pickle", "pt", zipped({}) + raw, "found"),
        Hostile("a pickle behind safetensors", "safetensors", weights + raw, "found"),
        Hostile("a zip behind safetensors", "safetensors", weights + archive, "zip"),
        Hostile("safetensors behind a pickle", "safetensors", raw + weights, "pickle"),
        Hostile("a pickle as a tensor and as a text", "safetensors", hidden, "found"),
        Hostile("7z", "7z", b"7z\xbc\xaf\x27\x1c" + raw, "found"),
        Hostile("HDF5", "h5", b"\x89HDF\r\n\x1a\n" + raw, "found"),
        Hostile("GGUF", "gguf", b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + raw, "found"),
        Hostile("ONNX", "onnx", b"\x08\x0a\x12\x04evil" + b"\x72" + number_of(len(raw)) + raw, "found"),
        Hostile("a program with a shebang", "bin", b"#!/usr/bin/env python\n" + raw, "found"),
    ]


def number_of(value: int) -> bytes:
    """A varint of a protocol buffer."""
    found = b""
    while value >= 0x80:
        found, value = found + bytes([value & 0x7F | 0x80]), value >> 7
    return found + bytes([value])


def zipped(parts: Mapping[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive; `archive/version` is what PyTorch looks for."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in {**parts, **({"archive/version": b"3\n"} if parts else {})}.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


def _patched(archive: bytes, at: tuple[int, int], what: bytes) -> bytes:
    """`what` at offsets in the first local header and in the first entry of the directory."""
    found = bytearray(archive)
    for magic, offset in ((b"PK\x03\x04", at[0]), (b"PK\x01\x02", at[1])):
        place = archive.index(magic) + offset
        found[place : place + len(what)] = what
    return bytes(found)


def wrong_checksums(archive: bytes) -> bytes:
    """CRC-32 of nothing."""
    return _patched(archive, (14, 16), b"\0\0\0\0")


def flagged(archive: bytes) -> bytes:
    """The bit that says that a part is encrypted."""
    return _patched(archive, (6, 8), b"\x01\0")


def wrong_sizes(archive: bytes) -> bytes:
    """One byte, compressed and not."""
    return _patched(archive, (18, 20), struct.pack("<II", 1, 1))


def renamed(archive: bytes) -> bytes:
    """Another name in the directory than before the part."""
    place = archive.rindex(b"archive/data.pkl")
    return archive[:place] + b"archive/data.txt" + archive[place + 16 :]


# loaders, for the control


def detonate(item: Hostile) -> None:
    """Load it as its format's own loader would. Only in a process that may be lost."""
    content = item.content
    opened: dict[str, Callable[[], Any]] = {
        "pickle": lambda: pickle.loads(content),
        "torch": lambda: importlib.import_module("torch").load(io.BytesIO(content), weights_only=False),
        "numpy": lambda: list(np.atleast_1d(_arrays(content))),
        "zlib": lambda: pickle.loads(zlib.decompress(content)),
        "gzip": lambda: pickle.loads(gzip.decompress(content)),
        "bz2": lambda: pickle.loads(bz2.decompress(content)),
        "lzma": lambda: pickle.loads(lzma.decompress(content)),
        "tar": lambda: pickle.load(_first_of_tar(content)),
        "zip": lambda: pickle.loads(zipfile.ZipFile(io.BytesIO(content)).read("archive/data.pkl")),
        "nested": lambda: pickle.loads(zipfile.ZipFile(_inner(content)).read("archive/data.pkl")),
        "stored": lambda: pickle.loads(content[content.index(b"\x80\x02") :]),
        "found": lambda: pickle.loads(content[content.rindex(b"\x80\x02") :]),
    }
    opened[item.loader]()


def _arrays(content: bytes) -> Any:
    found = np.load(io.BytesIO(content), allow_pickle=True)
    return found["weights"] if isinstance(found, np.lib.npyio.NpzFile) else found


def _first_of_tar(content: bytes) -> Any:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        part = archive.extractfile(archive.getmembers()[0])
        return io.BytesIO(part.read() if part else b"")


def _inner(content: bytes) -> io.BytesIO:
    return io.BytesIO(zipfile.ZipFile(io.BytesIO(content)).read("model.pt"))


def main(folder: str) -> None:
    """Detonate the corpus, and print as JSON which payloads touched their canary."""
    canary, live = Path(folder) / "canary", {}
    for item in corpus(canary):
        try:
            detonate(item)
        except Exception as error:  # some run before they fail
            live[item.name] = repr(error)
        if canary.exists():
            canary.unlink()
            live[item.name] = ""
        live.setdefault(item.name, "nothing happened")
    sys.stdout.write(json.dumps(live))


# safetensors files that no honest writer makes


def tensor_file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header, JSON or bytes, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: int, end: int, dtype: Any = "U8", shape: Any = None) -> dict[str, Any]:
    """A tensor of bytes, unless said otherwise."""
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


if __name__ == "__main__":
    main(sys.argv[1])
