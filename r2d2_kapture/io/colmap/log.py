"""COLMAP's log messages, which go to the terminal by default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pycolmap


@contextmanager
def quiet_pycolmap() -> Iterator[None]:
    """Keep what COLMAP logs off the terminal; what it raises is raised."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = 3
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level
