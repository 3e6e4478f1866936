"""Folders written atomically: built next to their place, then moved."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from r2d2_kapture.io.outputs.atomic import FULL, output_error
from r2d2_kapture.io.outputs.lock import exclusive


@contextmanager
def building_folder(path: Path, ours: Iterable[str]) -> Iterator[Path]:
    """Give an empty folder to fill, which becomes ``path`` if the block succeeds.

    It is next to ``path`` in ``.<name>.partial``, which is locked, and removed at the
    end. A folder at ``path`` is replaced: its former content is removed after the new
    one is in place, and put back by the next run if a kill came in between.

    Args:
        path: of the folder.
        ours: glob patterns of the files that are replaced; all others stay.

    Raises:
        OutputError: another run is building the same folder, the file system refused,
            or is full, which the block need not say; other exceptions of the block
            pass, and ``path`` is as it was.
    """
    path = path.resolve()  # a link is the user's choice of a disk, and stays
    workplace = path.with_name(f".{path.name[:200]}.partial")
    old, new = workplace / "old", workplace / "new"
    with exclusive(workplace):
        try:
            _put_back(old, path, ours)
            try:
                shutil.rmtree(new, ignore_errors=True)
                new.mkdir()
            except OSError as error:
                raise output_error(path, error) from error
            try:
                yield new
            except OSError as error:
                if error.errno not in FULL:
                    raise
                raise output_error(path, error) from error
            try:
                if path.exists():
                    os.replace(path, old)
                os.replace(new, path)
            except OSError as error:
                raise output_error(path, error) from error
        finally:
            _put_back(old, path, ours)
            shutil.rmtree(workplace, ignore_errors=True)


def owned(folder: Path, patterns: Iterable[str]) -> set[Path]:
    """Files in a folder that match any of glob patterns, links included."""
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return {path for path in found if path.is_symlink() or not path.is_dir()}


def _put_back(old: Path, path: Path, ours: Iterable[str]) -> None:
    """Put a folder back, or what is not ours into the one that replaces it."""
    try:
        if not old.exists():
            return
        if not path.exists():
            os.replace(old, path)
            return
        for other in owned(old, ["**/*"]) - owned(old, ours):
            place = path / other.relative_to(old)
            if not os.path.lexists(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(other, place)
    except OSError as error:
        raise output_error(path, error) from error
