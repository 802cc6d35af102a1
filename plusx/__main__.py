"""The `plusx` command: also `python -m plusx`, for `torchrun -m plusx` and where no script is on the path.

What is imported before `main` is what Python has loaded anyway: Ctrl-C while the rest loads ends with a sentence, too.
"""

import os
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Load the command line and run it."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # under `nohup` it may be ignored
    if heard:
        signal.signal(signal.SIGINT, _stopped)
    from plusx.cli import main as run

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


def _stopped(*_: object) -> None:
    os.write(2, b"\nplusx: Stopped before it began.\n")
    os._exit(130)


if __name__ == "__main__":
    main()
