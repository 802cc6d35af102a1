"""`plusx lab tour`: the whole story as one page, with the results of the experiments that were run into a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plusx.durable import write_file
from plusx.errors import lab as sentences
from plusx.lab.catalogue import EXPERIMENTS
from plusx.lab.conduct import RESULTS, LabWish
from plusx.lab.results import Figure, Finding, Result, Table
from plusx.report.lab_page import Shown, machine_line
from plusx.report.standalone import inline, lively
from plusx.report.tour_page import Chapter, tour_page

PAGE = "tour.html"


def tour(data: Sequence[str], wish: LabWish) -> Path:
    """Write OUT/tour.html from OUT/NAME/results.json and the figures beside it, and say where it is.

    What has not been run is named with the command that runs it on DATA, or on the photos of the others. Raises
    UsageError where nothing was run, DataError where results cannot be read, DiskError.
    """
    found = {name: read(wish.out / name) for name in EXPERIMENTS if (wish.out / name / RESULTS).is_file()}
    data = data or next((document["data"] for document, _ in found.values() if document.get("data")), ())
    if not found:
        raise sentences.no_results(wish.out, wish.command(next(iter(EXPERIMENTS)), data))
    chapters = {name: _chapter(found.get(name), wish.command(name, data)) for name in EXPERIMENTS}
    machines = {machine_line(document["machine"]): None for document, _ in found.values() if "machine" in document}
    page = wish.out / PAGE
    write_file(page, tour_page(chapters, "; ".join(machines)).encode())
    return page


def read(folder: Path) -> tuple[Mapping[str, Any], Result]:
    """What an experiment wrote: its document, and the result in it, figures included. Raises DataError."""
    path = folder / RESULTS
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {"command": document["command"], **document}, _result(document, folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise sentences.damaged_results(path, _said(error)) from error


def _said(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


def _chapter(found: tuple[Mapping[str, Any], Result] | None, command: str) -> Chapter:
    if found is None:
        return Chapter(command)
    document, result = found
    return Chapter(document["command"], result, tuple(Shown(lively(f.svg), f.caption) for f in result.figures))


def _result(document: Mapping[str, Any], folder: Path) -> Result:
    """The result as it was before it was written."""
    return Result(
        **{key: document[key] for key in ("name", "title", "question", "conditions", "raw")},
        tables=tuple(Table(t["title"], tuple(t["header"]), tuple(map(tuple, t["rows"]))) for t in document["tables"]),
        figures=tuple(_figure(folder, figure) for figure in document["figures"]),
        findings=tuple(
            Finding(f["sentence"], f["expected"], f["agrees"], f.get("why", "")) for f in document["findings"]
        ),
    )


def _figure(folder: Path, figure: Mapping[str, str]) -> Figure:
    path = folder / f"{Path(figure['name']).name}.svg"
    return Figure(figure["name"], figure["caption"], inline(path.read_text(encoding="utf-8")))
