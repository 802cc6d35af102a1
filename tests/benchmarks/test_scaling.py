"""`benchmarks/scaling.py` without measuring: constants from lines they made, what is foretold, the page, the wire."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plusx.bench.scaling import Cluster, Link, Work, gathered, ring, step

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MACHINE = {"cores": 2}
FREE, SHARED, WIRE = Link(2e-4, 2e9), Link(1e-3, 5e8), Link(4e-4, 1e9)
TRIPS, BESIDE, NORMS = 2.0, 1.25, 1.4
WORK = Work(0.003, 0.02, gradients=6e6, last=1e6, backward=0.6, layers=10, gathered=2400.0, summed=1600.0, sums=2)
FACTS = {name: getattr(WORK, name) for name in ("gradients", "last", "layers", "gathered", "summed")}


@pytest.fixture(scope="module", autouse=True)
def benchmarks() -> Iterator[None]:
    """What lies beside `scaling.py` can be imported."""
    before = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path[:] = before


def line(do: str, workers: int, seconds: float, role: str = "fit", **more: Any) -> dict[str, Any]:
    told = {"machines": 1, "delay": 0.0, "bandwidth": 0.0, "machine": MACHINE}
    return {**told, "role": role, "do": do, "workers": workers, "seconds": seconds, **more}


def a_step(batch: int, workers: int, seconds: float, role: str = "fit", **more: Any) -> dict[str, Any]:
    told = {"network": "toy", "batch": batch, "norms": False, "backward": 0.6 * seconds, **FACTS}
    return line("step", workers, seconds, role, **{**told, **more})


def made_lines() -> list[dict[str, Any]]:
    """Lines that a machine of known constants would give, with nothing else in them."""
    lines = [a_step(batch, 1, WORK.seconds(batch)) for batch in (4, 32)]
    lines.append(a_step(32, 2, BESIDE * WORK.seconds(32)))
    lines.append(a_step(32, 1, NORMS * WORK.seconds(32), norms=True))
    for size in (1024, 1 << 18, 1 << 25):
        lines.append(line("all_reduce", 2, ring(size, 2, FREE), bytes=size))
        lines.append(line("all_reduce", 8, ring(size, 8, SHARED.slower(2)), bytes=size))
        lines.append(line("all_reduce", 2, ring(size, 2, WIRE), bytes=size, machines=2))
    lines.append(line("all_gather", 2, gathered(256, 2, FREE), bytes=256))
    waits = Link(WIRE.delay + TRIPS * 2e-3, WIRE.bandwidth)
    lines.append(line("all_reduce", 2, ring(1024, 2, waits), bytes=1024, machines=2, delay=2e-3))
    return lines


def projected_lines() -> list[dict[str, Any]]:
    """All that the page needs."""
    lines = [*made_lines(), line("decode", 1, 2e-3, bytes=104_000), line("checkpoint", 1, 0.5, bytes=9e7, network="r")]
    lines += [line("facts", 1, 0.0, network=name, **FACTS) for name in ("resnet18", "resnet50")]
    return [*lines, a_step(16, 2, 0.1, "check"), line("all_reduce", 4, 0.01, "check", bytes=4096)]


def test_the_constants_are_those_that_the_lines_were_made_of() -> None:
    from at_scale.constants import of_lines

    found = of_lines(made_lines())
    assert (found.beside, found.norms, found.trips) == tuple(map(pytest.approx, (BESIDE, NORMS, TRIPS)))
    for ours, theirs in ((found.free, FREE), (found.crowded, SHARED), (found.wire, WIRE)):
        assert (ours.delay, ours.bandwidth) == (pytest.approx(theirs.delay), pytest.approx(theirs.bandwidth))
    work = found.work["toy"]
    assert (work.fixed, work.per_photo, work.backward) == tuple(map(pytest.approx, (0.02, 0.003, 0.6)))
    assert (work.gradients, work.layers) == (WORK.gradients, WORK.layers)


def test_four_processes_on_two_cores_are_foretold_to_share_them() -> None:
    from at_scale.constants import of_lines

    from plusx.bench.scaling import NOTHING

    found = of_lines(made_lines())
    apart = found.foretold(a_step(8, 4, 1.0, "check"))
    without = Work(**{**vars(WORK), "layers": 0, "backward": 0.0})
    asked = step(without, 8, Cluster(1, 4, SHARED, NOTHING), crowd=2 * BESIDE)
    assert apart == pytest.approx(asked.seconds)
    assert found.foretold(a_step(8, 4, 1.0, "check", norms=True)) > apart


def test_over_a_wire_gradients_hide_behind_computing_and_messages_wait_for_its_delay() -> None:
    from at_scale.constants import of_lines

    from plusx.bench.scaling import NOTHING

    told = {"machines": 2, "delay": 0.01, "bandwidth": 1e8}
    across = Link(WIRE.delay + TRIPS * 0.01, 1e8)
    foretold = of_lines(made_lines()).foretold(a_step(32, 2, 1.0, "check", norms=True, **told))
    assert foretold == pytest.approx(step(WORK, 32, Cluster(2, 1, NOTHING, across), crowd=BESIDE * NORMS).seconds)


def test_more_processes_than_cores_wait_for_a_core_as_well_as_for_the_wire() -> None:
    from at_scale.constants import of_lines

    link = of_lines(made_lines()).link(line("step", 4, 1.0, "check", machines=4, delay=0.01, bandwidth=1e9))
    assert link.delay == pytest.approx(WIRE.delay + (SHARED.delay - FREE.delay) + TRIPS * 0.01)
    assert link.bandwidth == pytest.approx(WIRE.bandwidth / 2)


def test_no_configuration_is_both_fitted_on_and_checked() -> None:
    from at_scale import tasks

    seen: dict[str, set[tuple[Any, ...]]] = {"fit": set(), "check": set()}
    for sessions in (tasks.fitting, tasks.checking, tasks.fitting_wire, tasks.checking_wire):
        for one in sessions():
            for task in one.tasks:
                where = (one.workers, one.machines, one.delay, one.bandwidth, task["do"], task.get("network"))
                of = task["bytes"] if "bytes" in task else [(task["batch"], task["together"])]
                seen[one.role] |= {(*where, each) for each in of}
    assert len(seen["fit"]) > 20
    assert len(seen["check"]) > 20
    assert not seen["fit"] & seen["check"]


def test_the_page_gets_its_tables_between_marks_and_keeps_the_rest(tmp_path: Path) -> None:
    import json

    from at_scale.page import PAGE, written
    from at_scale.tables import TABLES

    results = tmp_path / "scaling.jsonl"
    results.write_text("".join(json.dumps(one) + "\n" for one in projected_lines()))
    page = written(PAGE.read_text(), results)
    assert page.startswith(PAGE.read_text()[:200])
    for name in TABLES:
        assert f"<!-- {name} -->\n| " in page
    assert written(page, results) == page
    assert "| 512 | ResNet-50 |" in page
    assert "nan" not in page


def test_a_table_that_nobody_knows_is_an_error(tmp_path: Path) -> None:
    from at_scale.page import written

    results = tmp_path / "scaling.jsonl"
    results.write_text("")
    with pytest.raises(KeyError, match="weather"):
        written("<!-- weather -->\n<!-- /weather -->", results)


def test_what_is_foretold_is_put_beside_what_was_measured() -> None:
    from at_scale.tables import compared

    rows = compared([*made_lines(), a_step(16, 1, 2 * WORK.seconds(16), "check")])
    assert rows[2] == "| toy | 1 | 16 | no | none | 68.00 ms | 136 ms | -50% |"
    assert rows[-1] == "Off by, median: a core for each process 50%, at worst 50% (n = 1)."


def test_every_figure_of_others_has_a_source() -> None:
    from at_scale.assumed import FIGURES

    for name, figure in FIGURES.items():
        assert math.isfinite(figure.value), name
        assert figure.value > 0, name
        assert figure.source, name


def test_on_a_wire_a_packet_leaves_after_those_before_it_and_arrives_a_delay_later() -> None:
    from at_scale.wire import Carrier

    def packet(to: int, size: int) -> bytes:
        return bytes([0x45]) + bytes(18) + bytes([to + 1]) + bytes(size - 20)

    carrier = Carrier(delay=0.5, bandwidth=100.0)
    carrier.take(0, packet(1, 100), clock=0.0)
    carrier.take(0, packet(1, 200), clock=0.0)
    carrier.take(1, packet(0, 50), clock=0.0)
    carrier.take(0, bytes([0x60]) + bytes(60), clock=0.0)  # IPv6
    assert carrier.wait(0.0) == pytest.approx(1.0)
    assert [(machine, len(sent)) for machine, sent in carrier.due(1.5)] == [(0, 50), (1, 100)]
    assert carrier.due(3.49) == []
    assert [(machine, len(sent)) for machine, sent in carrier.due(3.5)] == [(1, 200)]
    assert carrier.wait(4.0) is None


def test_between_namespaces_a_message_waits_for_the_delay_of_the_wire_and_nothing_is_left_behind() -> None:
    from at_scale import wire

    if reason := wire.refused():
        pytest.skip(reason)
    listen = "import socket; s = socket.create_server(('', 7000)); print('here', flush=True); s.accept()"
    connect = "import socket, time; t = time.perf_counter(); socket.create_connection(('10.77.0.1', 7000), 5)"
    with wire.Wire(2, 0.03, 0.0) as between:
        first, second = (["ip", "netns", "exec", space, sys.executable, "-c"] for space in between.spaces)
        with subprocess.Popen([*first, listen], stdout=subprocess.PIPE) as listening:
            assert listening.stdout is not None
            listening.stdout.readline()
            command = [*second, f"{connect}; print(time.perf_counter() - t)"]
            took = float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert took >= 0.06
    left = subprocess.run(["ip", "netns", "list"], check=True, stdout=subprocess.PIPE).stdout.decode()
    assert not set(between.spaces) & set(left.split())


def test_what_is_sent_last_are_the_first_parameters_until_they_are_a_megabyte() -> None:
    from at_scale.worker import last_bucket

    assert last_bucket([100, 1 << 20, 5]) == 100 + (1 << 20)
    assert last_bucket([100, 200]) == 300
