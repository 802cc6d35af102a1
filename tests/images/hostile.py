"""A decoding process that does what a hostile photo could make one do."""

from __future__ import annotations

import sys
from pathlib import Path

# A worker that obeys its photos: what a hostile file could make a decoder do, done in the open.
_SOURCE = """
import sys; sys.path.insert(0, sys.argv[1])
import ctypes, os, signal, time
from plusx.images import worker
from plusx.images.preprocess import Preprocess
def obey(data):
    if data.startswith(b"DIE"): os.kill(os.getpid(), signal.SIGKILL)
    if data.startswith(b"SEGV"): ctypes.string_at(0)
    if data.startswith(b"SPIN"):
        while True: pass
    if data.startswith(b"SLEEP"): time.sleep(60)
    if data.startswith(b"RAW"):
        os.write(answers[0], data[3:])
        time.sleep(60)
    if data.startswith(b"EAT"): bytes(5 << 30)
    if data.startswith(b"MODULES"):
        from plusx.errors.images import Undecodable
        raise Undecodable("unreadable", " ".join(sorted(sys.modules)))
real, decode = Preprocess.from_bytes, worker.decode
Preprocess.from_bytes = lambda self, data, *more: (obey(data), real(self, data, *more))[1]
worker.decode = lambda data, background, **named: (obey(data), decode(data, background, **named))[1]
answers = []
write = worker._write
def spying(descriptor, data):
    answers[:] = [descriptor]
    write(descriptor, data)
worker._write = spying
worker.main()
"""

HOSTILE = (sys.executable, "-P", "-c", _SOURCE, str(Path(__file__).parents[2]))

# Others obey nobody's photos: one that takes its time to start, and one whose pixels are wrong.
_BEFORE = "import sys, time; sys.path.insert(0, sys.argv[1])"
_SLOW = (
    _BEFORE
    + """
time.sleep(float(sys.argv[2]))
from plusx.images import worker
worker.main()
"""
)
_WRONG = (
    _BEFORE
    + """
from plusx.images import worker
from plusx.images.preprocess import Preprocess
real = Preprocess.from_bytes
Preprocess.from_bytes = lambda self, data, *more: real(self, data, *more) ^ 1
worker.main()
"""
)


def slow(seconds: float) -> tuple[str, ...]:
    """A decoding process that says its first word after `seconds`."""
    return (sys.executable, "-P", "-c", _SLOW, HOSTILE[-1], str(seconds))


# What a process is that lacks one of its protections, for tests that show what each of them is for.
_UNLIMITED = _SOURCE.replace("worker.main()", "worker._limit_memory = lambda size: None\nworker.main()")
_UNTIMED = _SOURCE.replace("worker.main()", "worker._GRACE = 10.0 ** 6\nworker.main()")
UNLIMITED, UNTIMED = ((*HOSTILE[:3], source, HOSTILE[-1]) for source in (_UNLIMITED, _UNTIMED))
WRONG = (sys.executable, "-P", "-c", _WRONG, HOSTILE[-1])
