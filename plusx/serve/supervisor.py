"""What systemd wants to hear of a service of Type=notify (sd_notify(3)): that it is ready."""

from __future__ import annotations

import contextlib
import os
import socket

VARIABLE = "NOTIFY_SOCKET"  # of the environment


def tell_supervisor(state: str) -> None:
    """Send `state` to whoever started this process, where that one listens."""
    address = os.environ.get(VARIABLE, "")
    if address[:1] not in ("/", "@"):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.sendto(state.encode(), address.replace("@", "\0", 1))
