"""Whether a COLMAP database is safe to use, before pycolmap opens it.

pycolmap migrates an old database in place as it opens it, and ends the process, or
reads out of bounds, on some contents.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.io.colmap.content import BrokenContent, check_content, half_written
from r2d2_kapture.io.colmap.frames import add_frames, check_frames
from r2d2_kapture.io.outputs.pieces import refuse_pieces

SQLITE_HEADER = b"SQLite format 3\0"
CHANGING_HEADER_BYTES = ((18, 20), (24, 28), (92, 100))
"""Journal mode, and counters of changes (sqlite.org/fileformat2.html, section 1.3)."""
COLMAP_4 = 4_000_000
"""Least ``PRAGMA user_version`` of a COLMAP 4 database; 4.2.1 has 4020100."""
TABLES = frozenset(
    "cameras rigs rig_sensors frames frame_data images keypoints matches "
    "two_view_geometries".split()
)
UPGRADE = (
    'python -c "import pycolmap, sys; pycolmap.Database.open(sys.argv[1]).close()" COPY'
)


def check_database(path: Path, *, to_replace: bool = False) -> tuple[str, ...]:
    """Refuse what is no complete COLMAP 4 database that is free to use.

    Args:
        path: the file.
        to_replace: also refuse a database that another process merely has open, since
            what that process writes later would be lost.

    Returns:
        Sentences on what ``copy_database`` will add.

    Raises:
        DatasetError: nothing there, no SQLite database, an empty file, a database of
            COLMAP 3, in use, broken off, or with rows that COLMAP cannot hold.
    """
    refuse_pieces(path)
    check_file(path)
    with sqlite_errors(path), closing(_connect(path)) as connection:
        _check_version(connection, path)
        _check_in_use(connection, to_replace)
        check_size(connection, path)
        (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise half_written(state)
        frameless = check_frames(connection, check_content(connection))
    if not frameless:
        return ()
    return (
        f"{path}: {len(frameless)} images had no frame, such as '{frameless[0]}': each "
        "gets its own",
    )


def check_unused(path: Path) -> None:
    """Refuse to replace a database that another process has open.

    What is no SQLite database passes.

    Raises:
        DatasetError: it is in use; what that process writes later would be lost.
    """
    if not path.is_file():
        return
    try:
        with closing(_connect(path)) as connection:
            _check_in_use(connection, to_replace=True)
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise _in_use(path) from error


def database_sha256(path: Path) -> str:
    """A digest of a database that stays the same when COLMAP only opens it.

    Opening turns write-ahead logging on, which changes the header of the file.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        header = bytearray(file.read(100))
        for start, stop in CHANGING_HEADER_BYTES:
            header[start:stop] = bytes(stop - start)
        digest.update(header)
        while block := file.read(1 << 20):
            digest.update(block)
    log = write_ahead_log(path)
    digest.update(log.read_bytes() if log.is_file() else b"")
    return digest.hexdigest()


def write_ahead_log(path: Path) -> Path:
    """Where SQLite keeps writes that are not yet in the file."""
    return path.with_name(f"{path.name}-wal")


def copy_database(path: Path, target: Path) -> None:
    """Copy a database that ``check_database`` has passed, pending writes included.

    Images without frame get one in the copy, where the database has rigs.

    Raises:
        OutputError: it cannot be read, or the copy cannot be written.
    """
    try:
        with closing(_connect(path)) as source, closing(
            sqlite3.connect(target)
        ) as copy:
            source.backup(copy)
            add_frames(copy)
    except sqlite3.Error as error:
        raise OutputError(
            f"{path}: cannot be copied to {target.parent}: {error}; free space there, "
            "or set TMPDIR to another folder"
        ) from error


@contextmanager
def open_to_read(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database of any version, which stays as it is; rows know their columns.

    Raises:
        DatasetError: no SQLite database, broken off, or broken where it is read.
    """
    check_file(path)
    log, mode = write_ahead_log(path), "mode=ro"
    if not (log.is_file() and log.stat().st_size) and _in_write_ahead_mode(path):
        mode = "immutable=1"  # else SQLite makes files beside it, and leaves them
    uri = f"file:{quote(str(path.resolve()))}?{mode}"
    with sqlite_errors(path), closing(sqlite3.connect(uri, uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def _in_write_ahead_mode(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(20)[18:20] == b"\2\2"


def check_file(path: Path) -> None:
    """Refuse what is no SQLite database, by its first bytes.

    Raises:
        DatasetError: naming what it is.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise DatasetError(f"{path}: found {found}, expected a COLMAP database")
    try:
        with path.open("rb") as file:
            header = file.read(len(SQLITE_HEADER))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    if not header:
        raise DatasetError(
            f"{path}: found an empty file, expected a COLMAP database; delete it, or "
            "name another one"
        )
    if header != SQLITE_HEADER:
        raise DatasetError(
            f"{path}: found no SQLite database, expected one of COLMAP 4; choose "
            "another file"
        )


def _connect(path: Path) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.resolve()))}?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    missing = TABLES - {name for (name,) in rows}
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if {"cameras", "images", "keypoints"} & missing:
        raise DatasetError(
            f"{path}: found an SQLite database without tables "
            f"{', '.join(sorted(missing))}, expected one of COLMAP 4; choose another "
            "file"
        )
    if missing or version < COLMAP_4:
        tables = f", no tables {', '.join(sorted(missing))}" if missing else ""
        raise DatasetError(
            f"{path}: found a database of COLMAP 3 or an older tool (version {version}"
            f"{tables}), expected COLMAP 4; copy it and upgrade the copy: {UPGRADE}"
        )


def _check_in_use(connection: sqlite3.Connection, to_replace: bool) -> None:
    try:
        if to_replace:  # in write-ahead mode every open connection holds a lock
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if "readonly" not in str(error):
            raise
    finally:
        connection.execute("PRAGMA locking_mode=NORMAL")


def check_size(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a truncated file, of which SQLite takes the rest of a page for zeros.

    Raises:
        BrokenContent: it is shorter than it says.
    """
    log = write_ahead_log(path)
    if log.is_file() and log.stat().st_size:
        return  # pages may still be there
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    size = path.stat().st_size
    if size < pages * page_size:
        raise half_written(f"found {size} bytes of {pages * page_size}")


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Name the database, and say in our words what SQLite finds wrong with it."""
    try:
        yield
    except BrokenContent as error:
        raise DatasetError(f"{path}: {error}") from error
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise _in_use(path) from error
        raise DatasetError(f"{path}: {half_written(str(error))}") from error
    except UnicodeDecodeError as error:  # of SQLite's message, which quotes the file
        reason = half_written("text that is not UTF-8")
        raise DatasetError(f"{path}: {reason}") from error


def _in_use(path: Path) -> DatasetError:
    return DatasetError(
        f"{path}: another process is using the database; close COLMAP, or wait for it "
        "to end"
    )
