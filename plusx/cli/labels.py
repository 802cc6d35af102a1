"""`plusx check DATA --labels`: the display of a cross-validated check of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def labels(data: Sequence[str], asked: Mapping[str, Any], *, json: bool, quiet: bool) -> int:
    """Judge every label by networks that had not seen the photo, as the flags `asked`: out, folds, time, device.

    Suspects are information, and the exit code is 0.
    """
    from plusx.cli.live import Live
    from plusx.cli.run import STARTED
    from plusx.cli.terminal import console, document, result, suggest
    from plusx.doctor.labels import CSV
    from plusx.verbs.check_labels import LabelWish, check_labels, default_out

    err = console(quiet or json)
    out = Path(asked["out"]) if asked["out"] else default_out(data)
    wish = LabelWish(out, asked["folds"], asked["time"], {"device": asked["device"]})
    with Live(err) as live:
        report = check_labels(data, wish, on_event=live.show, started=STARTED)
    if json:
        document(report.to_json())
    else:
        for line in report.lines():
            result(line)
    if report.suspects:
        suggest(err, "plusx", "train", *data, "--decisions", report.out / CSV)
    return 0
