"""Starting from weights: find them, read them, lay them into the network, and say what became of each tensor."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from plusx import model_file
from plusx.durable import write_file
from plusx.errors import transfer as sentences
from plusx.model_file import Header
from plusx.models import transfer
from plusx.models.initialise import needs_whitening
from plusx.models.normalise import Normalised
from plusx.models.transfer import ENOUGH, Match
from plusx.run_folder import RunFolder, model_path
from plusx.tensor_file import Contents, look, open_regular
from plusx.training.layers import head
from plusx.verbs.hub import PREFIX, fetch, published

REPORT = "weights"  # weights.json in the run folder
SEEN = "weights-seen.safetensors"
SHOWN = 4  # names in the line on the terminal; weights.json has all
_NAMED = dict.fromkeys(("stem", "shortcut", "downsampling", "norm"), "default")  # as the model's name says
NORMAL: dict[str, Any] = {"width": 1.0, **_NAMED}

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Weights:
    """Tensors by their own names, where they come from, and what is known of the network they were made for.

    `settings` are fields of Config; `classes` are known of a model file of plusx, as are the hashes of the photos it
    has `seen`.
    """

    source: str
    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    classes: tuple[str, ...] | None = None
    seen: Hashes = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))


@dataclass(frozen=True)
class Report:
    """What became of the tensors. `matched`, `new`, `unused` are names; `share` is that of the parameters."""

    source: str
    path: str
    sha256: str
    share: float
    matched: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def line(self) -> str:
        """The report as one line."""
        total = len(self.matched) + len(self.new)
        percent = math.floor(1000 * self.share) / 10  # 100 % is all of them
        parts = [
            f"weights: {len(self.matched):,} of {total:,} tensors ({percent:g} % of the parameters) from {self.source}"
        ]
        parts += [f"new: {_listed(self.new)}"] if self.new else []
        parts += [f"not used: {_listed(self.unused)}"] if self.unused else []
        return "; ".join(parts)


def find(source: str) -> Weights:
    """The weights that `source` names: a file, a run folder of plusx, or timm:NAME, which is downloaded.

    Raises UsageError for a name that timm does not know, ModelError for what cannot be read or is no safetensors file.
    """
    if source.startswith(PREFIX):
        known = published(source)
        return _read(source, fetch(known.repository), known.settings)
    path = Path(source)
    if path.is_dir():
        path = model_path(path)
    elif not path.exists():
        raise sentences.missing(path)
    return _read(source, path, None)


def find_again(run: RunFolder) -> Weights | None:
    """The weights a run was started from; None where there were none. Raises ModelError where they are gone."""
    if not (run.path / f"{REPORT}.json").exists():
        return None
    told = run.read(REPORT)
    path = Path(told["path"])
    if not path.exists():
        raise sentences.lost(run.path, told["source"], f"{path} is gone")
    weights = _read(told["source"], path, {})
    if weights.sha256 != told["sha256"]:
        raise sentences.lost(run.path, told["source"], f"{path} has other bytes than it had")
    return weights


def load(network: Normalised, weights: Weights, classes: Sequence[str], model: str) -> Report:
    """Lay the weights into `network`, whose classes are `classes` and whose name is `model`.

    The head is new, unless the weights tell the same classes apart. Raises ModelError where they do not fit.
    """
    last = [name.removeprefix("network.") for name in head(network)]
    same = weights.classes is not None and set(weights.classes) == set(classes)
    theirs = {name: tuple(value.shape) for name, value in weights.tensors.items()}
    found = transfer.match(network.network, theirs, last, keep_head=same)
    _refuse_misfits(found, network.network.state_dict(), weights, model)
    if found.body < ENOUGH and not transfer.deepens(network.network, found.new, last):
        networks = (model, weights.settings.get("model"))
        raise sentences.too_few(weights.path, f"{100 * found.body:.0f} %", found.new[0], networks)
    values = {ours: weights.tensors[other] for ours, other in found.pairs.items()}
    if same and weights.classes is not None:
        rows = [weights.classes.index(name) for name in classes]
        values |= {name: values[name][rows] for name in last if name in values}
    with torch.no_grad():
        for name, value in network.network.state_dict().items():
            if name in values:
                value.copy_(values[name].reshape(value.shape))
    path = str(weights.path.absolute())
    return Report(weights.source, path, weights.sha256, found.share, tuple(found.pairs), found.new, found.unused)


def record(run: RunFolder, weights: Weights, report: Report) -> None:
    """Write the report, and the hashes of the photos that the weights were trained or chosen on."""
    run.write(REPORT, vars(report))
    if len(weights.seen):
        write_file(run.path / SEEN, safetensors.numpy.save({model_file.SEEN: weights.seen}))


def seen(run: RunFolder) -> Hashes:
    """Hashes of the photos that a run's weights knew before it began. Raises ModelError where they are damaged."""
    path = run.path / SEEN
    if not path.exists():
        return np.zeros(0, dtype=np.uint64)
    tensors, _, _ = _whole(path)
    return _hashes(path, tensors.get(model_file.SEEN, torch.zeros(0)))


