"""Write docs/lab from a folder in which `plusx lab` was run, or check that its page is what its numbers make.

python tools/lab_docs.py lab docs/lab
python tools/lab_docs.py --check docs/lab
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plusx.lab.catalogue import EXPERIMENTS
from plusx.report.lab_page import machine_line

HEAD = """# The lab

What `plusx lab` found, written by `python tools/lab_docs.py LAB docs/lab` from the results of a run; `make check` fails
when this page is not what the numbers beside it make. Nothing here was written by hand. [The whole story](tour.html) is
one page to download and open. How fast these networks train, and what limits them, is in [speed.md](speed.md).
"""


def page(folder: Path) -> str:
    """The markdown page about the results in `folder`."""
    found = [json.loads((folder / name / "results.json").read_bytes()) for name in _run(folder)]
    return "\n".join([HEAD, *(line for result in found for line in _section(result))]) + "\n"


def _run(folder: Path) -> list[str]:
    return [name for name in EXPERIMENTS if (folder / name / "results.json").exists()]


def _section(result: dict[str, Any]) -> Iterator[str]:
    yield from (f"## {result['title']}", "", result["question"], "")
    yield from (f"`{result['command']}`: {result['conditions']}", "")
    yield from (f"Machine: {machine_line(result['machine'])}.", "")
    for finding in result["findings"]:
        why = f" {finding['why']}" if finding["why"] else ""
        yield f"- {finding['sentence']} **{finding['verdict'].capitalize()}**: {finding['expected']}{why}"
    for table in result["tables"]:
        yield from ("", f"**{table['title']}**", "")
        yield from (f"| {' | '.join(table['header'])} |", "|" + "---|" * len(table["header"]))
        yield from (f"| {' | '.join(row)} |" for row in table["rows"])
    for figure in result["figures"]:
        yield from (
            "",
            f"![{result['title']}, figure {figure['name']}]({result['name']}/{figure['name']}.svg)",
            "",
            f"*{figure['caption']}*",
        )
    yield ""


def _copy(lab: Path, folder: Path) -> None:
    for name in _run(lab):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
        for path in sorted([*(lab / name).glob("*.svg"), lab / name / "results.json"]):
            shutil.copyfile(path, folder / name / path.name)
    if (lab / "tour.html").exists():
        shutil.copyfile(lab / "tour.html", folder / "tour.html")


def main() -> None:
    """Copy and write, or check."""
    if sys.argv[1] == "--check":
        folder = Path(sys.argv[2])
        if (folder / "README.md").read_text() != page(folder):
            sys.exit(f"{folder / 'README.md'} is not what its numbers make: run python tools/lab_docs.py LAB {folder}")
        return
    lab, folder = Path(sys.argv[1]), Path(sys.argv[2])
    _copy(lab, folder)
    (folder / "README.md").write_text(page(folder))


if __name__ == "__main__":
    main()
