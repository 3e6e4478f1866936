"""Items of a folder by name, written in one of the layouts."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Protocol

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.stores import Store
from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.kapture.dataset import check_relative_name
from r2d2_kapture.io.outputs.atomic import atomic_path, output_error, remove_file
from r2d2_kapture.io.outputs.growing_archive import GrowingArchive
from r2d2_kapture.io.outputs.ledger import Contents, is_made_with, write_item
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.io.stores.reading import FileItems, index_archive, other_layout
from r2d2_kapture.io.stores.shards import FOLDER_NAME, ShardWriter


class ItemWriter(Protocol):
    """Items of a folder that a ledger has opened; safe to write in several threads."""

    def size(self, name: str) -> int | None:
        """Bytes of the content of an item; None where there is none."""

    def written_ns(self, name: str) -> int:
        """When an item that is there was written, in nanoseconds, or later."""

    def write(self, name: str, data: bytes) -> None:
        """Store an item; whole or absent, never in between.

        Raises:
            OutputError: the file system refused.
        """

    def names(self) -> Iterator[str]:
        """Names of all items."""

    def remove(self, names: Collection[str]) -> None:
        """Remove items, some of which may not be there.

        Raises:
            OutputError: the file system refused.
        """

    def close(self) -> None:
        """Complete what is on the disk; it is opened again where it is used again.

        Raises:
            OutputError: the file system refused.
        """


@dataclass(frozen=True, kw_only=True)
class _Files:
    """A file an item, moved into place when it is whole."""

    items: FileItems

    def _path(self, name: str) -> str:
        checked = check_relative_name(name, self.items.folder)
        return os.path.join(self.items.folder, checked)

    def size(self, name: str) -> int | None:
        found = self.items.find(check_relative_name(name, self.items.folder))
        return None if found is None else found.size

    def written_ns(self, name: str) -> int:
        return os.stat(self._path(name)).st_mtime_ns

    def write(self, name: str, data: bytes) -> None:
        write_item(self.items.folder, self._path(name), data)

    def names(self) -> Iterator[str]:
        return self.items.names()

    def remove(self, names: Collection[str]) -> None:
        for name in names:
            remove_file(Path(self._path(name)))

    def close(self) -> None:
        """Nothing is left to do."""


class _Archive:
    """kapture's archive, which grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = RLock()
        self._archive: GrowingArchive | None = None
        if path.exists():
            self._opened()  # readers need one that a killed run left to be repaired

    def _opened(self) -> GrowingArchive:
        if self._archive is None:
            self._archive = GrowingArchive(self._path)
        return self._archive

    def size(self, name: str) -> int | None:
        with self._lock:
            return self._opened().sizes.get(name)

    def written_ns(self, name: str) -> int:
        with self._lock:
            return self._opened().written_ns

    def write(self, name: str, data: bytes) -> None:
        check_relative_name(name, self._path.parent)
        with self._lock:
            self._opened().append(name, data)

    def names(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._opened().sizes))

    def remove(self, names: Collection[str]) -> None:
        """Write the archive anew, since kapture reads whatever is in it."""
        self.close()
        if not self._path.exists():
            return
        members = index_archive(self._path)
        unwanted = frozenset(names)
        kept = [name for name in members if name not in unwanted]
        if len(kept) == len(members):
            return
        try:
            with open(self._path, "rb") as old, atomic_path(self._path) as path:
                with GrowingArchive(path) as new:
                    for name in kept:
                        old.seek(members[name][0])
                        new.append(name, old.read(members[name][1]))
        except OSError as error:
            raise output_error(self._path, error) from error

    def close(self) -> None:
        with self._lock:
            archive, self._archive = self._archive, None
            if archive is not None:
                archive.__exit__(None)


@dataclass(frozen=True, kw_only=True)
class _Shards:
    """Shards, which grow by one after the other."""

    folder: Path
    writer: ShardWriter

    def size(self, name: str) -> int | None:
        found = self.writer.find(name)
        return None if found is None else found.size

    def written_ns(self, name: str) -> int:
        found = self.writer.find(name)
        return 0 if found is None else found.path.stat().st_mtime_ns

    def write(self, name: str, data: bytes) -> None:
        self.writer.write(check_relative_name(name, self.folder), data)

    def names(self) -> Iterator[str]:
        return self.writer.names()

    def remove(self, names: Collection[str]) -> None:
        self.writer.remove(names)

    def close(self) -> None:
        self.writer.close()


def replaces_layout(
    folder: Path,
    store: Store,
    archive: str,
    suffix: str,
    contents: Contents,
    manifest: Manifest,
    options: RunOptions,
) -> bool:
    """Whether items made with the same settings are in another layout.

    Args:
        folder, store, archive, suffix: see ``other_layout``.
        contents, manifest, options: see ``is_made_with``.

    Raises:
        OutputError: they are, and are not replaced; or as ``is_made_with``.
    """
    if not is_made_with(folder, contents, manifest, options):
        return False
    found = other_layout(folder, store, archive, suffix)
    if found is not None and not options.replaces:
        raise contents.refusal(folder, found)
    return found is not None


@contextmanager
def open_item_writer(
    folder: Path, store: Store, archive: str, suffix: str
) -> Iterator[ItemWriter]:
    """Open the items of a folder to write.

    Args:
        folder: that a ledger has opened, without items in another layout.
        store: their layout.
        archive: name of kapture's archive of such items.
        suffix: of their names.

    Raises:
        OutputError: the file system refused.
    """
    writer = item_writer(folder, store, archive, suffix)
    try:
        yield writer
    except BaseException:
        # what is not complete now, the next run completes; only the first error counts
        with suppress(OutputError):
            writer.close()
        raise
    writer.close()


def item_writer(folder: Path, store: Store, archive: str, suffix: str) -> ItemWriter:
    """The items of a folder, see ``open_item_writer``, for the caller to close."""
    if store == "shards":
        return _Shards(folder=folder, writer=ShardWriter(folder / FOLDER_NAME))
    if store == "tar":
        return _Archive(folder / archive)
    return _Files(items=FileItems(folder=folder, suffix=suffix))
