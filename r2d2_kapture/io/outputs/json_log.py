"""Files of one JSON object a line, appended as results come.

What a killed run leaves is whole but for the last line, which is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from r2d2_kapture.io.outputs.atomic import output_error

BLOCK_BYTES = 1 << 16
"""Of a log that are read at a time to find its last line."""


@dataclass(frozen=True, kw_only=True)
class JsonLog:
    """A log that is open for one writer.

    Attributes:
        path: of the log.
        file: it, at its end.
    """

    path: Path
    file: BinaryIO

    def append(self, values: dict[str, Any], *, to_disk: bool = False) -> int:
        """Add a line, which stays even if the process is killed after it.

        Args:
            values: of the line.
            to_disk: wait until it also outlives the machine.

        Returns:
            Where it begins, in bytes.

        Raises:
            OutputError: the file system refused.
        """
        try:
            size = self.file.write(json_line(values))
            self.file.flush()
            if to_disk:
                os.fsync(self.file.fileno())
            return self.file.tell() - size
        except OSError as error:
            raise output_error(self.path, error) from error


def json_line(values: dict[str, Any]) -> bytes:
    """A line of a log; names that are not UTF-8 keep their bytes."""
    text = json.dumps(values, ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape") + b"\n"


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a log, none where it is missing; broken lines are left out."""
    return (values for _, values in read_log_lines(path))


def read_log_lines(path: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a log, each with where its line begins, in bytes.

    Args:
        path: of the log.
        start: where to begin.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            # the last may not be whole
            values = _parse(line) if line.endswith(b"\n") else None
            if values is not None:
                yield start, values
            start += len(line)


@contextmanager
def open_log(path: Path) -> Iterator[JsonLog]:
    """Open a log to append to, and drop a last line that is not whole.

    Raises:
        OutputError: the file system refused.
    """
    try:
        file = path.open("ab+")
        _drop_broken_line(file)
    except OSError as error:
        raise output_error(path, error) from error
    with file:
        yield JsonLog(path=path, file=file)


def _drop_broken_line(file: BinaryIO) -> None:
    end = size = file.seek(0, os.SEEK_END)
    while end:
        start = max(end - BLOCK_BYTES, 0)
        file.seek(start)
        place = file.read(end - start).rfind(b"\n")
        end = start if place < 0 else start + place + 1
        if place >= 0:
            break
    if end < size:
        file.truncate(end)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line.decode("utf-8", "surrogateescape"))
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
