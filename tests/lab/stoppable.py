"""Trains two networks as the setup on its command line says; the test that starts it stops it."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

from plusx.lab.events import Stepped
from plusx.lab.job import Setup
from plusx.lab.laboratory import Lab, Scope
from plusx.lab.network import Network
from plusx.lab.photos import gather


def raise_interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def show(event: object) -> None:
    if isinstance(event, Stepped):
        print(f"{event.network} step {event.step}", flush=True)


def main() -> int:
    signal.signal(signal.SIGTERM, raise_interrupt)
    told = json.loads(sys.argv[1])
    setup = Setup.from_json(told["setup"])
    photos = gather(setup.data, setup.config, setup.amount, lambda _: None)
    lab = Lab("degradation", Path(told["out"]), setup, Scope(False, (0,), told["steps"], 2), photos, show)
    try:
        lab.trained([Network("plain8"), Network("resnet8")])
    except KeyboardInterrupt:
        return 75
    return 0


if __name__ == "__main__":
    sys.exit(main())
