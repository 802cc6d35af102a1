"""`plusx lab NAME [DATA]`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from plusx.cli.flags import Json, Quiet, Switch, Whole

if TYPE_CHECKING:
    from plusx.lab.conduct import Done, LabWish


def lab(
    name: str | None = None,
    *data: str,
    quick: Switch = False,
    full: Switch = False,
    seeds: Whole | None = None,
    steps: Whole | None = None,
    jobs: Whole | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None,
    out: Path = Path("lab"),
    estimate: Switch = False,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """See for yourself why the "+ x" matters: experiments on plain and residual networks.

    Without a name the experiments are listed. The same command goes on where it was stopped.

    Parameters
    ----------
    name
        An experiment, tour for the whole story on one page, or all.
    data
        Photos, as for train, such as CIFAR-10; where none are named, pictures that plusx draws.
    quick
        Smaller networks and fewer steps, for two cores and less than 15 minutes: the default.
    full
        The published sizes: days on a CPU; --estimate says how long.
    seeds
        Networks of each kind, which differ by their seed alone.
    steps
        Steps of a training.
    jobs
        Networks trained side by side; one for each CPU, four on a GPU, where not given.
    device
        Where to compute.
    out
        The folder of the lab: what one experiment has trained is used by the others.
    estimate
        Only measure a step of each network and say how long the trainings would take.
    set_
        Any other setting of the trainings, as key=value; may be given several times.
    """
    from plusx.cli.terminal import document
    from plusx.errors import lab as sentences
    from plusx.lab import catalogue

    if name is None:
        return _list(json=json)
    if quick and full:
        raise sentences.both_modes()
    catalogue.require(name, catalogue.TOUR, catalogue.EVERY)
    from plusx.lab.conduct import LabWish

    wish = LabWish(full, seeds, steps, jobs, device, out, tuple(set_ or ()), name)
    names = {catalogue.EVERY: tuple(catalogue.EXPERIMENTS), catalogue.TOUR: ()}.get(name, (name,))
    if estimate:
        found = [_estimate(each, data, wish, json=json, quiet=quiet) for each in names]
    else:
        found = [_one(each, data, wish, json=json, quiet=quiet) for each in names]
        found += [_tour(data, wish, json=json)] if len(names) != 1 else []
    if json:
        document(found[0] if len(found) == 1 else {name: found})
    return 0


def _one(name: str, data: tuple[str, ...], wish: LabWish, *, json: bool, quiet: bool) -> dict[str, Any]:
    """Run one experiment and show what it found, unless it is wanted as JSON."""
    from plusx.cli.lab_live import LabLive
    from plusx.cli.terminal import console, result, suggest
    from plusx.lab.conduct import lab

    with LabLive(console(quiet or json)) as live:
        done = lab(name, data, wish, live.show)
    if not json:
        _show(done)
        result(f"the page: {done.folder / 'index.html'}, figures and numbers beside it")
        suggest(console(quiet), "plusx", "lab", "tour", "--out", wish.out)
    return done.to_json()


def _estimate(name: str, data: tuple[str, ...], wish: LabWish, *, json: bool, quiet: bool) -> dict[str, Any]:
    from plusx.cli.lab_live import LabLive
    from plusx.cli.terminal import console, result, table
    from plusx.lab.estimate import HEADER, estimate

    with LabLive(console(quiet or json)) as live:
        found = estimate(name, data, wish, live.show)
    if not json:
        for line in table(found.rows(), HEADER) if found.costs else ():
            result(line)
        result(f"{name}: {found.sentence()}")
    return {"name": name, **found.to_json()}


def _tour(data: tuple[str, ...], wish: LabWish, *, json: bool) -> dict[str, Any]:
    from plusx.cli.terminal import result
    from plusx.lab.tour import tour

    page = tour(data, wish)
    if not json:
        result(f"the whole story: {page}")
    return {"page": str(page)}


def _list(*, json: bool) -> int:
    from plusx.cli.terminal import document, result, table
    from plusx.lab.catalogue import EVERY, EVERY_SUMMARY, EXPERIMENTS, TOUR, TOUR_SUMMARY

    rows = [*EXPERIMENTS.items(), (TOUR, TOUR_SUMMARY), (EVERY, EVERY_SUMMARY)]
    if json:
        document({"experiments": dict(rows)})
        return 0
    for line in table(rows, ("experiment", "what it shows")):
        result(line)
    return 0


def _show(done: Done) -> None:
    """The tables and what was found."""
    from plusx.cli.terminal import result, table

    found = done.result
    result(f"{found.title}: {found.question}")
    result(found.conditions)
    for shown in found.tables:
        result(f"{shown.title}:")
        for line in table(shown.rows, shown.header):
            result(f"  {line}")
    for finding in found.findings:
        why = f" {finding.why}" if finding.why else ""
        result(f"- {finding.sentence} ({finding.verdict}: {finding.expected}){why}")
