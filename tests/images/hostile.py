"""A decoding process that does what a hostile photo could make one do."""

from __future__ import annotations

import sys
from pathlib import Path

# A worker that obeys its photos: what a hostile file could make a decoder do, done in the open.
_SOURCE = """
import sys; sys.path.insert(0, sys.argv[1])
import os, signal, time
from plusx.images import worker
from plusx.images.preprocess import Preprocess
def obey(data):
    if data.startswith(b"DIE"): os.kill(os.getpid(), signal.SIGKILL)
    if data.startswith(b"SPIN"):
        while True: pass
    if data.startswith(b"SLEEP"): time.sleep(60)
    if data.startswith(b"RAW"):
        os.write(answers[0], data[3:])
        time.sleep(60)
    if data.startswith(b"EAT"): bytes(8 << 30)
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
