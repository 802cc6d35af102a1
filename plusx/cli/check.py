"""`plusx check DATA`."""

from __future__ import annotations

from plusx.cli.flags import Json, Quiet


def check(*data: str, json: Json = False, quiet: Quiet = False) -> int:
    """Look at a folder of photos: what is in it, and what is wrong with it. Nothing in it is touched.

    Exits with 1 where problems were found.

    Parameters
    ----------
    data
        Photos: a folder with one folder per class (or train/, val/, test/ of them), tar archives, a glob, or a CSV.
    """
    from plusx.cli.terminal import console, counting, document, result, suggest
    from plusx.verbs.check import check

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
