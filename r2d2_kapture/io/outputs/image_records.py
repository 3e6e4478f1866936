"""What image files were like when features were made of them.

A log of JSON next to the features, ``images.jsonl``; the last line of a name counts:

    name         of the image
    path         the file that was read, links followed
    bytes        its length
    modified_ns  when its content and
    changed_ns   when anything of it last changed, in nanoseconds
    size         W, H in pixels as stored
    sha256       of its content
    mask         sha256 of the mask that was applied; empty without one
    adopted      whether the features are older than their record

A line without a path comes before features are written, one with it after them: a run
killed in between finds the image unfinished, whatever lies there.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from io import BytesIO
from pathlib import Path
from typing import Any, TypedDict

from r2d2_kapture.errors import ImageError
from r2d2_kapture.io.images.decoding import check_file
from r2d2_kapture.io.outputs.atomic import write_bytes_atomic
from r2d2_kapture.io.outputs.json_log import JsonLog, json_line, open_log, read_log

RECORDS_NAME = "images.jsonl"


class Stamp(TypedDict):
    """What of a file is known without reading it; see above."""

    path: str
    bytes: int
    modified_ns: int
    changed_ns: int


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """An image file as it was when its features were made; see above."""

    path: str
    bytes: int
    modified_ns: int
    changed_ns: int
    size: tuple[int, int]
    sha256: str
    mask: str = ""
    adopted: bool = False

    @property
    def stamp(self) -> Stamp:
        """What can be compared without reading the file."""
        return Stamp(
            path=self.path,
            bytes=self.bytes,
            modified_ns=self.modified_ns,
            changed_ns=self.changed_ns,
        )

    def at(self, path: Path) -> ImageRecord | None:
        """The record of the same content in a file; None where that is another.

        The file is read only if its length, but not its stamp, is the recorded one.
        One that is not there, or cannot be read, has no content that could be another.
        """
        try:
            stamp = stamp_of(path)
            if stamp == self.stamp:
                return self
            if stamp["bytes"] != self.bytes or sha256_of(path) != self.sha256:
                return None
        except OSError:
            return self
        return dataclasses.replace(self, **stamp)


def stamp_of(path: Path) -> Stamp:
    """What of a file is known without reading it.

    Raises:
        OSError: it is not there.
    """
    status = os.stat(path)
    return Stamp(
        path=os.path.realpath(path),
        bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
        changed_ns=status.st_ctime_ns,
    )


def stamp_image(path: Path) -> Stamp:
    """What of an image file is known before it is read.

    Raises:
        ImageError: it is not there, or empty.
    """
    check_file(path)
    try:
        return stamp_of(path)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from error


def record_image(path: Path, stamp: Stamp, size: tuple[int, int]) -> ImageRecord:
    """The record of a file that was decoded.

    Args:
        path: of the file.
        stamp: it had before.
        size: (W, H) in pixels that it has.

    Raises:
        ImageError: the file changed meanwhile, or cannot be read any more.
    """
    try:
        record = ImageRecord(**stamp, size=size, sha256=sha256_of(path))
        unchanged = stamp_of(path) == stamp
    except OSError as error:
        raise ImageError(f"{path}: cannot be read again: {error.strerror}") from error
    if not unchanged:
        raise ImageError(f"{path}: changed while it was read; run again")
    return record


def sha256_of(path: Path) -> str:
    """Digest of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def record_from_json(values: object) -> ImageRecord | None:
    """Read a record from JSON values; None where they are none."""
    if not isinstance(values, dict):
        return None
    try:
        width, height = values["size"]
        return ImageRecord(
            path=str(values["path"]),
            bytes=int(values["bytes"]),
            modified_ns=int(values["modified_ns"]),
            changed_ns=int(values["changed_ns"]),
            size=(int(width), int(height)),
            sha256=str(values["sha256"]),
            mask=str(values.get("mask", "")),
            adopted=bool(values["adopted"]),
        )
    except (ValueError, TypeError, KeyError):
        return None


def read_records(folder: Path) -> dict[str, ImageRecord | None]:
    """The records of features by image name; None for an unfinished image."""
    return {
        str(line.get("name")): record_from_json(line)
        for line in read_log(folder / RECORDS_NAME)
    }


@dataclass(frozen=True, kw_only=True)
class RecordWriter:
    """Writes the records of a folder of features.

    Attributes:
        records: by image name; None of an image left unfinished.
        log: where they are appended.
    """

    records: dict[str, ImageRecord | None]
    log: JsonLog

    def begin(self, name: str) -> None:
        """Note that features of an image are about to be written.

        Raises:
            OutputError: the file system refused.
        """
        # features that reach the disk before it would count as those of the old record
        self.log.append({"name": name}, to_disk=self.records.get(name) is not None)
        self.records[name] = None

    def finish(self, name: str, record: ImageRecord) -> None:
        """Note what file the features of an image, which are there, were made of.

        Raises:
            OutputError: the file system refused.
        """
        self.log.append(_line(name, record))
        self.records[name] = record

    def is_unfinished(self, name: str) -> bool:
        """Whether a run was stopped while it wrote the features of an image."""
        return name in self.records and self.records[name] is None


def stored_records(folder: Path) -> RecordWriter:
    """The records of a folder that is only looked at: what is added is forgotten."""
    log = JsonLog(path=folder / RECORDS_NAME, file=BytesIO())
    return RecordWriter(records=read_records(folder), log=log)


@contextmanager
def open_records(folder: Path) -> Iterator[RecordWriter]:
    """Open the records of a folder to add to; leave one line per image, by name.

    Raises:
        OutputError: the file system refused.
    """
    path = folder / RECORDS_NAME
    records = read_records(folder)
    with open_log(path) as log:
        yield RecordWriter(records=records, log=log)
    tidy = b"".join(json_line(_line(*item)) for item in sorted(records.items()))
    if path.read_bytes() != tidy:
        write_bytes_atomic(path, tidy)


def _line(name: str, record: ImageRecord | None) -> dict[str, Any]:
    return {"name": name} | (dataclasses.asdict(record) if record else {})
