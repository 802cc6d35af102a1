"""`plusx check DATA`."""

from __future__ import annotations

from plusx.cli.flags import Device, Json, Quiet, Switch, Whole


def check(
    *data: str,
    labels: Switch = False,
    folds: Whole = 5,
    time: str = "10m",
    out: str | None = None,
    model: str | None = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Look at a folder of photos: what is in it, and what is wrong with it. Nothing in it is touched.

    Exits with 1 where problems were found.

    Parameters
    ----------
    data
        Photos: a folder with one folder per class (or train/, val/, test/ of them), tar archives, a glob, or a CSV.
    labels
        Look for labels that are probably wrong instead: networks judge photos they have not seen. What they doubt is
        listed in OUT (check-NAME where not given) for you to decide on, and exits with 0.
    folds
        Parts of the photos for --labels: each is judged by a network that was trained on the others.
    time
        How long --labels may take for all folds together.
    out
        Write a page with the photos (check.html), the report (check.json) and a table of decisions (quarantine.csv)
        into this folder.
    model
        A model file or run folder: list further pairs of photos that look alike to it.
    """
    from plusx.cli.labels import labels as check_labels
    from plusx.cli.terminal import console, counting, document, result, suggest
    from plusx.errors.usage import labels_by_a_model
    from plusx.verbs.check import check

    if labels and model is not None:
        raise labels_by_a_model()
    if labels:
        return check_labels(data, {"out": out, "folds": folds, "time": time, "device": device}, json=json, quiet=quiet)
    err = console(quiet or json)
    with counting(err, "reading photos") as progress:
        report = check(data, out=out, model=model, device=device, on_progress=progress)
    if json:
        document(report.to_json())
    else:
        for line in report.lines():
            result(line)
    if out is not None:
        err.print(f"Wrote {out}/check.html, check.json and quarantine.csv.")
    if not report.problems:
        suggest(err, "plusx", "train", *data)
    elif out is not None and not report.unusable:
        suggest(err, "plusx", "train", *data, "--decisions", f"{out}/quarantine.csv")
    return report.exit_code
