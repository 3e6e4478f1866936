"""Indexes of shards: which members they have and where, without a scan.

Beside ``000017.tar`` lies ``000017.idx``: HEADER, a ROW for each member in the order of
the archive, and the names of the members, each ended by a zero byte, as zlib has it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import check_relative_name
from r2d2_kapture.io.outputs.atomic import write_bytes_atomic
from r2d2_kapture.io.stores.shard_members import (
    AGAIN,
    ROW,
    Member,
    Rows,
    name_hash,
    scan_shard,
)

MAGIC = b"r2d2 shard 1"
HEADER = np.dtype(
    [
        ("magic", "S12"),
        ("crc32", "<u4"),
        ("members", "<u8"),
        ("tar_bytes", "<u8"),
        ("names_bytes", "<u8"),
        ("sha256", "V32"),
    ]
)
"""Its CRC-32 is that of all that follows it; the SHA-256 is that of the archive."""
CHECKED_FROM = 16
SHARD_NAME = re.compile(r"(\d{6,})\.tar")


def shard_path(folder: Path, number: int) -> Path:
    """The archive of a number in a folder of shards."""
    return folder / f"{number:06d}.tar"


def index_path(shard: Path) -> Path:
    """Where the index of a shard is, or would be."""
    return shard.with_suffix(".idx")


def shard_paths(folder: Path) -> list[Path]:
    """The shards in a folder, in order of their numbers."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    found = [match for name in names if (match := SHARD_NAME.fullmatch(name))]
    return [folder / match[0] for match in sorted(found, key=lambda m: int(m[1]))]


def next_number(folder: Path) -> int:
    """That of a shard after all others of a folder."""
    paths = shard_paths(folder)
    return int(paths[-1].stem) + 1 if paths else 0


def write_index(
    shard: Path, rows: Rows, names: Sequence[str], tar_bytes: int, sha256: bytes
) -> None:
    """Write the index of a shard that is complete.

    Raises:
        OutputError: the file system refused.
    """
    text = "".join(f"{name}\0" for name in names)
    packed = zlib.compress(text.encode("utf-8", "surrogateescape"))
    header = np.zeros(1, HEADER)
    header["magic"] = MAGIC
    header["members"], header["names_bytes"] = len(rows), len(packed)
    header["tar_bytes"], header["sha256"] = tar_bytes, np.void(sha256)
    rest = rows.tobytes() + packed
    header["crc32"] = zlib.crc32(rest, zlib.crc32(header.tobytes()[CHECKED_FROM:]))
    write_bytes_atomic(index_path(shard), header.tobytes() + rest)


def read_header(shard: Path) -> np.void | None:
    """The header of the index of a shard; None where that is missing or damaged.

    Raises:
        DatasetError: the size of the shard is not that in a sound index.
    """
    try:
        data = index_path(shard).read_bytes()
    except OSError:
        return None
    if len(data) < HEADER.itemsize:
        return None
    header: np.void = np.frombuffer(data, HEADER, 1)[0]
    count, names = int(header["members"]), int(header["names_bytes"])
    whole = HEADER.itemsize + count * ROW.itemsize + names == len(data)
    checksum = zlib.crc32(memoryview(data)[CHECKED_FROM:])
    if header["magic"] != MAGIC or not whole or int(header["crc32"]) != checksum:
        return None
    expected = int(header["tar_bytes"])
    found = shard.stat().st_size if shard.exists() else 0
    if found != expected:
        raise DatasetError(
            f"{shard}: found {found} bytes, expected {expected} as its .idx says; "
            + AGAIN
        )
    return header


def strike(members: Iterable[Member]) -> None:
    """Note in the indexes of their shards that members count no more.

    Lest they count again where the later shard that removes them is lost.

    Args:
        members: of shards; those of one that is being written are passed over.

    Raises:
        OutputError: the file system refused.
        DatasetError: a shard cannot be used.
    """
    blocks: dict[Path, list[int]] = {}
    for member in members:
        blocks.setdefault(member.path, []).append(member.block)
    for shard, struck in blocks.items():
        header = read_header(shard)
        if header is not None:
            rows = _read_rows(shard, int(header["members"]))
            rows["removed"][np.isin(rows["block"], struck)] = 1
            size, sha256 = int(header["tar_bytes"]), header["sha256"].tobytes()
            write_index(shard, rows, read_names(shard), size, sha256)


