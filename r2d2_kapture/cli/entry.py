"""The entry point of every command: Ctrl-C is one line from here on, during imports
too.

setup.cfg and bin/ start the command of a module of cli by its name here:
``r2d2_kapture.cli.entry:extract``.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
from collections.abc import Callable
from types import FrameType

EXIT_INTERRUPTED = 130
INTERRUPTED = "interrupted; run the same command again to resume"


def __getattr__(name: str) -> Callable[[], int]:
    """The entry point of a command, by the name of its module."""
    if name.startswith("_"):
        raise AttributeError(name)
    return functools.partial(start, name)


def start(name: str) -> int:
    """Import a command and run it; return its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # unless it is ignored, as in background jobs of shell scripts
        signal.signal(signal.SIGINT, _interrupt)
    try:
        code: int = importlib.import_module(f"r2d2_kapture.cli.{name}").main()
    except KeyboardInterrupt:
        os.write(2, f"{INTERRUPTED}\n".encode())
        code = EXIT_INTERRUPTED
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            # the work is done: a process that exits slowly may be killed
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise, except during an import, which may swallow exceptions."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, f"{INTERRUPTED}\n".encode())
            os._exit(EXIT_INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt
