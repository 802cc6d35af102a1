"""`benchmarks/serve.py`: the ideal queue, intervals, the client's clock, and what counts as a failed request."""

from __future__ import annotations

import itertools
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
REQUEST = b"GET / HTTP/1.1\r\n\r\n"
CLOSES = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def serving() -> Iterator[Any]:
    """The modules, importable as they are when serve.py runs as a script."""
    before = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from serving import client, endurance, ideal, intervals, photos, session, slow, tables

        yield SimpleNamespace(**{
            "client": client, "endurance": endurance, "ideal": ideal, "intervals": intervals, "photos": photos,
            "session": session, "slow": slow, "tables": tables,
        })  # fmt: skip
    finally:
        sys.path[:] = before


# The ideal queue


def arrivals(load: float, n: int) -> Any:
    return np.cumsum(np.random.default_rng(1).exponential(1 / load, size=n))


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_with_constant_times_the_ideal_queue_waits_as_pollaczek_and_khinchine_say(serving: Any, load: float) -> None:
    waits = serving.ideal.latencies(arrivals(load, 200_000), lambda *_: 1.0, largest=1, seed=0) - 1.0
    assert waits.mean() == pytest.approx(load / (2 * (1 - load)), rel=0.05)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_with_exponential_times_the_ideal_queue_is_that_of_one_memoryless_server(serving: Any, load: float) -> None:
    def service(photos: int, uniform: float) -> float:
        return float(-np.log1p(-uniform))

    latencies = serving.ideal.latencies(arrivals(load, 200_000), service, largest=1, seed=0)
    assert latencies.mean() == pytest.approx(1 / (1 - load), rel=0.05)
    assert serving.intervals.quantile(latencies, 0.99) == pytest.approx(np.log(100) / (1 - load), rel=0.07)


def test_the_ideal_queue_takes_all_that_wait_at_once_up_to_its_largest_batch(serving: Any) -> None:
    due = np.array([0.0, 0.1, 0.2, 0.3, 9.0])
    taken: list[int] = []

    def service(photos: int, uniform: float) -> float:
        taken.append(photos)
        return 1.0

    assert serving.ideal.latencies(due, service, largest=2, seed=0) == pytest.approx([1.0, 1.9, 1.8, 2.7, 1.0])
    assert taken == [1, 2, 1, 1]


def test_times_between_two_measured_batches_are_interpolated_and_beyond_them_refused(serving: Any) -> None:
    measured = serving.ideal.Measured({2: [2.0, 4.0], 4: [4.0, 8.0]})
    assert [measured(2, 0.1), measured(3, 0.1), measured(3, 0.9), measured(4, 0.9)] == [2.0, 3.0, 6.0, 8.0]
    with pytest.raises(ValueError, match="no times for 5 photos at once"):
        measured(5, 0.5)


def test_where_batches_gain_nothing_the_best_ideal_takes_photos_one_by_one(serving: Any) -> None:
    due = arrivals(0.7, 5_000)
    assert serving.ideal.best([(due, lambda photos, _: float(photos))], largest=16, seed=0)[0] == 1
    assert serving.ideal.best([(due, lambda *_: 1.0)], largest=16, seed=0)[0] > 1


def test_slow_spells_of_the_bare_loop_are_slow_spells_of_the_ideal_queue(serving: Any) -> None:
    times = [1.0] * 90 + [3.0] * 30
    replayed = serving.ideal.Measured({1: times}).replayed(seed=0)
    slow = [replayed(float(second)) >= 0.75 for second in range(360)]
    assert sum(slow) == pytest.approx(180, abs=2)
    assert sum(one != other for one, other in itertools.pairwise(slow)) <= 5
    due = np.arange(0.0, 180.0, 2.0)
    waits = serving.ideal.latencies(due, serving.ideal.Measured({1: times}), largest=1, seed=0)
    assert waits.max() > 20


# Intervals


def test_the_interval_of_a_quantile_holds_the_true_one_as_often_as_it_says(serving: Any) -> None:
    draws = np.random.default_rng(0)
    true = -np.log(0.01)
    inside = 0
    for _ in range(1_000):
        found = serving.intervals.quantile_estimate(draws.exponential(size=2_000), 0.99)
        inside += found.low <= true <= found.high
    assert 0.94 <= inside / 1_000 <= 0.99


