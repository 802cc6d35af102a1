"""How many photos a second `predict` answers, decoding included, beside other ways to run the same network.

    python benchmarks/inference.py PHOTOS WORK --env ENV --models fast=runs/a/model.safetensors plain=...

PHOTOS is a folder of JPEGs. ENV gets a virtual environment with ONNX Runtime and OpenVINO that sees this interpreter's
torch; it is made once. Every contender is a process that has loaded its network and warmed up; in every round each
answers for the same photos once, in turn, and its rate is compared with plusx's of that round. Rivals decode by
PyTorch's DataLoader; their batch, workers and decoder are the best found in a short trial, plusx's its defaults. WORK
gets trial results, exported networks and results.jsonl, one line per contender and round; the table is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from table import row_of

PACKAGES = ("onnx", "onnxruntime", "onnxscript", "openvino")
REFERENCE = "eager fp32"  # what the others' answers are compared with
OURS = "plusx"
CONTENDERS = (
    *(OURS, "plusx fp32", REFERENCE, "eager bf16", "compile fp32", "compile bf16"),
    *("onnxruntime fp32", "openvino fp32", "openvino bf16"),
)
BATCHES = (16, 32, 64)
ROOT = Path(__file__).parents[1]


def environment(folder: Path) -> Path:
    """The interpreter of a virtual environment with the rivals in it, which sees the packages of this one."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        site = next(folder.glob("lib/python*/site-packages"))
        shared = [path for path in sys.path if path.endswith("site-packages")]
        (site / "shared.pth").write_text("\n".join(shared) + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


@dataclass
class Contender:
    """A process of contenders.py."""

    name: str
    process: subprocess.Popen[str]
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(cls, python: Path, name: str, model: Path, work: Path, options: argparse.Namespace) -> Contender:
        """Its process, which loads nothing yet."""
        command = [python, Path(__file__).with_name("contenders.py"), name, model, options.photos, work]
        inductor = str(options.work.resolve() / "inductor")
        extra = {"PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": inductor, "TORCHINDUCTOR_FREEZING": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return cls(name, subprocess.Popen(list(map(str, command)), env=os.environ | extra, text=True, **pipes))  # type: ignore[call-overload]

    def ask(self, **command: Any) -> dict[str, Any]:
        """The answer to one command. Raises RuntimeError where the contender failed."""
        assert self.process.stdin is not None, "a pipe"
        assert self.process.stdout is not None, "a pipe"
        print(json.dumps(command), file=self.process.stdin, flush=True)
        found: dict[str, Any] = json.loads(self.process.stdout.readline() or '{"error": "it ended"}')
        if "error" in found:
            raise RuntimeError(f"{self.name}: {found['error']}")
        return found

    def rate(self, settings: dict[str, Any], count: int) -> float:
        """Images a second over `count` photos with these settings."""
        self.ask(do="setup", **settings)
        found = self.ask(do="predict", count=count)
        return float(found["n"] / found["seconds"])

    def tune(self, count: int) -> None:
        """The best batch, then the best number of workers, then the best decoder, each in one trial."""
        best: dict[str, Any] = {"batch": 64, "workers": 2, "decoder": "pillow"}
        if self.name.startswith(OURS):
            self.settings = {"batch": 64, "workers": None, "decoder": "its own"}
            return
        trials: dict[str, Sequence[Any]] = {"batch": BATCHES, "workers": (2, 1), "decoder": ("pillow", "torchvision")}
        if self.name.startswith("compile"):
            trials["batch"] = (32,)  # every other takes half a minute to compile
        for key, values in trials.items():
            rates = {value: self.rate(best | {key: value}, count) for value in values}
            best[key] = max(values, key=rates.__getitem__)
            print(f"  {self.name}: {key} { ({v: round(r) for v, r in rates.items()}) }", file=sys.stderr, flush=True)
        self.settings = best


@contextlib.contextmanager
def started(work: Path, model: Path, options: argparse.Namespace) -> Iterator[list[Contender]]:
    """The contenders for one model; their processes end with the block."""
    work.mkdir(parents=True, exist_ok=True)
    python = environment(options.env)
    contenders = [Contender.start(python, name, model, work, options) for name in options.contenders]
    try:
        yield contenders
    finally:
        for contender in contenders:
            contender.process.kill()
            contender.process.wait()


def settle(contenders: list[Contender], store: Path, count: int) -> None:
    """Settings for every contender, from an earlier call's trials or from new ones."""
    known: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    for contender in contenders:
        if contender.name not in known:
            contender.tune(count)
            known[contender.name] = contender.settings
            store.write_text(json.dumps(known, indent=1))
        contender.settings = known[contender.name]
        contender.ask(do="setup", **contender.settings)


def agreement(work: Path, name: str) -> dict[str, float]:
    """How a contender's last answers differ from the reference's."""
    ours, theirs = (np.load(work / f"{each}.npy", allow_pickle=False) for each in (name, REFERENCE))
    same = (ours.argmax(1) == theirs.argmax(1)).mean()
    return {"same_labels": float(same), "largest_difference": float(np.abs(ours - theirs).max())}


def compare(label: str, contenders: list[Contender], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One line per contender and round; each round begins with another contender."""
    machine = machine_record()
    for number in range(options.rounds):
        shift = number % len(contenders)
        lines = []
        for contender in contenders[shift:] + contenders[:shift]:
            found = contender.ask(do="predict", count=options.count)
            alone = contender.ask(do="network", seconds=options.noise)
            rates = {"rate": found["n"] / found["seconds"], "network_rate": alone["n"] / alone["seconds"]}
            head = {"network": label, "contender": contender.name, "n": found["n"], "settings": contender.settings}
            lines.append(head | rates | {"machine": machine})
        ours = next(line["rate"] for line in lines if line["contender"] == OURS)
        for line in lines:
            yield line | {"share": line["rate"] / ours} | agreement(options.work / label, line["contender"])


def machine_record() -> dict[str, Any]:
    """The machine and the versions, as runs record them."""
    from plusx.training.environment import choose_device, record

    return record(choose_device("cpu"), fast_math=False)


def table(lines: list[dict[str, Any]]) -> list[str]:
    """One row per network and contender: medians, and the median of the ratios within a round."""
    head = ("network", "with", "batch, workers, decoder", "rounds", "photos", "images/s", "of plusx's rate")
    more = ("without decoding", "same labels", "largest difference")
    rows = [row_of(*head, *more), row_of(*["---"] * 10)]
    ordered = sorted(lines, key=lambda line: line["network"])
    for network, found in itertools.groupby(ordered, key=lambda line: line["network"]):
        own = list(found)
        for name in (name for name in CONTENDERS if any(line["contender"] == name for line in own)):
            rows.append(_row(network, name, [line for line in own if line["contender"] == name]))
    return rows


def _row(network: str, name: str, lines: list[dict[str, Any]]) -> str:
    settings, middle = lines[-1]["settings"], statistics.median
    shares = [line["share"] for line in lines]
    chosen = f"{settings['batch']}, {settings['workers'] or 'its own'}, {settings['decoder']}"
    return row_of(
        *(network, name, chosen, len(lines), f"{sum(line['n'] for line in lines):,}"),
        f"{middle(line['rate'] for line in lines):.0f}",
        f"{middle(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})",
        f"{middle(line['network_rate'] for line in lines):.0f}",
        f"{100 * min(line['same_labels'] for line in lines):.2f} %",
        f"{max(line['largest_difference'] for line in lines):.4f}",
    )


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--env", type=Path, required=True)
    parser.add_argument("--models", nargs="+", required=True, help="name=model.safetensors")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=5000, help="photos a round")
    parser.add_argument("--trial", type=int, default=500, help="photos a trial")
    parser.add_argument("--noise", type=float, default=1.0, help="seconds of computing without decoding, a round")
    return parser.parse_args()


def main() -> None:
    """Find settings, run the rounds, print the table."""
    options = parsed()
    results = options.work / "results.jsonl"
    for label, model in (each.split("=", 1) for each in options.models):
        with started(options.work / label, Path(model), options) as contenders:
            settle(contenders, options.work / label / "settings.json", options.trial)
            for line in compare(label, contenders, options):
                with results.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    lines = results.read_text().splitlines() if results.exists() else []
    print("\n".join(table([json.loads(line) for line in lines])))


if __name__ == "__main__":
    main()
