"""How many photos a second `predict --parquet` scores, by itself and by Ray, and what is lost when a worker is killed.

    python benchmarks/scoring.py MODEL SHARD SHARD... --actors 1 2 --rounds 3 --out FILE

SHARDs are tar archives of photos, as many of one size as possible: four at least. Each engine is a process of its own
that scores half of them, and then, another one, all of them. What the second takes more is what its photos cost; the
rest of the first is the start: interpreter, Ray, model. Then Ray scores all of them once more, and the worker that has
the second block in hand is killed. Every folder of parts is compared with that of the local engine, bit by bit. One
JSON line for each engine is added to FILE; exits with 1 where a row is missing or is another one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from growth import machine
from table import row_of

ROOT = Path(__file__).parents[1]
SCRIPT = """import sys
from pathlib import Path
from plusx.verbs import scoring, scoring_ray

if __name__ == "__main__":
    model, out, engine, actors, *shards = sys.argv[1:]
    scoring_ray.usable_cpus = lambda: int(actors)
    scoring.score(scoring.Scoring(Path(model), tuple(shards), Path(out), engine))
"""


def started(model: str, out: Path, engine: str, actors: int, shards: Sequence[str]) -> subprocess.Popen[bytes]:
    """A process that scores `shards` into `out`."""
    script = out.parent / "score.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), model, str(out), engine, str(actors), *shards]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})


def seconds_of(model: str, out: Path, engine: str, actors: int, shards: Sequence[str]) -> float:
    """Wall clock of the process, from its start to its end."""
    began = time.perf_counter()
    if code := started(model, out, engine, actors, shards).wait():
        sys.exit(f"scoring by {engine} ended with {code}")
    return time.perf_counter() - began


def killed(model: str, out: Path, actors: int, shards: Sequence[str]) -> float:
    """As `seconds_of` by Ray; once a part is there, a worker with a block in hand is killed."""
    began, victims = time.perf_counter(), list[int]()
    process = started(model, out, "ray", actors, shards)
    while process.poll() is None:
        time.sleep(0.02)
        if victims or not any(out.glob("part-*")):
            continue
        for tried in out.glob("tmp-tried-*"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                victims.append(int(tried.read_text().split()[-1]))
                os.kill(victims[-1], signal.SIGKILL)
                break
    if process.returncode or not victims:
        sys.exit(f"scoring with a killed worker ended with {process.returncode}, {len(victims)} were killed")
    return time.perf_counter() - began


def rows_and_difference(out: Path, local: Path) -> tuple[int, str]:
    """How many rows there are, and what is not as the local engine has it, in words; "" where every bit is."""
    names, wanted = ({path.name for path in folder.glob("part-*")} for folder in (out, local))
    rows = sum(pq.read_metadata(out / name).num_rows for name in names)
    if names != wanted:
        return rows, f"{len(names ^ wanted)} parts are missing or too many"
    other = [name for name in sorted(names) if not pq.read_table(out / name).equals(pq.read_table(local / name))]
    return rows, f"{other[0]} has other rows" if other else ""


def measured(model: str, engine: str, actors: int, shards: Sequence[str], work: Path) -> dict[str, Any]:
    """Seconds for half of the shards and for all of them, in processes of their own."""
    half, whole = work / f"{engine}-{actors}-half", work / f"{engine}-{actors}"
    seconds = {
        "half": seconds_of(model, half, engine, actors, shards[: len(shards) // 2]),
        "all": seconds_of(model, whole, engine, actors, shards),
    }
    photos = [json.loads((folder / "_manifest.json").read_text())["totals"]["photos"] for folder in (half, whole)]
    rate = (photos[1] - photos[0]) / (seconds["all"] - seconds["half"])
    return {"photos": photos[1], **seconds, "rate": rate, "start": seconds["half"] - photos[0] / rate}


def of_engine(wanted: argparse.Namespace, engine: str, actors: int, work: Path) -> dict[str, Any]:
    """The line of one engine over all rounds, compared with the local one."""
    rounds = []
    for number in range(wanted.rounds):
        folder = work / str(number)
        folder.mkdir(exist_ok=True)
        rounds.append(measured(wanted.model, engine, actors, wanted.shards, folder))
    rows, different = rows_and_difference(work / "0" / f"{engine}-{actors}", work / "0" / "local-1")
    figures = {name: [each[name] for each in rounds] for name in ("half", "all", "rate", "start")}
    line = {"what": engine, "actors": actors, "photos": rounds[0]["photos"], "rows": rows, "different": different}
    return {**line, **figures, "machine": machine()}


def with_one_killed(wanted: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The line of a scoring by Ray with a worker killed."""
    out, actors = work / "0" / "killed", max(wanted.actors)
    seconds = killed(wanted.model, out, actors, wanted.shards)
    rows, different = rows_and_difference(out, work / "0" / "local-1")
    photos = json.loads((out / "_manifest.json").read_text())["totals"]["photos"]
    line = {"what": "ray, one worker killed", "actors": actors, "photos": photos, "rows": rows}
    return {**line, "different": different, "all": [seconds], "machine": machine()}


def table(lines: list[dict[str, Any]]) -> list[str]:
    """A Markdown table: medians over the rounds."""
    head = ("engine", "actors", "photos", "s for all", "photos/s", "ms a photo", "start, s", "rows", "as local")
    rows = [row_of(*head), row_of(*["---"] * len(head))]
    for line in lines:
        middle = {name: statistics.median(line[name]) for name in ("all", "rate", "start") if name in line}
        cost = (f"{middle['rate']:,.0f}", f"{1e3 / middle['rate']:.2f}", f"{middle['start']:.1f}")
        figures = cost if "rate" in middle else ("", "", "")
        alike = line["different"] or "every bit"
        cells = (line["what"], line["actors"] if line["what"] != "local" else "", f"{line['photos']:,}")
        rows.append(row_of(*cells, f"{middle['all']:.1f}", *figures, f"{line['rows']:,}", alike))
    return rows


def main() -> None:
    """Measure the local engine, Ray with each number of actors, and Ray with a worker killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    wanted, lines = parser.parse_args(), []
    with tempfile.TemporaryDirectory() as folder:
        lines.append(of_engine(wanted, "local", 1, Path(folder)))
        lines += [of_engine(wanted, "ray", actors, Path(folder)) for actors in wanted.actors]
        lines.append(with_one_killed(wanted, Path(folder)))
    if wanted.out:
        with wanted.out.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    print("\n".join(table(lines)))
    sys.exit(any(line["different"] or line["rows"] != line["photos"] for line in lines))


if __name__ == "__main__":
    main()
