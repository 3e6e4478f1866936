"""Shards: tar archives of bounded size that one run writes, each with an index.

A folder of shards is a log: members are only appended, and the last of a name counts.
A shard is closed, with its index, when it is full or its run ends. One that a killed
run left open is cut after its last whole member, and closed, by the next run.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from threading import RLock

import numpy as np

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.outputs.atomic import output_error, remove_file
from r2d2_kapture.io.outputs.growing_archive import END_BYTES, padded
from r2d2_kapture.io.stores.shard_index import (
    Members,
    index_path,
    load_members,
    members_of,
    next_number,
    read_header,
    shard_path,
    shard_paths,
    strike,
    write_index,
)
from r2d2_kapture.io.stores.shard_members import (
    AGAIN,
    BLOCK,
    ROW,
    Member,
    header_of,
    recover_shard,
    row_of,
)

FOLDER_NAME = "shards"
"""In the folder of a type."""
SHARD_FILES = (f"{FOLDER_NAME}/*.tar", f"{FOLDER_NAME}/*.idx")
"""Patterns of all files of shards, below that folder."""
SYNC_SECONDS = 10.0
"""After which a write waits for the disk."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a shard is full.

    Attributes:
        bytes: of the archive; one more member may pass them.
        members: of any size.
    """

    bytes: int = 2**30
    members: int = 10_000


class _OpenShard:
    """A shard that is being written.

    Args:
        path: of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = 0
        self.rows: list[tuple[int, ...]] = []
        self.names: list[str] = []
        self._last: dict[str, int] = {}
        self._digest = hashlib.sha256()
        self._synced = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        # of a shard that was removed without it
        index_path(path).unlink(missing_ok=True)
        # unbuffered: what a killed run has written stays
        self._file = FileIO(path, "xb")

    def append(self, name: str, data: bytes, *, removed: bool) -> None:
        """Add a member, or change nothing that counts."""
        header = header_of(name, data, removed=removed)
        member = header + data + bytes(padded(len(data)) - len(data))
        self._write(member)
        block, head = self.end // BLOCK, len(header) // BLOCK
        self._last[name] = len(self.rows)
        self.rows.append(row_of(name, block, len(data), head, removed))
        self.names.append(name)
        self._digest.update(member)
        self.end += len(member)
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Wait until all members outlive the machine."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def find(self, name: str) -> Member | None:
        """See ``Members.find``."""
        if name not in self._last:
            return None
        _, _, block, size, head, removed = self.rows[self._last[name]]
        return Member(
            path=self.path,
            name=name,
            block=block,
            head=head,
            size=size,
            removed=bool(removed),
        )

    def close(self) -> None:
        """End the archive, and write its index."""
        try:
            self._write(bytes(END_BYTES))
            self.sync()
        finally:
            self._file.close()
        self._digest.update(bytes(END_BYTES))
        rows = np.array(self.rows, ROW)
        size = self.end + END_BYTES
        write_index(self.path, rows, self.names, size, self._digest.digest())

    def _write(self, data: bytes) -> None:
        """Write after the last member, whatever a failed write left there."""
        if self._file.tell() != self.end:
            self._file.truncate(self.end)
            self._file.seek(self.end)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]


