"""Members of shards: tar members that carry a checksum of their content.

A shard is a tar archive in GNU format. The group of a member is the CRC-32 of its
content in hexadecimal digits; a member of the user ``removed`` says that an earlier one
of its name counts no more. The last member of a name counts.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.kapture.dataset import check_relative_name
from r2d2_kapture.io.names import shown
from r2d2_kapture.io.outputs.growing_archive import END_BYTES, padded, whole_members

BLOCK = tarfile.BLOCKSIZE
REMOVED = "removed"
GROUP = slice(297, 329)
"""Of a header, the name of the group."""
CHECKSUM = re.compile(rb"[0-9a-f]{8}")
ROW = np.dtype(
    [
        ("hash", "<u8"),
        ("check", "<u4"),
        ("block", "<u4"),
        ("size", "<u8"),
        ("head", "<u2"),
        ("removed", "<u2"),
    ]
)
"""Of a member: 96 bits of the digest of its name, the block of its header, the bytes of
its content, the blocks of its header, and whether it removes earlier ones."""
Rows = npt.NDArray[np.void]
Bytes = npt.NDArray[np.uint8]
AGAIN = "remove it and its .idx, and run the command that made it again"


def name_hash(name: str) -> tuple[int, int]:
    """64 and 32 bits of the BLAKE2b digest of a name."""
    data = name.encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(data, digest_size=12).digest()
    return (
        int.from_bytes(digest[:8], "little"),
        int.from_bytes(digest[8:], "little"),
    )


def row_of(name: str, block: int, size: int, head: int, removed: bool) -> Any:
    """The index row of a member, as a tuple; see ROW."""
    return (*name_hash(name), block, size, head, removed)


def header_of(name: str, data: bytes, *, removed: bool = False) -> bytes:
    """The header of a member, whole blocks."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.gname = f"{zlib.crc32(data):08x}"
    member.uname = REMOVED if removed else ""
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


@dataclass(frozen=True, kw_only=True)
class Member:
    """Where a member is.

    Attributes:
        path: of its shard.
        name: its own.
        block: where its header begins, in blocks.
        head: blocks of the header.
        size: bytes of its content.
        removed: whether it says that earlier ones of its name count no more.
    """

    path: Path
    name: str
    block: int
    head: int
    size: int
    removed: bool

    @property
    def offset(self) -> int:
        """Where its content begins, in bytes."""
        return (self.block + self.head) * BLOCK

    def read(self) -> Bytes:
        """Its content, after name and checksum are compared.

        Raises:
            FeatureFormatError: they differ, or the shard cannot be read.
        """
        start = self.head * BLOCK
        raw = bytearray(start + self.size)
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self.block * BLOCK)
                count = _fill(file, raw)
        except OSError as error:
            raise FeatureFormatError(
                f"{self.path}: cannot be read: {error.strerror}; {AGAIN}"
            ) from error
        if count < len(raw) or not _is_named(raw, self.head, self.name):
            raise FeatureFormatError(
                f"{self.path}: found no '{shown(self.name)}' at byte "
                f"{self.block * BLOCK}, where its .idx has it; {AGAIN}"
            )
        if not _is_sound(raw, start, self.size):
            raise FeatureFormatError(
                f"{self.path}: found other content of '{shown(self.name)}' than was "
                f"written (CRC-32 differs); {AGAIN}"
            )
        return np.frombuffer(raw, np.uint8)[start:]


def _fill(file: Any, buffer: bytearray) -> int:
    view, count = memoryview(buffer), 0
    while count < len(buffer) and (got := file.readinto(view[count:])):
        count += got
    return count


def _is_named(raw: bytearray, head: int, name: str) -> bool:
    """Whether a header has a name, also one in extended headers of GNU or POSIX."""
    data = name.encode("utf-8", "surrogateescape")
    more = raw[BLOCK : (head - 1) * BLOCK]
    if raw[156:157] == tarfile.GNUTYPE_LONGNAME:
        return more.startswith(data + b"\0")
    if b" path=" in more:
        return b" path=" + data + b"\n" in more
    last = raw[(head - 1) * BLOCK : head * BLOCK]
    return last[:100].rstrip(b"\0") == data


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What the members of a shard are, by their headers.

    Attributes:
        rows: of the whole ones.
        names: of these.
        end: of the last of them, in bytes.
    """

    rows: Rows
    names: list[str]
    end: int


def scan_shard(path: Path) -> Scan:
    """Find the whole members of a shard without an index.

    Raises:
        OSError: it cannot be read.
        OutputError: it is not a tar archive at all.
        DatasetError: a name leaves its folder.
    """
    rows, names, end = [], [], 0
    # less than a header is what a run killed at its first member leaves
    for member in whole_members(path) if path.stat().st_size >= BLOCK else ():
        name = check_relative_name(member.name, path)
        head = (member.offset_data - member.offset) // BLOCK
        removed = member.uname == REMOVED
        rows.append(row_of(name, member.offset // BLOCK, member.size, head, removed))
        names.append(name)
        end = member.offset_data + padded(member.size)
    return Scan(rows=np.array(rows, ROW), names=names, end=end)


def recover_shard(path: Path) -> tuple[Scan, bytes]:
    """Cut a shard that a run did not finish after its last sound member, and end it.

    Returns:
        Its members, and the SHA-256 of the file.

    Raises:
        OSError: the file system refused.
        OutputError, DatasetError: see ``scan_shard``.
    """
    scan = scan_shard(path)
    starts = [*scan.rows["block"].tolist(), scan.end // BLOCK]
    digest, sound = hashlib.sha256(), 0
    with open(path, "r+b") as file:
        for row, end in zip(scan.rows, starts[1:]):
            raw = file.read(end * BLOCK - file.tell())
            if not _is_sound(raw, int(row["head"]) * BLOCK, int(row["size"])):
                break
            digest.update(raw)
            sound += 1
        file.truncate(starts[sound] * BLOCK)
        file.seek(starts[sound] * BLOCK)
        file.write(bytes(END_BYTES))
        file.flush()
        os.fsync(file.fileno())
    digest.update(bytes(END_BYTES))
    kept = Scan(
        rows=scan.rows[:sound], names=scan.names[:sound], end=starts[sound] * BLOCK
    )
    return kept, digest.digest()


def _is_sound(raw: bytes | bytearray, start: int, size: int) -> bool:
    """Whether the content of a member is what its header says, if it says that."""
    noted = raw[start - BLOCK : start][GROUP].rstrip(b"\0")
    content = memoryview(raw)[start : start + size]
    return not CHECKSUM.fullmatch(noted) or noted == b"%08x" % zlib.crc32(content)
