"""What folders hold, to be compared."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path


def files_below(
    folder: Path, leave_out: Container[str] = (), *, suffixes: Container[str] = ()
) -> dict[str, bytes]:
    """The content of the files in a folder and below it, by their places in it.

    Args:
        folder: to look into.
        leave_out: names of files that do not count.
        suffixes: of the files that count; all where none is given.
    """
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in leave_out
        and (not suffixes or path.suffix in suffixes)
    }
