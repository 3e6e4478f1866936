"""One writer at a time: a lock that the system releases however the process ends."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.outputs.atomic import output_error, remove_abandoned

LOCK_NAME = ".lock"


@contextmanager
def exclusive(folder: Path, named: Path | None = None) -> Iterator[None]:
    """Make a folder and lock it for this process; the lock file stays behind.

    What killed runs left half written in the folder is removed.

    Args:
        folder: to lock.
        named: what messages name instead.

    Raises:
        OutputError: another process has locked it, or the folder cannot be written.
    """
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise output_error(folder, error) from error
    with file:
        _lock(file, fcntl.LOCK_EX, named or folder)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        remove_abandoned(folder)
        try:
            yield
        finally:
            file.truncate(0)


def refuse_locked(folder: Path, named: Path | None = None) -> None:
    """Refuse a folder that another process has locked.

    Args:
        folder: in question.
        named: what messages name instead.

    Raises:
        OutputError: naming it.
    """
    try:
        file = (folder / LOCK_NAME).open("r", encoding="utf-8")
    except OSError:
        return
    with file:
        _lock(file, fcntl.LOCK_SH, named or folder)


def _lock(file: TextIO, kind: int, named: Path) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        raise OutputError(
            f"{named}: another run is writing to it ({file.read(80) or error}); wait "
            "for it, or choose another place"
        ) from error
