"""Items of a folder by name, read from whatever layout they have."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from r2d2_kapture.config.stores import Store
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import PARTIAL_FOLDER, check_relative_name
from r2d2_kapture.io.stores.shard_index import (
    Members,
    index_path,
    load_members,
    shard_paths,
)
from r2d2_kapture.io.stores.shard_members import Bytes, Member
from r2d2_kapture.io.stores.shards import FOLDER_NAME

LAYOUTS: Mapping[Store, str] = {
    "files": "a folder of files",
    "tar": "an archive",
    "shards": "shards",
}
"""How messages name them."""
ARCHIVE_AGAIN = "remove it, and extract again, or run the command that made it again"


class StoredItem(Protocol):
    """Where an item is."""

    @property
    def path(self) -> Path:
        """Of the file that has it."""

    @property
    def offset(self) -> int:
        """Where in the file its content begins, in bytes."""

    @property
    def size(self) -> int:
        """Bytes of its content."""

    def read(self) -> Bytes:
        """Its content, as far as it is there.

        Raises:
            OSError: it cannot be read.
            FeatureFormatError: it is not what was written.
        """


class StoredItems(Protocol):
    """Items of one folder; safe to read from several threads."""

    def find(self, name: str) -> StoredItem | None:
        """Where an item is; None where there is none."""

    def names(self) -> Iterator[str]:
        """Names of all items, each once."""

    def files(self, names: Iterable[str]) -> Iterator[str]:
        """Where items are, or would be."""


class FilePart(NamedTuple):
    """An item that is a part of a file, or all of it; see StoredItem."""

    file: str
    offset: int
    size: int

    @property
    def path(self) -> Path:
        """See StoredItem."""
        return Path(self.file)

    def read(self) -> Bytes:
        """See StoredItem."""
        with open(self.file, "rb") as file:
            return np.fromfile(file, np.uint8, self.size, offset=self.offset)


@dataclass(frozen=True, kw_only=True)
class FileItems:
    """A file an item.

    Attributes:
        folder: of the files.
        suffix: of their names.
    """

    folder: Path
    suffix: str

    def find(self, name: str) -> FilePart | None:
        """See StoredItems."""
        path = os.path.join(self.folder, name)
        try:
            found = os.stat(path)
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return FilePart(path, 0, found.st_size)

    def names(self) -> Iterator[str]:
        """See StoredItems."""
        for path in self.folder.rglob(f"*{self.suffix}"):
            inside = path.relative_to(self.folder)
            if inside.parts[0] != PARTIAL_FOLDER:
                yield inside.as_posix()

    def files(self, names: Iterable[str]) -> Iterator[str]:
        """See StoredItems."""
        prefix = os.path.join(self.folder, "")
        return (prefix + name for name in names)


@dataclass(frozen=True, kw_only=True)
class ArchiveItems:
    """Members of one tar archive, as kapture has it.

    Attributes:
        path: of the archive.
        members: offset and bytes of each.
    """

    path: Path
    members: Mapping[str, tuple[int, int]]

    def find(self, name: str) -> FilePart | None:
        """See StoredItems."""
        if name not in self.members:
            return None
        offset, size = self.members[name]
        return FilePart(str(self.path), offset, size)

    def names(self) -> Iterator[str]:
        """See StoredItems."""
        return iter(self.members)

    def files(self, names: Iterable[str]) -> Iterator[str]:
        """See StoredItems."""
        yield str(self.path)


@dataclass(frozen=True, kw_only=True)
class ShardItems:
    """Members of shards.

    Attributes:
        folder: of the shards.
        members: of them.
    """

    folder: Path
    members: Members

    def find(self, name: str) -> Member | None:
        """See StoredItems."""
        found = self.members.find(name)
        return None if found is None or found.removed else found

    def names(self) -> Iterator[str]:
        """See StoredItems."""
        return self.members.names()

    def files(self, names: Iterable[str]) -> Iterator[str]:
        """See StoredItems."""
        for path in shard_paths(self.folder):
            yield from (str(path), str(index_path(path)))


def other_layout(folder: Path, store: Store, archive: str, suffix: str) -> str | None:
    """What is found instead of items in a layout; None where nothing is.

    Args:
        folder: of the items; may be missing.
        store: the layout wanted.
        archive: name of kapture's archive of such items.
        suffix: of their names.
    """
    found: Store | None = None
    if shard_paths(folder / FOLDER_NAME):
        found = "shards"
    elif (folder / archive).exists():
        found = "tar"
    elif store != "files" and any(folder.rglob(f"*{suffix}")):
        found = "files"
    if found in (None, store):
        return None
    return f"{LAYOUTS[found]}, which --store {found} adds to"


def file_count(store: Store, folders: Mapping[str, Path]) -> dict[str, int]:
    """How many files hold all items, for a report; nothing where each has its own.

    Args:
        store: layout of the items.
        folders: of items by the name of kapture's archive.
    """
    if store == "files":
        return {}
    if store == "tar":
        return {"files": sum((folders[name] / name).exists() for name in folders)}
    shards = [shard_paths(folder / FOLDER_NAME) for folder in folders.values()]
    return {"files": 2 * sum(map(len, shards))}


def open_items(folder: Path, archive: str, suffix: str) -> StoredItems:
    """Open the items of a folder to read; shards come before an archive.

    Args:
        folder: of the items.
        archive: name of kapture's archive of such items.
        suffix: of their names.

    Raises:
        DatasetError: an archive or a shard cannot be used.
    """
    if shard_paths(folder / FOLDER_NAME):
        shards = folder / FOLDER_NAME
        return ShardItems(folder=shards, members=load_members(shards))
    path = folder / archive
    if path.is_file():
        return ArchiveItems(path=path, members=index_archive(path))
    return FileItems(folder=folder, suffix=suffix)


def index_archive(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and bytes of each member of a tar file; the last of equal names counts.

    Raises:
        DatasetError: not an archive, broken off, or a name that leaves its folder.
    """
    members = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = check_relative_name(member.name, path)
                members[name] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DatasetError(
            f"{path}: cannot be read as an archive: {error}; {ARCHIVE_AGAIN}"
        ) from error
    if any(offset + size > os.path.getsize(path) for offset, size in members.values()):
        raise DatasetError(f"{path}: the archive is truncated; {ARCHIVE_AGAIN}")
    return members
