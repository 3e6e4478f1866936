"""Outputs moved into the folder of another run, where files of one name grow."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from r2d2_kapture.io.kapture.dataset import PARTIAL_FOLDER
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from r2d2_kapture.io.outputs.growing_archive import GrowingArchive
from r2d2_kapture.io.outputs.lock import LOCK_NAME
from r2d2_kapture.io.outputs.manifest import FILE_NAME
from r2d2_kapture.io.stores.shards import FOLDER_NAME as SHARDS_NAME
from r2d2_kapture.io.stores.shards import move_shards

Merge = Callable[[Path, Path], None]
"""Adds to a file, the first, what another has, which is removed then."""

OF_RUNS = (LOCK_NAME, FINISHED_NAME, PARTIAL_FOLDER, FILE_NAME)
"""In a folder with a lock, what each run has of its own."""


def move_outputs(source: Path, target: Path, merge: Mapping[str, Merge]) -> None:
    """Move files to the same places in another folder on the same file system.

    Folders that are missing there are moved as a whole. A run that was killed is
    repeated; what is gone then has been moved.

    Args:
        source: what a run wrote.
        target: where another run writes; it is locked.
        merge: what adds files that both have in a folder with a lock, by name; logs
            and archives grow, shards follow those there, all others are replaced.

    Raises:
        OSError: the file system refused.
    """
    try:
        entries = sorted(os.scandir(source), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    is_ledger = any(entry.name == LOCK_NAME for entry in entries)
    for entry in entries:
        here, there = entry.path, os.path.join(target, entry.name)
        if is_ledger and entry.name in OF_RUNS:
            continue
        if is_ledger and entry.name == SHARDS_NAME:
            move_shards(Path(here), Path(there))
            continue
        if entry.is_dir() and os.path.isdir(there):
            move_outputs(Path(here), Path(there), merge)
            continue
        suffix = os.path.splitext(entry.name)[1]
        add = merge.get(entry.name) or GROWING.get(suffix) if is_ledger else None
        if add is not None and os.path.isfile(there):
            add(Path(there), Path(here))
            os.unlink(here)
        else:
            os.replace(here, there)


def _append(whole: Path, log: Path) -> None:
    """Add the lines of a log, unless a killed run has, and did not remove them."""
    lines = log.read_bytes()
    with open(whole, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - len(lines), 0))
        if file.read() != lines:
            file.seek(end)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())


def _append_members(whole: Path, archive: Path) -> None:
    with GrowingArchive(whole) as growing, tarfile.open(archive, "r:") as members:
        for member in members:
            content = members.extractfile(member)
            if content is not None:
                growing.append(member.name, content.read())
            members.members.clear()  # type: ignore[attr-defined]


def leave(whole: Path, part: Path) -> None:
    """Add nothing: the whole has all that the file of the slice says."""


GROWING: Mapping[str, Merge] = {".jsonl": _append, ".tar": _append_members}
"""By the suffixes of names."""
