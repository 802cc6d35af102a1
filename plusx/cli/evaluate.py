"""`plusx evaluate RUN_OR_MODEL [DATA]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from plusx.cli.flags import Decisions, Device, Json, Quiet, Whole


def evaluate(
    run_or_model: Annotated[Path, Parameter(name="RUN_OR_MODEL")],
    /,
    *data: str,
    report: Path | None = None,
    device: Device = "auto",
    batch_size: Whole = 64,
    decisions: Decisions = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Test a model on photos it never saw.

    A run folder is tested on its own test split; a model file on DATA: its test/ where it has one, else
    every photo but those the model was trained on. The report and the card of a run folder are written anew.

    Parameters
    ----------
    run_or_model
        A run folder or a model file.
    data
        Photos: a folder, tar archives, a glob, or a CSV.
    report
        Write a report as one HTML page there; that of a run folder is its report.html in any case.
    batch_size
        Photos computed at once; changes nothing but speed and memory.
    decisions
        A CSV of photos to leave out or relabel, as check writes and you edit it; may be given several times.
    """
    from plusx.cli.terminal import console, counting, document, result, suggest
    from plusx.launch import launched
    from plusx.verbs.evaluate import evaluate

    launch = launched()
    err = console(quiet or json or not launch.first)
    with counting(err, "testing") as progress:
        evaluation = evaluate(
            run_or_model,
            data or None,
            report=report,
            decisions=decisions or (),
            device=device,
            batch_size=batch_size,
            on_progress=progress,
        )
    if json and launch.first:
        document(evaluation.to_json())
    for line in evaluation.lines() if launch.first and not json else ():
        result(line)
    for notice in evaluation.notices:
        err.print(f"Note: {notice}")
    if evaluation.report is not None:
        err.print(f"report: {evaluation.report}")
    suggest(err, "plusx", "predict", run_or_model, "PHOTO")
    return 0
