"""`plusx export MODEL`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from plusx.cli.flags import Json, Quiet, Whole


def export(
    model: Annotated[Path, Parameter(name="MODEL")],
    /,
    *,
    format_: Annotated[Literal["onnx"], Parameter(name="--format")] = "onnx",
    out: Path | None = None,
    photos: Annotated[list[str] | None, Parameter(name="--photos", negative="")] = None,
    count: Whole = 256,
    int8: Annotated[bool, Parameter(name="--int8", negative="")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Write a model as one ONNX file that gives the same answers, tried on real photos before it counts.

    The file takes decoded pixels and holds everything else: normalisation, views, calibration, the score of novelty and
    the maps of evidence. `predict`, `evaluate`, `explain` and `serve` take it as a model file, without torch.

    Parameters
    ----------
    model
        A run folder or a model file.
    format_
        The format; ONNX is the only one.
    out
        The file to write; otherwise model.onnx beside the model.
    photos
        Photos, folders, globs or tars to try it on; otherwise the validation photos of the run. With --int8 those to
        calibrate by; otherwise training photos of the run.
    count
        On how many photos model and export have to agree.
    int8
        Convolutions of eight bits: smaller, faster, and only where at most 0.3 points of accuracy are lost on the
        validation photos of the run. Otherwise named model-int8.onnx.
    """
    from plusx.cli.terminal import console, document, result, suggest
    from plusx.verbs.export import export

    assert format_ == "onnx", "the only choice"
    done = export(model, out=out, photos=photos or (), count=count, int8=int8)
    if json:
        document(done.to_json())
        return 0
    for line in done.lines():
        result(line)
    suggest(console(quiet), "plusx", "predict", done.path, "PHOTO")
    return 0