def waits_for_whitening(run: RunFolder, network: Normalised) -> bool:
    """Whether the network has a whitened stem to which no weights gave its filters."""
    if not needs_whitening(network):
        return False
    told = run.read(REPORT) if (run.path / f"{REPORT}.json").exists() else {"matched": []}
    return "patches.weight" not in told["matched"]


def _read(source: str, path: Path, settings: Mapping[str, Any] | None) -> Weights:
    """Read a file. `settings` of its network, where they are known already."""
    tensors, found, sha256 = _whole(path)
    if model_file.KEY in (found.metadata or {}):
        return _of_model_file(source, path, sha256, tensors)
    return Weights(source, path, sha256, tensors, _settings(tensors) if settings is None else settings)


def _whole(path: Path) -> tuple[dict[str, Tensor], Contents, str]:
    """The tensors of a safetensors file, looked through before, what it says of itself, and its SHA-256."""
    try:
        with open_regular(path) as file:
            kind = model_file.foreign_kind(file.read(8))
            if kind:
                raise sentences.foreign(path, kind)
            file.seek(0)
            found = look(file, os.fstat(file.fileno()).st_size)
            file.seek(0)
            data = file.read()
        return safetensors.torch.load(data), found, hashlib.sha256(data).hexdigest()
    except OSError as error:
        raise sentences.unreadable(path, error) from None
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise sentences.damaged(path, " ".join(str(error).split())) from None


def _of_model_file(source: str, path: Path, sha256: str, tensors: dict[str, Tensor]) -> Weights:
    header = model_file.load(path).header  # which compares the file with its own hash
    known = _hashes(path, tensors.pop(model_file.SEEN, torch.zeros(0, dtype=torch.uint64)))
    weights = {name: value for name, value in tensors.items() if not name.startswith(model_file.OURS)}
    return Weights(source, path, sha256, weights, _settings_of(header), header.classes, known)


def _hashes(path: Path, found: Tensor) -> Hashes:
    if found.dtype != torch.uint64 or found.ndim != 1:
        raise sentences.damaged(path, f"{model_file.SEEN} holds no hashes of photos")
    return np.asarray(found.numpy(), dtype=np.uint64)


def _settings(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The network that somebody's tensors were made for, without departures, as far as it is one of ours."""
    model = transfer.made_for({name: tuple(value.shape) for name, value in tensors.items()})
    return NORMAL | ({"model": model} if model else {})


def _settings_of(header: Header) -> dict[str, Any]:
    """Network, normalisation and size as a model file of plusx has them."""
    network = dict(header.network)
    pixels = header.preprocess
    return NORMAL | {
        "model": network.pop("name"),
        **network,
        "mean": pixels.mean,
        "std": pixels.std,
        "size": header.size or pixels.crop,
        "test_size": None,
        "sizes": (),
        "resize_ratio": pixels.resize / pixels.crop,
    }


def _refuse_misfits(found: Match, ours: Mapping[str, Tensor], weights: Weights, model: str) -> None:
    """Raise ModelError for a tensor of another shape, and for one that holds no numbers to use."""
    networks = (model, weights.settings.get("model"))
    for name, other in found.misfits.items():
        shape = _shape(weights.tensors[other])
        raise sentences.misfit(weights.path, other, shape, _shape(ours[name]), networks)
    for name, other in found.pairs.items():
        value = weights.tensors[other]
        if value.is_floating_point() != ours[name].is_floating_point():
            raise sentences.misfit(weights.path, other, str(value.dtype), str(ours[name].dtype), networks)
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
            raise sentences.not_finite(weights.path, other)


def _shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "one number"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
