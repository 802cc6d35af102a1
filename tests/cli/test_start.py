"""The first moments of `plusx`, before the command line is loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import plusx

ROOT = Path(plusx.__file__).parents[1]

# Python itself is up, and `plusx.cli` takes its time to load
SLOW = """
import runpy, sys, time
from importlib.abc import MetaPathFinder

class Slow(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "plusx.cli":
            print("loading", flush=True)
            time.sleep(20)

sys.meta_path.insert(0, Slow())
sys.argv = ["plusx", "models"]
runpy.run_module("plusx", run_name="__main__")
"""


def test_ctrl_c_while_the_command_line_is_loading_is_one_sentence_and_130() -> None:
    """T17: this took 0.15 s of every command, and printed a trace."""
    command = [sys.executable, "-c", SLOW]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=20)[1]
    assert told == "\nplusx: Stopped before it began.\n"
    assert process.returncode == 130


def test_an_interrupt_that_is_ignored_stays_ignored_and_the_handler_is_put_back() -> None:
    for before in ("SIG_IGN", "default_int_handler"):
        script = (
            "import signal, sys, plusx.cli\n"
            f"signal.signal(signal.SIGINT, signal.{before})\n"
            "plusx.cli.main = lambda: print(signal.getsignal(signal.SIGINT) is signal." + before + ")\n"
            "from plusx.__main__ import main\nmain()\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
        assert (done.stdout, done.stderr) == ("True\n", "")


INTERRUPTED = """
import plusx.cli.run as run

def build():
    def verb(*_, **__):
        exec("raise KeyboardInterrupt")  # as where dataclasses are made
    return verb

run.build = build
run.main(["models"])
"""


def test_ctrl_c_while_a_class_is_made_ends_with_the_documented_code_and_not_by_a_signal() -> None:
    """Python remembers an interrupt that came within `exec`, though it was caught, and ends itself by SIGINT."""
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "plusx: Stopped; there is nothing to resume.\n")
