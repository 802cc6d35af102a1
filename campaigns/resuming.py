"""The whole pipeline, small: a training on drawn photos, what a stop would leave of it at any moment, and going on."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from plusx.data.drawn import write_set
from plusx.model_file import load
from plusx.training.events import Saved, StepDone, Validated
from plusx.verbs import testing
from plusx.verbs.train import train
from plusx.verbs.wish import Wish

PHOTOS = {"train": 14, "val": 5, "test": 2}  # of each class
FLAGS = {"model": "resnet8", "size": 32, "batch_size": 8, "epochs": 3, "seed": 1, "device": "cpu"}
BASE = ("width=0.25", "sizes=[]", "checkpoint_every=1", "log_every=1")
MIXED = ("mixup=0.2", "cutmix=1.0", "erasing=0.5", "colour=0.3", "policy=trivial", "flip=random")
TRICKS = (
    *("accumulate=2", "average=ema", "average_every=2", "clip_norm=1.0", "label_smoothing=0.1", "sampling=balanced"),
    *("keep=best", "patience=1", "schedule=cosine", "warmup=0.2", "input_rate=0.3"),
)
WHOLE = ("history.jsonl", "model.safetensors", "validation.csv", "plan.json", "split.csv", "neighbours.safetensors")
NAMES_WORKERS = "model.safetensors"  # its header holds the settings, the number of workers among them

Fingerprint = dict[str, str]


@contextmanager
def quiet(*, streamed: bool = False) -> Iterator[None]:
    """Without reports and cards, which no bit of a result depends on; `streamed`: photos are decoded in every epoch."""
    with ExitStack() as stack:
        stack.enter_context(patch("plusx.verbs.train._write_pages", lambda *_: None))
        if streamed:
            stack.enter_context(patch("plusx.data.cache._no_room", lambda *_: "No room: photos are streamed."))
        yield


def draw(folder: Path) -> Path:
    """The photos that are trained on."""
    write_set(folder, PHOTOS, size=40)
    return folder


def moments(data: Path, out: Path, copies: Path, sets: Sequence[str], workers: int) -> Fingerprint:
    """A whole run, and in `copies` what a kill would leave of it:

    killed-N: after step N, before its checkpoint; validating-N: in the validation after it; unsaved-N: between that
    and its checkpoint; saved-N: after the last checkpoint of step N.
    """
    done = [0]

    def copy(what: str) -> None:
        folder = copies / f"{what}-{done[0]}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(out, folder)

    def heard(event: object) -> None:
        if isinstance(event, StepDone):
            done[0] = event.step
            copy("killed")
        if isinstance(event, Validated | Saved):
            copy("unsaved" if isinstance(event, Validated) else "saved")

    with patch("plusx.verbs.fitting.validator", _telling(lambda: copy("validating"))):
        wish = Wish(FLAGS, (*BASE, *sets, f"workers={workers}"), out=out)
        train([str(data)], wish, on_event=heard)
    return fingerprint(out)


def resumed(run: Path, workers: int, listen: Callable[[Any], None] | None = None) -> Fingerprint:
    """Go on with a run, decoding with so many processes."""
    train([], Wish(sets=(f"workers={workers}",), out=run, resume=True), on_event=listen)
    return fingerprint(run)


class CutError(Exception):
    """A training was cut off by a campaign."""


def cut(step: int) -> Callable[[Any], None]:
    """A listener that ends a training when `step` is done, before its checkpoint, as no error of plusx would."""

    def listen(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == step:
            raise CutError

    return listen


def chain(data: Path, out: Path, sets: Sequence[str], stops: Sequence[int]) -> Fingerprint:
    """A run of two epochs of 14 steps that is cut off at each of `stops`, and decoded by other processes each time."""
    flags = FLAGS | {"batch_size": 2, "epochs": 2}
    wish, workers = Wish(flags, (*BASE, *sets, "workers=0"), out=out), itertools.cycle((2, 1, 4, 0))
    for stop in (*stops, None):
        ended = False
        with suppress(CutError):
            train([] if wish.resume else [str(data)], wish, on_event=cut(stop) if stop else None)
            ended = True
        assert ended == (stop is None), "it was not cut off where it should have been"
        wish = Wish(sets=(f"workers={next(workers)}",), out=out, resume=True)
    return fingerprint(out)


def fingerprint(run: Path) -> Fingerprint:
    """SHA-256 of everything in a finished run that is a function of data, settings and plan."""
    found = {name: _sha256((run / name).read_bytes()) for name in WHOLE if (run / name).exists()}
    for path in sorted(run.glob("*/step-*/*")):
        if path.name != "manifest.json":  # it holds the hash of state.json, in which there is a clock's
            told = _without_clock(path) if path.name == "state.json" else _sha256(path.read_bytes())
            found[str(path.relative_to(run))] = told
    metrics = json.loads((run / "metrics.json").read_bytes())
    tensors = load(run / "model.safetensors").tensors
    weights = b"".join(name.encode() + value.tobytes() for name, value in sorted(tensors.items()))
    return found | {"metrics.json": json.dumps(metrics | {"model_sha256": ""}), "tensors": _sha256(weights)}


def differences(one: Fingerprint, other: Fingerprint, but: Sequence[str] = ()) -> list[str]:
    """The files in which two runs differ."""
    return sorted(name for name in (one.keys() | other.keys()) - set(but) if one.get(name) != other.get(name))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _without_clock(path: Path) -> str:
    """The numbers of a checkpoint but for the length of the log of clock figures."""
    numbers = json.loads(path.read_bytes())
    del numbers["offsets"]["timing"]
    return json.dumps(numbers, sort_keys=True)


def _telling(tell: Callable[[], None]) -> Callable[..., Any]:
    """`validator` whose validations are told when they begin."""

    def validator(*given: Any) -> Any:
        inner = testing.validator(*given)
        assert inner is not None, "there are photos to choose by"

        def validate(model: Any) -> Any:
            tell()
            return inner(model)

        return validate

    return validator
