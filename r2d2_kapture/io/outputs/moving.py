"""Outputs moved into the folder of another run, where files of one name grow."""

from __future__ import annotations

import fnmatch
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from r2d2_kapture.io.kapture.dataset import PARTIAL_FOLDER
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from r2d2_kapture.io.outputs.growing_archive import GrowingArchive
from r2d2_kapture.io.outputs.lock import LOCK_NAME
from r2d2_kapture.io.outputs.manifest import FILE_NAME

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
        merge: what adds files that both have in a folder with a lock, by pattern of
            their names; logs and archives grow, all others are replaced.

    Raises:
        OSError: the file system refused.
    """
    try:
        names = sorted(os.listdir(source))
    except FileNotFoundError:
        return
    is_ledger = LOCK_NAME in names
    for name in names:
        here, there = source / name, target / name
        if is_ledger and name in OF_RUNS:
            continue
        known = {**merge, **GROWING}
        add = next((known[p] for p in known if fnmatch.fnmatch(name, p)), None)
        if is_ledger and add is not None and here.is_file() and there.is_file():
            add(there, here)
            here.unlink()
        elif here.is_dir() and there.is_dir():
            move_outputs(here, there, merge)
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


GROWING: Mapping[str, Merge] = {"*.jsonl": _append, "*.tar": _append_members}
