"""`plusx check DATA`."""

from __future__ import annotations

from pathlib import Path

from plusx.cli.flags import Json, Quiet, Switch, Whole


def check(
    *data: str,
    labels: Switch = False,
    folds: Whole = 5,
    time: str = "10m",
    out: Path | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Look at a folder of photos: what is in it, and what is wrong with it. Nothing in it is touched.

    Exits with 1 where problems were found. With --labels, networks judge the labels of photos that they have not
    seen, and the most doubtful are listed for you to decide on; that is no problem found, and exits with 0.

    Parameters
    ----------
    data
        Photos: a folder with one folder per class (or train/, val/, test/ of them), tar archives, a glob, or a CSV.
    labels
        Look for photos whose label is probably wrong; takes --time.
    folds
        Parts of the photos for --labels: each is judged by a network that was trained on the others.
    time
        How long --labels may take for all folds together.
    out
        Where the lists of --labels and the runs of its folds go; check-NAME where not given.
    """
    from plusx.cli.labels import labels as check_labels
    from plusx.cli.terminal import console, counting, document, result, suggest
    from plusx.verbs.check import check

    if labels:
        return check_labels(data, folds=folds, time=time, out=out, json=json, quiet=quiet)
    err = console(quiet or json)
    with counting(err, "reading photos") as progress:
        report = check(data, on_progress=progress)
    if json:
        document(report.to_json())
    else:
        for line in report.lines():
            result(line)
    if not report.problems:
        suggest(err, "plusx", "train", *data)
    return report.exit_code
