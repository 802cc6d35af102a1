"""When a service says that it is ready, and what the end of a decoding process under load costs: rows S11 and S12."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.images.hostile import WRONG, slow
from tests.serve.conftest import jpeg
from tests.serve.service import Service, running, starting, wait_for

REPLACED = "plusx_decoders_replaced_total"


def test_while_it_starts_it_lives_and_is_not_ready(onnx: Path) -> None:
    with starting(onnx, command=slow(4.0)) as service:
        for reply in (service.ask("GET", "/readyz"), service.photo(jpeg())):
            assert (reply.status, reply.json["code"]) == (503, "not-ready")
        assert service.ask("GET", "/healthz").status == 200
        wait_for(lambda: service.ask("GET", "/readyz").status == 200, 30)
        assert service.photo(jpeg()).status == 200


def test_a_service_told_to_stop_while_it_starts_ends_in_order(onnx: Path) -> None:
    with starting(onnx, command=slow(30.0)) as service:
        assert service.stop() == 0


def test_a_service_whose_self_test_fails_is_never_ready_and_says_why(onnx: Path) -> None:
    seen = set[int]()
    with starting(onnx, command=WRONG, lag_seconds=1.0) as service:
        while service.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                seen.add(service.ask("GET", "/readyz").status)
            time.sleep(0.02)
        assert service.process.wait() == 4
        assert seen == {503}
        assert service.process.stdout is not None
        assert service.process.stderr is not None
        assert "serving" not in service.process.stdout.read()
        told = service.process.stderr.read()
    assert "its decoding processes give other pixels than this one" in told
    assert told.count("\n") == 1


def sent_by_sixteen(service: Service, kill: Callable[[], None], times: int = 3) -> list[tuple[int, str]]:
    """What went wrong with photos that 16 clients sent while `kill` ended decoding processes: status and code."""
    photos = [jpeg(i, (900, 700)) for i in range(7)]
    with ThreadPoolExecutor(16) as threads:
        sent = [threads.submit(service.photo, photos[i % 7]) for i in range(600)]
        for time_ in range(times):
            wait_for(lambda least=50 + 180 * time_: sum(future.done() for future in sent) > least, 60)  # type: ignore[misc]
            kill()
        replies = [future.result(60) for future in sent]
    return [(reply.status, reply.json["code"]) for reply in replies if reply.status != 200]


def replaced(service: Service, pid: int) -> None:
    """Kill one of its processes, and wait until the service has another one."""
    before = service.metric(REPLACED)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: service.metric(REPLACED) > before, 5)


def test_a_process_killed_under_load_costs_the_photo_in_its_hand(onnx: Path) -> None:
    with running(onnx, workers=2) as service:
        lost = sent_by_sixteen(service, lambda: replaced(service, min(service.children())))  # the one that is older
        assert lost == [(422, "worker-died")] * len(lost)
        assert len(lost) <= 3
        wait_for(lambda: len(service.children()) == 2, 5)
        assert service.photo(jpeg()).status == 200


def test_a_process_killed_while_it_starts_costs_nothing_where_others_work(onnx: Path) -> None:
    def killed_twice() -> None:
        old = set(service.children())
        replaced(service, min(old))
        wait_for(lambda: set(service.children()) - old)
        replaced(service, (set(service.children()) - old).pop())  # which has not said its first word yet

    with running(onnx, workers=2) as service:
        lost = sent_by_sixteen(service, killed_twice, times=2)
        assert lost == [(422, "worker-died")] * len(lost)
        assert len(lost) <= 2
        wait_for(lambda: len(service.children()) == 2, 10)
