"""One writer at a time: a lock that the system releases however the process ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r2d2_kapture.errors import OutputError

LOCK_NAME = ".lock"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Make a folder and hold it for this process; its lock file stays behind, empty.

    Raises:
        OutputError: another process holds it, or the folder cannot be written.
    """
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot write: {error.strerror}; make it writable, or choose "
            "another place"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"{folder}: another run is writing here; wait for it, or choose "
                "another place"
            ) from error
        yield
