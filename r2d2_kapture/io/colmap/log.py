"""COLMAP's log messages, which go to the terminal by default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pycolmap

FATAL = 3
"""Glog's level of messages that end the process."""


@contextmanager
def quiet_pycolmap() -> Iterator[None]:
    """Keep what COLMAP logs off the terminal; what it raises is raised."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = FATAL
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level


@contextmanager
def pycolmap_log(folder: Path) -> Iterator[None]:
    """Write what COLMAP logs to ``*.log*`` in a folder instead of the terminal."""
    log = pycolmap.logging
    before = log.minloglevel, log.alsologtostderr, log.stderrthreshold
    log.minloglevel, log.alsologtostderr, log.stderrthreshold = 0, False, FATAL
    log.set_log_destination(log.Level.INFO, str(folder / "colmap.log"))
    try:
        yield
    finally:
        log.set_log_destination(log.Level.INFO, "")
        log.minloglevel, log.alsologtostderr, log.stderrthreshold = before
