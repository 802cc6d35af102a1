"""`plusx demo`."""

from __future__ import annotations

from pathlib import Path

from plusx.cli.flags import Quiet, Verbose, Whole


def demo(
    *, out: Path = Path("demo"), time: str = "3m", seed: Whole = 0, quiet: Quiet = False, verbose: Verbose = False
) -> int:
    """Draw pictures of cats and dogs, train on them, test, and predict a few: everything, offline.

    Parameters
    ----------
    out
        Where the pictures and the run go; pictures already there are used again.
    time
        How long to train.
    seed
        Draws other pictures and trains another network.
    """
    from plusx.cli.live import Live
    from plusx.cli.terminal import console, counting, result, suggest, table
    from plusx.metrics import percent
    from plusx.verbs.demo import demo_run, demo_set

    err = console(quiet)
    with counting(err, "drawing pictures") as progress:
        data = demo_set(out, seed, on_progress=progress)
    with Live(err, verbose=verbose) as live:
        shown = demo_run(data, out, time, seed, on_event=live.show)
    for line in table([[row.path, row.answer or "", percent(row.probability or 0.0)] for row in shown.rows], _HEADER):
        result(line)
    for line in shown.evaluation.lines():
        result(line)
    suggest(err, "plusx", "train", "FOLDER")
    return 0


_HEADER = ("picture", "answer", "probability")
