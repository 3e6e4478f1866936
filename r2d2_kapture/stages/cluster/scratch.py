"""The folder of a Ray that ends with its run."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

LONGEST_FOLDER = 40
"""Of scratch folders: Ray's sockets, which it names at length, lie below."""
REMOVE_SECONDS = 3.0


def make_scratch() -> Path:
    """A new folder in that of temporary files, or in /tmp where its name is long."""
    folder = tempfile.gettempdir()
    short = len(folder) <= LONGEST_FOLDER
    return Path(tempfile.mkdtemp(prefix="r2d2-ray-", dir=folder if short else "/tmp"))


def remove_scratch(folder: Path) -> None:
    """Remove a folder, in which workers that end may still write."""
    end = time.monotonic() + REMOVE_SECONDS
    while folder.exists() and time.monotonic() < end:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)