class ShardWriter:
    """Writes members to shards, for the only run that does; safe in several threads.

    The folder is opened when it is first used, and again after ``close``.

    Args:
        folder: of the shards.
        limits: of each.
    """

    def __init__(self, folder: Path, limits: Limits = Limits()) -> None:
        self.folder = folder
        self._limits = limits
        self._lock = RLock()
        self._members: list[Members] | None = None
        self._open: _OpenShard | None = None
        self._struck: list[Member] = []

    def find(self, name: str) -> Member | None:
        """Where the member of a name is; None where none counts."""
        with self._lock:
            known = self._opened()
            found = self._open.find(name) if self._open else None
            for members in reversed(known):
                found = found or members.find(name)
        return None if found is None or found.removed else found

    def names(self) -> Iterator[str]:
        """Names of the members that count, which are on the disk then."""
        self.close()
        return load_members(self.folder).names()

    def write(self, name: str, data: bytes, *, removed: bool = False) -> None:
        """Add a member that replaces those of its name, or removes them.

        Raises:
            OutputError: the file system refused.
            DatasetError: a shard that is there cannot be used.
        """
        with self._lock:
            self._opened()
            try:
                if self._open is None:
                    number = next_number(self.folder)
                    self._open = _OpenShard(shard_path(self.folder, number))
                self._open.append(name, data, removed=removed)
            except OSError as error:
                raise output_error(self.folder, error) from error
            full = len(self._open.names) >= self._limits.members
            if full or self._open.end >= self._limits.bytes:
                self._close_shard()

    def remove(self, names: Iterable[str]) -> None:
        """Remove members that count, also from what outlives the machine.

        Raises:
            OutputError, DatasetError: see ``write``.
        """
        with self._lock:
            found = [self.find(name) for name in names]
            struck = [member for member in found if member is not None]
            for member in struck:
                self.write(member.name, b"", removed=True)
            self.sync()
            self._struck += struck

    def sync(self) -> None:
        """Wait until what was written outlives the machine.

        Raises:
            OutputError: the file system refused.
        """
        with self._lock:
            if self._open is not None:
                try:
                    self._open.sync()
                except OSError as error:
                    raise output_error(self.folder, error) from error

    def close(self) -> None:
        """Close the shard that is open, and note in earlier ones what was removed.

        Raises:
            OutputError: the file system refused.
        """
        with self._lock:
            if self._open is not None:
                self._close_shard()
            self._members = None
            struck, self._struck = self._struck, []
            strike(struck)

    def _opened(self) -> list[Members]:
        if self._members is None:
            for path in shard_paths(self.folder):
                if read_header(path) is None:
                    _recover(path)
            members = load_members(self.folder)
            superfluous = members.superfluous()
            for path in superfluous:
                remove_file(index_path(path))
                remove_file(path)
            self._members = [load_members(self.folder) if superfluous else members]
        return self._members

    def _close_shard(self) -> None:
        shard, self._open = self._open, None
        if shard is not None and self._members is not None:
            try:
                shard.close()
            except OSError as error:
                raise output_error(shard.path, error) from error
            self._members.append(members_of([shard.path]))


def _recover(path: Path) -> None:
    """Close a shard that a run did not."""
    try:
        scan, sha256 = recover_shard(path)
    except OSError as error:
        raise output_error(path, error) from error
    if not len(scan.rows):
        remove_file(index_path(path))
        remove_file(path)
        return
    write_index(path, scan.rows, scan.names, scan.end + END_BYTES, sha256)


def move_shards(source: Path, target: Path) -> None:
    """Move closed shards after those in another folder, which is locked.

    A run that was killed is repeated; what is gone then has been moved.

    Raises:
        OSError: the file system refused.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in shard_paths(source):
        place = shard_path(target, next_number(target))
        if index_path(path).exists():
            os.replace(index_path(path), index_path(place))
        os.replace(path, place)


def check_shards(folder: Path) -> None:
    """Compare all shards of a folder with the digests in their indexes.

    Raises:
        DatasetError: naming a shard that differs.
    """
    for path in shard_paths(folder):
        header = read_header(path)
        if header is None:  # being written, or without an index, which a writer makes
            continue
        try:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise DatasetError(
                f"{path}: cannot be read: {error.strerror}; {AGAIN}"
            ) from error
        if found != header["sha256"].tobytes():
            raise DatasetError(
                f"{path}: found other content than was written (SHA-256 "
                f"{found.hex()[:12]}..., expected "
                f"{header['sha256'].tobytes().hex()[:12]}... as its .idx says); {AGAIN}"
            )
