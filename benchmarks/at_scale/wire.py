"""Machines that are network namespaces of this one, and the wire between them: of a delay and a bandwidth asked for.

Linux's own way, tc with netem, is not in every kernel. So each namespace has a TUN device, and one process carries the
packets from device to device, each after its time: it leaves once those before it have left, at so many bytes a second,
and arrives a delay later. Needs root and /dev/net/tun.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import select
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
TUN = "/dev/net/tun"
MTU = 9000  # bytes; of a data centre's Ethernet
ADDRESS = "10.77.0.{}"
LARGEST = 1 << 16


def refused() -> str | None:
    """Why there can be no wire here, as a sentence; None where there can."""
    if sys.platform != "linux" or os.geteuid():
        return "Network namespaces need Linux and root: the check over a wire is left out."
    if not os.access(TUN, os.R_OK | os.W_OK):
        return f"{TUN} cannot be opened: the check over a wire is left out."
    try:
        made = subprocess.run(["ip", "netns", "list"], capture_output=True, check=False)
    except OSError:
        return "iproute2 is not installed: the check over a wire is left out."
    return (
        None
        if made.returncode == 0
        else "Network namespaces are not permitted here: the check over a wire is left out."
    )


class Wire:
    """`machines` namespaces, `spaces` by name, while the block lasts; a delay in seconds, bytes a second (0: any)."""

    def __init__(self, machines: int, delay: float, bandwidth: float) -> None:
        self.spaces = [f"plusx-{os.getpid()}-{i}" for i in range(machines)]
        self._asked = {"delay": delay, "bandwidth": bandwidth, "spaces": self.spaces}
        self._carrier: subprocess.Popen[str] | None = None

    def __enter__(self) -> Wire:
        try:
            for space in self.spaces:
                _ip("netns", "add", space)
                _ip("-n", space, "link", "set", "lo", "up")
            command = [sys.executable, str(Path(__file__)), json.dumps(self._asked)]
            self._carrier = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            if self._carrier.stdout is None or self._carrier.stdout.readline() != "ready\n":
                raise RuntimeError("the process that carries packets has ended")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        if self._carrier is not None:
            self._carrier.communicate()  # its end of input is its end
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], stderr=subprocess.DEVNULL, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@dataclass
class Carrier:
    """The packets on their way. `clock` is seconds; a packet that is due is sent by `due`."""

    delay: float
    bandwidth: float
    free: dict[int, float] = field(default_factory=dict)  # when each machine's line is free again
    underway: list[tuple[float, int, int, bytes]] = field(default_factory=list)
    count: int = 0

    def take(self, machine: int, packet: bytes, clock: float) -> None:
        """A packet that `machine` sends now. What is no IPv4 is dropped."""
        if packet[0] >> 4 != 4:
            return
        leaves = max(clock, self.free.get(machine, 0.0))
        if self.bandwidth:
            leaves += len(packet) / self.bandwidth
        self.free[machine] = leaves
        self.count += 1
        heapq.heappush(self.underway, (leaves + self.delay, self.count, packet[19] - 1, packet))

    def due(self, clock: float) -> list[tuple[int, bytes]]:
        """The packets that have arrived, each with its machine."""
        arrived = []
        while self.underway and self.underway[0][0] <= clock:
            _, _, machine, packet = heapq.heappop(self.underway)
            arrived.append((machine, packet))
        return arrived

    def wait(self, clock: float) -> float | None:
        """Seconds until the next one arrives; None where none is underway."""
        return max(0.0, self.underway[0][0] - clock) if self.underway else None


def _device(space: str, number: int) -> int:
    """A TUN device in `space`, configured, of which this process has the other end."""
    end = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    name = f"plusx{os.getpid() % 100000}-{number}"
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    _ip("link", "set", name, "netns", space, "name", "wire")
    _ip("-n", space, "addr", "add", f"{ADDRESS.format(number + 1)}/24", "dev", "wire")
    _ip("-n", space, "link", "set", "wire", "mtu", str(MTU), "txqueuelen", "10000", "up")
    return end


def carry(asked: dict[str, Any]) -> None:
    """Carry packets until the input ends."""
    ends = [_device(space, number) for number, space in enumerate(asked["spaces"])]
    carrier, stopped = Carrier(asked["delay"], asked["bandwidth"]), sys.stdin.fileno()
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([*ends, stopped], [], [], carrier.wait(time.perf_counter()))
        if stopped in readable:
            return
        for end in readable:
            _drain(carrier, ends.index(end), end)
        for machine, packet in carrier.due(time.perf_counter()):
            if 0 <= machine < len(ends):
                os.write(ends[machine], packet)


def _drain(carrier: Carrier, machine: int, end: int) -> None:
    for _ in range(64):
        try:
            carrier.take(machine, os.read(end, LARGEST), time.perf_counter())
        except BlockingIOError:
            return


if __name__ == "__main__":
    carry(json.loads(sys.argv[1]))
