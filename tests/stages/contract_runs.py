"""Commands in processes of their own that are killed, held or cut off at a write.

A write is whatever changes files below a folder: files opened to be written, flushed to
the disk, cut, moved or removed, folders made or removed.
"""

from __future__ import annotations

import errno
import importlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import pytest
import torch
from PIL import _plugins as PLUGINS

from r2d2_kapture.io import progress
from tests.commands import command_modules
from tests.scenes.figures import save_a_pixel

FORKS = multiprocessing.get_context("forkserver")
PRELOADED = (
    "pytest torch torch._dynamo torch.utils.tensorboard pycolmap kapture".split()
)
PRELOADED += "h5py scipy.spatial scipy.io jsonargparse docstring_parser attrs".split()
PRELOADED += "jinja2 plotly.offline matplotlib.figure matplotlib.font_manager".split()
PRELOADED += [f"PIL.{name}" for name in PLUGINS]
PRELOADED += [*command_modules().values(), "r2d2_kapture.extractors.r2d2"]
PRELOADED += [
    f"r2d2_kapture.stages.{name}"
    for name in "benchmark colmap export fetch pipeline report train".split()
]
FORKS.set_forkserver_preload([*PRELOADED, "tests.stages.contract_runs"])

Act = Literal["kill", "interrupt", "hold", "full"]
ACTS = {
    "kill": signal.SIGKILL,
    "interrupt": signal.SIGINT,
    "hold": signal.SIGSTOP,
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link")
"""Audit events of Python, which come before what they announce."""
GROWS = ("open", "os.mkdir", "os.fsync")


@dataclass(frozen=True, kw_only=True)
class Stop:
    """What happens to a run at a write, counted from 1.

    Attributes:
        act: the process is killed, or interrupted as by Ctrl-C; or held until it is
            let go on; or the disk is full
            from here on.
        at: number of the write.
    """

    act: Act
    at: int


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended: the exit code, lines of errors, and how often it wrote."""

    code: int | None
    errors: list[str]
    writes: int


class Running:
    """A command in a process of its own.

    Args:
        command: name of its module in cli.
        arguments: of the command line.
        folder: changes below its ``output`` count as writes.
        stop: what happens at a write.
    """

    def __init__(
        self, command: str, arguments: Sequence[str], folder: Path, stop: Stop | None
    ) -> None:
        self._errors = folder / f"errors {uuid4().hex}.txt"
        self._writes = FORKS.RawValue("i", 0)
        self._process = FORKS.Process(
            target=_run,
            args=(command, list(arguments), folder, self._errors, stop, self._writes),
        )
        self._process.start()

    def wait_until_held(self) -> None:
        """Wait until all threads of the process stand still."""
        status = Path(f"/proc/{self._process.pid}/stat")
        while status.read_text("utf-8").rpartition(")")[2].split()[0] != "T":
            assert self._process.exitcode is None, "it ended before it could be held"
            time.sleep(0.002)

    def end(self) -> Ended:
        """Let it go on, and wait for its end."""
        if self._process.is_alive():
            os.kill(self._process.pid or 0, signal.SIGCONT)
        self._process.join(timeout=120)
        return Ended(
            code=self._process.exitcode,
            errors=self._errors.read_text("utf-8").splitlines(),
            writes=self._writes.value,
        )


def _run(
    command: str,
    arguments: list[str],
    folder: Path,
    errors: Path,
    stop: Stop | None,
    writes: Any,
) -> None:
    for path, stream in ((os.devnull, 1), (str(errors), 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    torch.set_num_threads(1)
    forked = multiprocessing.get_context("fork")
    # its own processes need not import anything either; their writes do not count
    setattr(multiprocessing, "get_context", lambda method: forked)
    # lines of progress come where a machine is slow, and are no errors
    setattr(progress, "FIRST_LINE_SECONDS", threading.TIMEOUT_MAX)
    main = importlib.import_module(f"r2d2_kapture.cli.{command}").main
    if command == "pipeline":  # the commands of its stages draw the same
        save_a_pixel(pytest.MonkeyPatch())

    def stopped(number: int, event: str) -> None:
        writes.value = number
        if stop is None or number < stop.at:
            return
        if stop.act == "full" and event in GROWS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if stop.act != "full" and number == stop.at:
            os.kill(os.getpid(), ACTS[stop.act])

    _watch(str(folder / "output"), stopped)
    sys.exit(main(arguments))


def _watch(folder: str, stopped: Callable[[int, str], None]) -> None:
    """Report each write below a folder, before it happens."""
    numbers = itertools.count(1)
    flush, process = os.fsync, os.getpid()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if os.getpid() != process:
            return
        if event == "open":
            path, _, flags = arguments
            if not flags & WRITING:
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        # a number stands for a file or folder that is open
        inside = event == "os.truncate" and isinstance(path, int)
        inside |= event in ("os.remove", "os.rmdir") and arguments[-1] >= 0
        if inside or (not isinstance(path, int) and folder in os.fsdecode(path)):
            stopped(next(numbers), event)

    def fsync(file: Any) -> None:
        if os.getpid() == process:
            stopped(next(numbers), "os.fsync")
        flush(file)

    sys.addaudithook(hook)
    os.fsync = fsync  # which has no event
