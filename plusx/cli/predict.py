"""`plusx predict MODEL PATH...`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from plusx.cli.flags import Device, Quiet, Switch, Verbose, Whole

TEXT = frozenset({".csv", ".json", ".txt", ".tsv"})
FLAGS = (
    *("--json", "--csv", "--kaggle", "--parquet", "--engine", "--strict", "--out", "--device", "--batch-size"),
    *("--precision", "--quiet", "--verbose"),
)

if TYPE_CHECKING:
    from plusx.verbs.predict import Row, Tally


def predict(
    model: Annotated[Path, Parameter(name="MODEL")],
    /,
    *paths: Annotated[str, Parameter(allow_leading_hyphen=True)],
    json: Switch = False,
    csv: Switch = False,
    kaggle: Switch = False,
    parquet: Switch = False,
    engine: Literal["local", "ray"] = "local",
    strict: Switch = False,
    out: Path | None = None,
    device: Device = "auto",
    batch_size: Whole = 64,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    quiet: Quiet = False,
    verbose: Annotated[Verbose, Parameter(help="Print more: which model answers, and how long that took.")] = False,
) -> int:
    """Answer for photos, folders or archives: one row for each, error rows included.

    Exits with 3 if no photo could be read.

    Parameters
    ----------
    model
        A model file or a run folder.
    paths
        Photos, folders, globs or tar archives; - reads a list of paths from standard input.
    json
        One JSON document instead of a table.
    csv
        CSV with the columns path, label, probability, probabilities, answer, error.
    kaggle
        CSV with the columns id, label, as a Kaggle submission.
    parquet
        A folder of Parquet parts, one for each archive or 1,000 photos; the same command goes on where it was stopped.
    engine
        ray: the same folder, made by Ray Data on all CPUs or GPUs of this machine, or of the cluster at RAY_ADDRESS.
    strict
        Exit with 3 if any photo could not be read.
    out
        Write there instead of to stdout; of --parquet and --engine ray, the folder.
    batch_size
        Photos in one batch; changes nothing but speed and memory.
    precision
        auto: bf16 where the processor multiplies in it, faster; no probability moved by over 0.02 where measured.
    """
    from plusx.verbs.predict import Tally, predict

    listed = list(_listed(paths))
    chosen = [name for name, given in (("json", json), ("csv", csv), ("kaggle", kaggle)) if given]
    if parquet or engine == "ray":
        from plusx.cli.scored import scored, scoring

        how = {"engine": engine, "device": device, "precision": precision, "batch_size": batch_size}
        return scored(scoring(model, listed, out, chosen, **how), json=json, strict=strict, quiet=quiet)
    _refuse_overwriting(out, [model, *listed])
    tally = Tally()
    with _progress(shown=out is not None and not quiet) as progress:
        rows = predict(model, listed, device=device, batch_size=batch_size, precision=precision, on_progress=progress)
        _write(tally.counted(rows), chosen, out)
    if not quiet:
        _remark(tally, model if verbose else None)
    return tally.exit_code(strict)


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A progress callback where the answers go to a file; on a terminal they show by themselves how far they are."""
    if not shown:
        yield None
        return
    from plusx.cli.terminal import console, counting

    with counting(console(), "predicting") as progress:
        yield progress


def _remark(tally: Tally, model: Path | None) -> None:
    """Say how many rows are errors and, of a `model`, what it is and how long everything took."""
    from plusx.cli.plain import printable
    from plusx.cli.run import STARTED
    from plusx.verbs.predict import described

    said = [f"{tally.bad:,} of {tally.good + tally.bad:,} could not be read; their rows say why."] if tally.bad else []
    if model is not None:
        said.append(described(model))
        said.append(f"answers: {tally.good:,}, in {time.monotonic() - STARTED:.1f} s")
    sys.stderr.write("".join(f"{printable(line)}\n" for line in said))


def _refuse_overwriting(out: Path | None, read: Iterable[str | Path]) -> None:
    """Raise UsageError where the answers would replace what they are made from."""
    from plusx.errors.usage import would_overwrite

    for path in read if out is not None and out.exists() else ():
        taken = Path(path)
        if taken.exists() and out is not None and (out.samefile(taken) or _inside(out, taken)):
            raise would_overwrite(out, path)


def _inside(out: Path, folder: Path) -> bool:
    """Whether `out` is one of a folder's photos. New files beside them are welcome."""
    return folder.resolve() in out.resolve().parents and out.suffix.lower() not in TEXT


def _listed(paths: Iterable[str]) -> Iterator[str]:
    """The paths, with those of standard input where there is a -. Raises UsageError for a mistyped flag."""
    from plusx.errors.usage import unknown_flag

    for path in paths:
        if path == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        elif path.startswith("-") and not Path(path).exists():
            raise unknown_flag(path, "predict", FLAGS)
        else:
            yield path


def _write(rows: Iterator[Row], chosen: list[str], out: Path | None) -> None:
    from plusx.cli.formats import write_rows
    from plusx.errors.usage import several_formats

    if len(chosen) > 1:
        raise several_formats(chosen)
    write_rows(rows, chosen[0] if chosen else "table", out)
