"""Unpacking of zip and tar archives that are not trusted."""

from __future__ import annotations

import functools
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.io.kapture.dataset import check_relative_name
from r2d2_kapture.io.outputs.atomic import atomic_path
from r2d2_kapture.io.progress import Progress

CHUNK = 1 << 20
ROOT = "."
"""Folder that ``tar -c .`` begins with."""
ZipOrTar = zipfile.ZipFile | tarfile.TarFile

BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a compression that zipfile does not know
    RuntimeError,  # an encrypted member
)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file in an archive: its name, its bytes unpacked, and how to read them."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path, *, progress: bool | None = None) -> int:
    """Unpack the files of a zip or tar archive; those that are there are kept.

    All names are checked before anything is written. A file is written whole or not at
    all; one that is there with the size of the archive's is taken for it, so that an
    interrupted run goes on.

    Args:
        archive: zip, or tar plain or compressed with gzip, bzip2 or xz.
        folder: to unpack into.
        progress: show a bar; None shows it on a terminal only.

    Returns:
        The number of files in the archive.

    Raises:
        DatasetError: no archive, broken, encrypted, or with members that are links,
            devices, or have names that leave the folder.
        OutputError: a file cannot be written, or there is not enough room for all.
    """
    with _opened(archive) as opened:
        members = list(_members(opened, archive))
        missing = [m for m in members if not _is_there(folder / m.name, m.size)]
        _check_room(folder, sum(member.size for member in missing))
        bar = Progress(f"unpack {archive.name}", "file", len(missing), shown=progress)
        for member in bar.over(missing):
            with atomic_path(folder / member.name) as temporary:
                with temporary.open("wb") as target:
                    for chunk in _content(archive, member):
                        target.write(chunk)
    return len(members)


@contextmanager
def _opened(archive: Path) -> Iterator[ZipOrTar]:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened_zip:
                yield opened_zip
        else:
            with tarfile.open(archive) as opened_tar:
                yield opened_tar
    except BROKEN as error:
        raise _broken(archive, str(error)) from error
    except FileNotFoundError as error:
        raise DatasetError(f"{archive}: not found, expected an archive") from error


def _members(opened: ZipOrTar, archive: Path) -> Iterator[Member]:
    if isinstance(opened, zipfile.ZipFile):
        for info in opened.infolist():
            if info.filename == ROOT + "/":
                continue
            check_relative_name(info.filename, archive)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _unsafe(archive, info.filename)
            if not info.is_dir():
                yield Member(
                    name=info.filename,
                    size=info.file_size,
                    open=functools.partial(opened.open, info),
                )
        return
    for entry in opened:
        if entry.isdir() and entry.name == ROOT:
            continue
        check_relative_name(entry.name, archive)
        if entry.isfile():
            yield Member(
                name=entry.name,
                size=entry.size,
                open=functools.partial(opened.extractfile, entry),
            )
        elif not entry.isdir():
            raise _unsafe(archive, entry.name)
    _read_to_the_end(opened, archive)


def _read_to_the_end(opened: tarfile.TarFile, archive: Path) -> None:
    """Let the decompressor come to its checksum, which tarfile has no need of."""
    try:
        while opened.fileobj is not None and opened.fileobj.read(CHUNK):
            pass
    except OSError as error:
        raise _broken(archive, str(error)) from error


def _unsafe(archive: Path, name: str) -> DatasetError:
    return DatasetError(
        f"{archive}: member '{name}' is a link or a device, expected files; nothing of "
        "it was unpacked"
    )


def _content(archive: Path, member: Member) -> Iterator[bytes]:
    """The bytes of a member, as many as it says."""
    count = 0
    try:
        source = member.open()
        while source is not None and (chunk := source.read(CHUNK)):
            count += len(chunk)
            yield chunk
    except (*BROKEN, OSError) as error:
        raise _broken(archive, f"'{member.name}': {error}") from error
    if count != member.size:
        raise _broken(archive, f"'{member.name}' has {count} of {member.size} bytes")


def _broken(archive: Path, reason: str) -> DatasetError:
    return DatasetError(
        f"{archive}: not an archive that can be unpacked ({' '.join(reason.split())}), "
        "expected a whole zip or tar; fetch it again"
    )


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size == size


def _check_room(folder: Path, needed: int) -> None:
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise OutputError(
            f"{folder}: {needed / 1e9:.1f} GB are to be unpacked, {free / 1e9:.1f} GB "
            "are free; free space and run again: finished work is kept"
        )
