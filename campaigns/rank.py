"""One process of `campaigns/ranks.py` that can be made to sleep, or is trained without the watch over the others.

SIGUSR1 makes the main thread sleep for a minute, as a machine that has far more to do than the others; with
PLUSX_CAMPAIGN_UNWATCHED set, nobody is ever given up.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from plusx.__main__ import main

UNWATCHED = "PLUSX_CAMPAIGN_UNWATCHED"
SLEEP = 60.0


def sleep(*_: object) -> None:
    """Be alive, and do nothing."""
    time.sleep(SLEEP)


def watch_nobody() -> None:
    """A negative control: no verdict is ever found."""
    from plusx.training import heartbeat

    heartbeat.judged = lambda *_: None


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, sleep)
    if os.environ.pop(UNWATCHED, None):
        watch_nobody()
    main()
