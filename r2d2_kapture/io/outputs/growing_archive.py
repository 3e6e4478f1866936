"""Tar archives that grow, and stay whole however a run ends."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.kapture.dataset import check_relative_name
from r2d2_kapture.io.outputs.atomic import output_error

END_BYTES = 2 * tarfile.BLOCKSIZE


class GrowingArchive:
    """A tar archive that grows by whole members only.

    Where a write fails, the next one, or the end, starts again after the last member.

    Attributes:
        sizes: bytes of each member.
        written_ns: when it was last written before it was opened, in nanoseconds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.written_ns = path.stat().st_mtime_ns if path.exists() else 0
            self.sizes = repair_tar(path)
            # unbuffered: what a failed write left over must not be tried again
            self._file = path.open("r+b", buffering=0)
            self._end = self._file.seek(-END_BYTES, os.SEEK_END)
            self._grows = False
        except OSError as error:
            raise output_error(path, error) from error

    def __enter__(self) -> GrowingArchive:
        return self

    def append(self, name: str, data: bytes) -> None:
        """Add a member, or change nothing that counts."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        header = member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        self._grows = True
        self._write(header + data + bytes(padded(len(data)) - len(data)))
        self._end += len(header) + padded(len(data))
        self.sizes[name] = len(data)

    def _write(self, data: bytes) -> None:
        try:
            os.ftruncate(self._file.fileno(), self._end)
            self._file.seek(self._end)
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise output_error(self._path, error) from error

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        try:
            if self._grows:
                self._write(bytes(END_BYTES))
                os.fsync(self._file.fileno())
        except OutputError:
            # an archive without its end mark resumes; report the first failure only
            if error_type is None:
                raise
        finally:
            self._file.close()


def repair_tar(path: Path) -> dict[str, int]:
    """Cut an archive after its last whole member, as a killed run may have left it.

    Returns:
        Sizes in bytes of the members; the last of equal names counts.

    Raises:
        DatasetError: a member's name leaves the dataset.
        OutputError: the file is not a tar archive at all.
    """
    sizes: dict[str, int] = {}
    # less than one header is what a run killed at its first member leaves
    if not path.exists() or path.stat().st_size < tarfile.BLOCKSIZE:
        path.write_bytes(bytes(END_BYTES))
        return sizes
    end = 0
    for member in whole_members(path):
        sizes[check_relative_name(member.name, path)] = member.size
        end = member.offset_data + padded(member.size)
    with open(path, "r+b") as file:
        file.seek(end)
        if file.read() != bytes(END_BYTES):
            file.truncate(end)
            file.seek(end)
            file.write(bytes(END_BYTES))
    return sizes


def whole_members(path: Path) -> Iterator[tarfile.TarInfo]:
    """The members of an archive up to where it breaks off.

    Raises:
        OutputError: the file is not a tar archive at all.
    """
    file_size, found = path.stat().st_size, False
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := _next_member(archive)) is not None:
                if member.offset_data + padded(member.size) > file_size:
                    return
                yield member
                found = True
                archive.members.clear()  # type: ignore[attr-defined]
    except tarfile.ReadError as error:
        if not found:
            raise OutputError(
                f"{path}: not a tar archive ({error}); move it away"
            ) from error


def padded(size: int) -> int:
    """Bytes that a member of ``size`` takes: whole blocks."""
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _next_member(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    """The next member, or None at the end or where the archive breaks off."""
    try:
        return archive.next()
    except tarfile.TarError:
        return None
