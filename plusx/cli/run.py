"""From an argument list to an exit code: every error becomes one sentence, never a stack trace."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from cyclopts import App, CycloptsError

from plusx.cli.plain import Printable, lines
from plusx.errors import Error
from plusx.errors.disk import FULL
from plusx.errors.processes import one_process_only, told_by_first
from plusx.launch import launched
from plusx.version import __version__

STARTED = time.monotonic()  # budgets count from here: what Python needed before is milliseconds

TRACE = "PLUSX_TRACE"  # environment variable: print the stack trace of a fault of plusx itself

FIRST_SPEAKS = 2.0  # seconds

STOPPED = 130  # the exit code after Ctrl-C where there is nothing to resume

TOGETHER = ("train", "evaluate")  # what several processes do

VERBS = {
    "check": "Look at a folder of photos: what is in it, and what is wrong with it.",
    "train": "Train a residual network on a folder of labelled photos.",
    "evaluate": "Test a model on photos it never saw.",
    "compare": "Put runs beside each other and say which differences are more than chance.",
    "predict": "Answer for photos, folders or archives.",
    "explain": "Show where in a photo the evidence for an answer lies.",
    "export": "Write a model as one ONNX file that gives the same answers.",
    "serve": "Answer over HTTP, with a page to drop photos on.",
    "watch": "See a run's curves live in the browser, while it trains or afterwards.",
    "lab": 'See why the "+ x" matters: experiments on plain and residual networks.',
    "shard": "Write photos as tar shards with an index, for data that is large or far away.",
    "models": "List the networks, or print the layers of one.",
    "bench": "Measure how fast this machine trains, and where the time goes.",
    "cache": "Show or clear the cache of decoded photos and unpacked archives.",
    "demo": "Draw pictures, train on them, test and predict: everything, offline.",
    "download": "Fetch a public data set.",
}


def build() -> App:
    """The application with every verb registered by name; a verb's module is imported when it is used."""
    app = App(
        name="plusx",
        help="From a folder of labelled photos to a residual network: H(x) = F(x) + x.",
        version=__version__,
        result_action="return_value",
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
        error_formatter=lambda error: f"plusx: {error}",
    )
    for verb, summary in VERBS.items():
        app.command(f"plusx.cli.{verb}:{verb}", name=verb, help=summary)
    return app


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `plusx`: runs a verb and ends the process with its documented code."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _terminated)  # a run that can be resumed takes it over
    try:
        code = run(tokens)
        if code and not launched().first:
            time.sleep(FIRST_SPEAKS)  # torchrun ends all others as soon as one has failed, and the first says why
    except KeyboardInterrupt:  # while a sentence was written
        _leave(STOPPED)
    _leave(_flush() or code)


def run(tokens: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    if sys.platform == "win32":
        return _tell("runs on Linux and macOS; on Windows, use it inside WSL.", 2)
    _hush(tokens)
    try:
        _refuse_several(tokens)
        result = build()(list(tokens) or ["--help"], exit_on_error=False, print_error=False)
        return result if isinstance(result, int) else 0
    except CycloptsError as error:
        return _tell_once(f"{_plain(error)} `plusx {_verb(tokens)}--help` lists what it takes.", 2)
    except Error as error:
        return error.exit_code if error.told else _tell(error.message, error.exit_code)
    except KeyboardInterrupt as error:
        said = "Stopped; there is nothing to resume." if error.__context__ is None else "Stopped at once."
        return _tell_once(said, STOPPED)
    except BrokenPipeError:
        _silence()
        return 0
    except OSError as error:
        return _unwritten(error) if error.errno in FULL else _unexpected(error)
    except Exception as error:
        return _unexpected(error)


def _refuse_several(tokens: Sequence[str]) -> None:
    """Raise UsageError where torchrun has started several processes of a verb that is done by one."""
    launch, verb = launched(), _verb(tokens).strip()
    if launch.size > 1 and verb and verb not in TOGETHER and "--help" not in tokens:
        raise told_by_first(one_process_only(verb, launch.size), first=launch.first)


def _hush(tokens: Sequence[str]) -> None:
    """What rooms below say of themselves (where somebody waits) goes to stderr, unless nothing should."""
    quiet = {"-q", "--quiet"} & set(tokens) or not launched().first
    level = logging.ERROR if quiet else logging.WARNING
    logging.getLogger("plusx").setLevel(level)
    if logging.lastResort is not None:  # the handler of a program that sets up none
        logging.lastResort.setFormatter(Printable())


def _leave(code: int) -> NoReturn:
    """End the process: at once where PyTorch is loaded, or after Ctrl-C.

    By now every file is closed, and about one in a hundred teardowns of an interrupted run ended in abort() with
    a C++ "terminate called without an active exception", which would turn the exit code 75 into a crash. And Python
    ends itself by SIGINT where one came within `exec`, as while a dataclass is made, though it was caught.
    """
    if "torch" in sys.modules or code == STOPPED:
        os._exit(code)
    sys.exit(code)


def _terminated(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(number)


def _verb(tokens: Sequence[str]) -> str:
    return f"{tokens[0]} " if tokens and tokens[0] in VERBS else ""


def _plain(error: CycloptsError) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _tell(sentence: str, code: int) -> int:
    launch = launched()
    who = "" if launch.first else f"{launch}: "
    sys.stderr.write(f"plusx: {who}{lines(sentence)}\n")
    return code


def _tell_once(sentence: str, code: int) -> int:
    """What every process meets is told by the first."""
    return _tell(sentence, code) if launched().first else code


def _unexpected(error: Exception) -> int:
    """A fault of plusx itself: one sentence; the trace only for those who ask."""
    if os.environ.get(TRACE):
        traceback.print_exc()
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return _tell(f"met a fault of its own ({what}); run it again with {TRACE}=1 set and report what it prints.", 1)


def _flush() -> int:
    """Send what is waiting. 0, or 5 where the disk behind stdout is full; a reader that has left is no fault."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (BrokenPipeError, ValueError):
        _silence()
    except OSError as error:
        return _unwritten(error)
    return 0


def _unwritten(error: OSError) -> int:
    _silence()
    return _tell(f"Could not write the results: {error.strerror}; send them elsewhere.", 5)


def _silence() -> None:
    """Nothing more can be written to stdout, and Python must not complain about it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