def test_of_few_requests_a_p99_has_no_upper_end(serving: Any) -> None:
    found = serving.intervals.quantile_estimate(np.arange(100.0), 0.99)
    assert found.value == 98.0
    assert found.low < 98.0
    assert found.high == np.inf
    with pytest.raises(ValueError, match="a quantile of nothing"):
        serving.intervals.quantile_estimate(np.zeros(0), 0.99)


def test_the_ratio_of_two_quantiles_of_the_same_arrivals_is_known_better_than_either(serving: Any) -> None:
    one = np.random.default_rng(0).exponential(size=5_000)
    found = serving.intervals.ratio_estimate(1.5 * one, one, 0.99)
    assert found == pytest.approx((1.5, 1.5, 1.5, 5_000))
    lost = np.where(np.arange(5_000) % 50 == 0, np.inf, one)
    assert serving.intervals.ratio_estimate(lost, one, 0.99).value == np.inf


def test_of_a_level_that_wanders_the_slopes_interval_includes_zero(serving: Any) -> None:
    draws, inside = np.random.default_rng(0), 0
    for _ in range(400):
        level = np.zeros(500)
        for place in range(1, 500):
            level[place] = 0.9 * level[place - 1] + draws.normal()
        found = serving.intervals.slope_estimate(np.arange(500.0), level)
        inside += found.low <= 0 <= found.high
    assert inside / 400 >= 0.93


@pytest.mark.parametrize("steps", [0, 1])
def test_memory_that_stays_or_steps_up_once_is_no_slope(serving: Any, steps: int) -> None:
    memory = 100.0 + 2.0 * steps * (np.arange(500) > 290)
    found = serving.intervals.slope_estimate(np.arange(500.0), memory)
    assert found.low <= 0 <= found.high


def test_a_leak_beneath_the_noise_of_each_moment_is_a_slope(serving: Any) -> None:
    noise = np.random.default_rng(0).normal(0, 1.0, size=600)
    found = serving.intervals.slope_estimate(np.arange(600.0), 100 + 0.02 * np.arange(600) + noise)
    assert 0 < found.low < 0.02 < found.high
    assert found.value == pytest.approx(0.02, rel=0.1)


# The client


def always_at_once(number: int) -> float:
    return 0.0


