"""Files written atomically: next to their place, then moved."""

from __future__ import annotations

import errno
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from r2d2_kapture.errors import OutputError

TEMPORARY = re.compile(r"\..*\.(\d{1,9})-[0-9a-f]{8}(\.[^.]*)?")
"""Names of what is written here before it is moved into place."""
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary file to write, which becomes ``path`` if the block succeeds.

    The temporary is a hidden file of the same folder and suffix, so that the move is
    one rename and writers that append suffixes leave its name alone. It is removed
    when the block fails or is interrupted; a file already at ``path`` then stays as
    it was. Folders on the way to ``path`` are made.

    Raises:
        OutputError: the file system refused; any other exception of the block passes.
    """
    temporary = path.with_name(
        # cut, because the name of an image may be as long as a file name can be
        f".{path.stem[:40]}.{os.getpid()}-{uuid.uuid4().hex[:8]}{path.suffix}"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _flush_to_disk(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise output_error(path, error) from error


def is_temporary(path: Path) -> bool:
    """Whether a file is what a killed run left half written, by its name."""
    return TEMPORARY.fullmatch(path.name) is not None


def remove_abandoned(folder: Path) -> None:
    """Remove what killed runs left half written in a folder, but not below it."""
    with suppress(OSError):
        for name in os.listdir(folder):
            found = TEMPORARY.fullmatch(name)
            if found is not None and not _runs(int(found[1])):
                (folder / name).unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # only looks
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def output_error(path: Path, error: OSError) -> OutputError:
    """Say in one line that a path cannot be written, why, and the way out."""
    reason = str(error.strerror or error).partition("\n")[0]
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        file = next((p for p in (path, *path.parents) if p.is_file()), path)
        return OutputError(
            f"{path}: cannot write: {file} is a file, expected a folder; choose "
            "another place"
        )
    way_out = (
        "free space and run again: finished work is kept"
        if error.errno in FULL
        else "make it writable, or choose another place"
    )
    return OutputError(f"{path}: cannot write: {reason}; {way_out}")


def remove_file(path: Path) -> None:
    """Remove a file that may be there.

    Raises:
        OutputError: the file system refused.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write a whole file at once; one that has this content stays as it is.

    Raises:
        OutputError: the file system refused.
    """
    try:
        if path.stat().st_size == len(data) and path.read_bytes() == data:
            return
    except OSError:
        pass
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text_atomic(path: Path, text: str) -> None:
    """Write a whole UTF-8 text at once, line ends as they are.

    Bytes of file names that are not UTF-8 are written as escapes.

    Raises:
        OutputError: the file system refused.
    """
    write_bytes_atomic(path, text.encode("utf-8", "backslashreplace"))


def write_json_atomic(path: Path, obj: Any) -> None:
    """Write plain values as UTF-8 JSON, indented by 2, ending in a new line.

    Raises:
        OutputError: the file system refused.
        ValueError: a number is infinite or NaN, which JSON does not have.
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomic(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file; empty where it is missing, broken or another value."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _flush_to_disk(path: Path) -> None:
    """Wait until the content is on the disk: a rename may get there before it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
