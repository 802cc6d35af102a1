"""`plusx check DATA`."""

from __future__ import annotations

from plusx.cli.flags import Device, Json, Quiet


def check(
    *data: str,
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
    out
        Write a page with the photos (check.html), the report (check.json) and a table of decisions (quarantine.csv)
        into this folder.
    model
        A model file or run folder: list further pairs of photos that look alike to it.
    """
    from plusx.cli.terminal import console, counting, document, result, suggest
    from plusx.verbs.check import check

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
    return report.exit_code