@contextmanager
def answering(seconds_of: Callable[[int], float], answer: bytes = CLOSES) -> Iterator[tuple[str, int]]:
    """A server that takes one request after another, a connection each, and needs `seconds_of(number)` for it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for number in itertools.count():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                time.sleep(seconds_of(number))
                connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[:2]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_all_who_were_due_while_a_server_stalled_have_waited(serving: Any) -> None:
    due = np.arange(0.0, 1.0, 0.05)
    with answering(lambda number: 0.6 if number == 4 else 0.0) as address:
        latencies = serving.client.Client(address, [REQUEST]).open_loop(due).latencies()
    assert latencies[:4].max() < latencies[4]
    assert (latencies[4:16] >= 0.8 - due[4:16]).all()


def test_a_request_that_the_client_sends_too_late_counts_from_when_it_was_due(serving: Any) -> None:
    due = np.arange(0.0, 0.6, 0.05)
    with answering(always_at_once) as address:
        client = serving.client.Client(address, [REQUEST])
        client.at(0.11, lambda: time.sleep(0.4))
        outcomes = client.open_loop(due)
    late = outcomes.latencies()[3:10]
    assert (late >= 0.51 - due[3:10]).all()
    assert ((outcomes.done - outcomes.sent)[3:10] < late).all()


def test_what_gets_no_answer_makes_the_quantile_infinite_rather_than_better(serving: Any) -> None:
    with answering(always_at_once, answer=b"") as address:
        outcomes = serving.client.Client(address, [REQUEST]).open_loop(np.array([0.0, 0.01]), 1.0)
    assert outcomes.counts() == {"0": 2}
    assert serving.intervals.quantile(outcomes.latencies(), 0.99) == np.inf


def test_nobody_who_listens_is_counted_as_such(serving: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()[:2]
    outcomes = serving.client.Client(address, [b"x"]).open_loop(np.array([0.0, 0.01]), 1.0)
    assert not (outcomes.status == 200).any()
    assert len(outcomes.status) == 2


def test_a_closed_loop_keeps_so_many_in_flight_and_counts_what_came_in_time(serving: Any) -> None:
    with answering(lambda _: 0.01) as address:
        outcomes = serving.client.Client(address, [REQUEST]).closed_loop(1, 0.5)
    assert outcomes.counts() == {"200": len(outcomes.due)}
    assert outcomes.rate(0.0, 100.0) == pytest.approx(len(outcomes.due) / 100)
    assert outcomes.rate(0.0, 0.1) <= 1 / 0.01
    assert outcomes.rate(0.0, 100.0, within=0.001) == 0.0
    assert (outcomes.sent[1:] >= outcomes.done[:-1]).all()


def test_a_response_is_whole_with_its_body_and_says_whether_the_server_closes(serving: Any) -> None:
    whole = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno."
    assert serving.client.parsed(whole) == (503, True)
    assert serving.client.parsed(whole[:-1]) is None
    assert serving.client.parsed(whole[:20]) is None
    with pytest.raises(ValueError, match="a response without a length"):
        serving.client.parsed(b"HTTP/1.1 200 OK\r\n\r\n")


def test_arrivals_are_those_of_their_rate_and_the_same_for_the_same_seed(serving: Any) -> None:
    one, same = serving.client.poisson(100, 50, seed=3), serving.client.poisson(100, 50, seed=3)
    assert (one == same).all()
    assert len(one) == pytest.approx(5_000, rel=0.05)
    assert np.diff(one).std() == pytest.approx(0.01, rel=0.05)


# What counts


def test_a_request_is_in_flight_when_it_was_sent_and_not_answered_at_the_signal(serving: Any) -> None:
    nan = np.nan
    due = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.45])
    sent, done = np.array([0.1, 0.2, 0.3, 0.4, 0.6, nan]), np.array([0.15, 0.7, 0.8, nan, nan, nan])
    outcomes = serving.client.Outcomes(due, sent, done, np.array([200, 200, 503, 0, 0, -1]), 0.0)
    found = serving.endurance.in_flight(outcomes, 0.5)
    assert found == {"in_flight": 3, "answered": 1, "refused": 1, "failed": 1, "later": 1}


def test_a_form_has_the_photo_as_one_file_and_its_true_length(serving: Any) -> None:
    raw = serving.photos.request(b"\xff\xd8photo", "/p", ("127.0.0.1", 80), multipart=False)
    assert raw.endswith(b"Content-Length: 7\r\n\r\n\xff\xd8photo")
    head, _, body = serving.photos.request(b"\xff\xd8", "/p", ("127.0.0.1", 80), multipart=True).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert body.count(b'name="photo"') == 1


def test_lines_are_json_that_others_read_too(serving: Any) -> None:
    assert json.dumps(serving.session.finite({"p99": (1.0, np.inf)}), allow_nan=False) == '{"p99": [1.0, null]}'


def test_the_newest_line_of_everything_is_in_the_table(serving: Any) -> None:
    line = {"part": "memory", "model": "small", "server": "plusx", "requests": 100_000, "seconds": 200.0,
            "weight": 150.0, "slope": [0.001, -0.001, 0.002, 480], "growth": 1.0, "passed": True}  # fmt: skip
    leaking = line | {"server": "leaking", "slope": [0.2, 0.1, 0.3, 480], "growth": 35.0, "passed": False}
    rows = serving.tables.table([line | {"growth": 99.0}, line, leaking])
    assert rows[4:] == [
        "| small | plusx | 100,000 | 200 | 150 MB | +1.0, -1.0, +2.0 | +1.0 MB (wanted at most 16) | holds |",
        "| small | leaking | 100,000 | 200 | 150 MB | +200.0, +100.0, +300.0 | +35.0 MB (wanted at most 16) | leaks |",
    ]


def test_a_slow_reader_is_held_until_the_server_closes_though_its_end_sees_nothing(serving: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as reader:
            connection, (_, client) = listener.accept()
            assert client in serving.slow.held_by(port)
            connection.sendall(b"unread")
            connection.close()
            assert client not in serving.slow.held_by(port)
            assert reader.recv(1) == b"u"


def of(part: str, **figures: Any) -> dict[str, Any]:
    return {"part": part, "model": "resnet18", "server": "plusx", **figures}


LINES = {
    "peak": of("peak", rate=50.0, rounds=[49.0, 50.0, 51.0], concurrency=4, client=60.0, cpu=[38.0],
               bare={"alone": [50.0, 50.0, 50.0], "beside": [55.0, 55.0, 55.0]}, batches={"alone": 1, "beside": 2},
               bare_cpu={"alone": [37.0], "beside": [36.0]}),
    "latency": of("latency", load="30%", rate=15.0, median=19.0, p99=[40.0, 38.0, None, 1800],
                  counts={"200": 1799, "0": 1}, ideal=[39.0, 37.0, 41.0, 1800], ratio=[1.03, 0.9, 1.1, 1800],
                  best_batch=1, best_ideal=38.0,
                  best_ratio=[1.05, 0.9, 1.2, 1800]),
    "overload": of("overload", factor=10, peaks=[50.0, 48.0], goodput=0.95, refusal=None,
                   answer=[1300.0, 1200.0, 1400.0, 900], weight=200.0, growth=3.0,
                   counts={"200": 900, "503": 8000, "-1": 2}),
    "slow": of("slow", without=[40.0, 39.0, 41.0, 2000], beside=[44.0, 43.0, 45.0, 2000], ratio=[1.1, 1.0, 1.2, 2000],
               cores={"without": [0.6], "beside": [0.7]},
               became=[{"kinds": {kind: {"closed": 3, "longest": 9.0, "oldest": 7.0}
                                  for kind in ("idle", "headers", "body", "reader")}}]),
    "sigterm": of("sigterm", n=100, in_flight=10_000, answered=9_999, refused=1, failed=0, codes=[0],
                  seconds_median=2.0, seconds_longest=2.5),
}  # fmt: skip
ROWS = {
    "peak": "| resnet18 | plusx | 50.0 (49.0 to 51.0) | 4 | 50.0, batches of 1 | 1.00 (0.98 to 1.02) | "
    "55.0, batches of 2 | 0.91 (0.89 to 0.93) | 38.0, 37.0, 36.0 | 3 | 60 |",
    "latency": "| resnet18 | plusx | 30% | 15.0 | 19.0 ms | 40.0 ms (38.0 to none) | 39.0 ms (37.0 to 41.0) | "
    "1.03 (0.90 to 1.10) | 38.0 ms, at most 1 at once | 1.05 (0.90 to 1.20) | 1,800 | 1 × no answer |",
    "overload": "| resnet18 | plusx | 10 | 50.0, 48.0 | 95% | none | 1300.0 ms (1200.0 to 1400.0) | 200 MB + 3 | "
    "900 × 200, 8,000 × 503, 2 × not sent |",
    "slow": "| resnet18 | plusx | 40.0 ms (39.0 to 41.0) | 44.0 ms (43.0 to 45.0) | 1.10 (1.00 to 1.20) | 0.60, 0.70 | "
    "2,000 | 9.0 s (3 closed; wanted 10 s) | 9.0 s (3 closed; wanted 10 s) | 9.0 s (3 closed; wanted 30 s) | "
    "9.0 s (3 closed; wanted 30 s) |",
    "sigterm": "| resnet18 | plusx | 100 | 10,000 | 9,999 | 1 | 0 | 0 | 2.00 | 2.50 |",
}


@pytest.mark.parametrize("part", LINES)
def test_the_table_of_every_part_says_what_its_line_holds(serving: Any, part: str) -> None:
    head, rule, row = serving.tables.table([LINES[part]])[2:]
    assert row == ROWS[part]
    assert head.count("|") == rule.count("|") == row.count("|")