class Members:
    """The members of shards, found by name; safe to use from several threads.

    It takes 40 bytes a member.

    Args:
        shards: in order; a member of a later one replaces those of its name.
        rows: of their members, see ROW.
        ends: number of rows up to the end of each shard.
        scanned: names of the members of shards without an index, by shard.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        rows: Rows,
        ends: Sequence[int],
        scanned: dict[int, list[str]],
    ) -> None:
        self._shards = shards
        self._rows = rows
        self._ends = np.array(ends, np.int64)
        self._scanned = scanned
        hashes = rows["hash"]
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._order = order.astype(np.uint32 if len(rows) < 2**32 else np.int64)

    def find(self, name: str) -> Member | None:
        """The last member of a name, which may remove it; None without any."""
        key, check = name_hash(name)
        at = int(self._hashes.searchsorted(np.uint64(key), "right")) - 1
        while at >= 0 and self._hashes[at] == key:
            number = int(self._order[at])
            row = self._rows[number]
            if row["check"] == check:
                shard = int(self._ends.searchsorted(number, "right"))
                return Member(
                    path=self._shards[shard],
                    name=name,
                    block=int(row["block"]),
                    head=int(row["head"]),
                    size=int(row["size"]),
                    removed=bool(row["removed"]),
                )
            at -= 1
        return None

    def _is_current(self) -> npt.NDArray[np.bool_]:
        """Of each row, whether no later one has its name."""
        checks = self._rows["check"][self._order]
        replaced = (self._hashes[1:] == self._hashes[:-1]) & (checks[1:] == checks[:-1])
        current = np.ones(len(self._rows), np.bool_)
        current[self._order[:-1][replaced]] = False
        return current

    def names(self) -> Iterator[str]:
        """Names of the members that count, shard by shard.

        Raises:
            DatasetError: a name leaves its folder.
        """
        counts = self._is_current() & (self._rows["removed"] == 0)
        for shard, path in enumerate(self._shards):
            first = int(self._ends[shard - 1]) if shard else 0
            wanted = counts[first : int(self._ends[shard])]
            is_scanned = shard in self._scanned
            names = self._scanned[shard] if is_scanned else read_names(path)
            yield from (name for name, is_in in zip(names, wanted) if is_in)

    def superfluous(self) -> list[Path]:
        """Shards of which nothing counts any more."""
        needed = np.zeros(len(self._shards), np.bool_)
        rows = np.flatnonzero(self._is_current())
        needed[self._ends.searchsorted(rows, "right")] = True
        return [path for path, is_needed in zip(self._shards, needed) if not is_needed]


def read_names(shard: Path) -> list[str]:
    """Names of the members of a shard with a sound index, in their order.

    Raises:
        DatasetError: a name leaves its folder, or the index was changed meanwhile.
    """
    try:
        data = index_path(shard).read_bytes()
        count = int(np.frombuffer(data, HEADER, 1)[0]["members"])
        packed = memoryview(data)[HEADER.itemsize + count * ROW.itemsize :]
        text = zlib.decompress(packed).decode("utf-8", "surrogateescape")
    except (OSError, ValueError, zlib.error) as error:
        raise DatasetError(
            f"{index_path(shard)}: cannot be read: {error}; {AGAIN}"
        ) from error
    return [check_relative_name(name, shard) for name in text.split("\0")[:-1]]


def _read_rows(shard: Path, count: int) -> Rows:
    return np.fromfile(index_path(shard), ROW, count, offset=HEADER.itemsize)


def load_members(folder: Path) -> Members:
    """The members of the shards in a folder, by their indexes.

    A shard without a sound index, such as one that is being written, is scanned.

    Raises:
        DatasetError: a shard cannot be used.
    """
    return members_of(shard_paths(folder))


def members_of(shards: Sequence[Path]) -> Members:
    """The members of shards, see ``load_members``."""
    scanned: dict[int, list[str]] = {}
    parts: list[Rows] = []
    for number, path in enumerate(shards):
        header = read_header(path)
        if header is None:
            try:
                scan = scan_shard(path)
            except OSError as error:
                raise DatasetError(
                    f"{path}: cannot be read: {error.strerror}; {AGAIN}"
                ) from error
            parts.append(scan.rows)
            scanned[number] = scan.names
        else:
            parts.append(_read_rows(path, int(header["members"])))
    rows = np.concatenate(parts) if parts else np.empty(0, ROW)
    ends = np.cumsum([len(part) for part in parts])
    parts.clear()
    return Members(shards, rows, ends.tolist(), scanned)
