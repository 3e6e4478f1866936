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


@dataclass(frozen=True, kw_only=True)
class JsonLog:
    """A log that is open for one writer.

    Attributes:
        path: of the log.
        file: it, at its end.
    """

    path: Path
    file: BinaryIO

    def append(self, values: dict[str, Any], *, to_disk: bool = False) -> None:
        """Add a line, which stays even if the process is killed after it.

        Args:
            values: of the line.
            to_disk: wait until it also outlives the machine.

        Raises:
            OutputError: the file system refused.
        """
        try:
            self.file.write(json_line(values))
            self.file.flush()
            if to_disk:
                os.fsync(self.file.fileno())
        except OSError as error:
            raise output_error(self.path, error) from error


def json_line(values: dict[str, Any]) -> bytes:
    """A line of a log; names that are not UTF-8 keep their bytes."""
    text = json.dumps(values, ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape") + b"\n"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The objects of a log, none where it is missing; broken lines are left out."""
    if not path.is_file():
        return []
    # the last is empty, or not whole
    lines = path.read_bytes().split(b"\n")[:-1]
    return [values for line in lines if (values := _parse(line)) is not None]


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
    file.seek(0)
    content = file.read()
    if content and not content.endswith(b"\n"):
        file.truncate(content.rfind(b"\n") + 1)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line.decode("utf-8", "surrogateescape"))
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
