"""From a model's file to a service that answers and ends in order, and the same for other applications."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from plusx.errors import Error
from plusx.errors.serve import Refused
from plusx.serve.address import Address
from plusx.serve.app import service
from plusx.serve.desk import Desk
from plusx.serve.guard import App, Door, Guard, Scope
from plusx.serve.limits import Limits
from plusx.serve.page import page
from plusx.serve.run import address_of, listening, run
from plusx.serve.served import Served


def serve_model(
    model: Path,
    address: Address,
    limits: Limits,
    *,
    precision: str = "auto",
    on_ready: Callable[[str, str], None] | None = None,
) -> int:
    """Serve a run folder, model file or exported file until SIGTERM; the exit code: 0, or 130 after a second signal.

    `on_ready` hears the model's name and the service's URL once the self-test has passed. Raises ModelError,
    UsageError, RunError where it cannot listen.
    """
    with listening(address.host, address.port) as listener:
        served = Served.load(model, precision)
        desk, failed = Desk(served, limits), list[Error]()

        def failure(error: Error) -> None:
            failed.append(error)
            signal.raise_signal(signal.SIGTERM)

        def ready() -> None:
            if on_ready is not None:
                on_ready(served.name, address_of(listener))

        app = guarded_desk(desk, address, ready, failure)
        code = run(app, listener, limits, desk.drain)
    if failed:
        raise failed[0]
    return code


def guarded_desk(
    desk: Desk, address: Address, on_ready: Callable[[], None], on_failure: Callable[[Error], None]
) -> App:
    """The whole application, guard and all, around a desk."""

    def room(scope: Scope) -> Refused | None:
        return desk.refusal() if scope["method"] == "POST" else None

    paths = frozenset({"/", "/v1/predict", "/v1/explain", "/v1/model", "/healthz", "/readyz", "/metrics"})

    def counted(path: str, status: int) -> None:
        desk.gauges.requests.labels(path if path in paths else "other", str(status)).inc()

    return Guard(service(desk, page(), on_ready, on_failure), _door(address), room, counted)


def serve_app(app: App, address: Address, on_ready: Callable[[str], None]) -> int:
    """Serve another application behind the same guard until SIGTERM; the exit code. `on_ready` hears its URL.

    Raises RunError where it cannot listen.
    """
    with listening(address.host, address.port) as listener:
        on_ready(address_of(listener))
        return run(Guard(app, _door(address)), listener, Limits())


def _door(address: Address) -> Door:
    return Door.of(address.host, address.allowed, address.token)
