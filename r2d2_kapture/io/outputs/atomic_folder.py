"""Folders written atomically: built next to their place, then moved."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.outputs.atomic import output_error
from r2d2_kapture.io.outputs.lock import exclusive


@contextmanager
def building_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which becomes ``path`` if the block succeeds.

    It is next to ``path`` in ``.<name>.partial``, which is locked, and removed at the
    end. A folder at ``path`` is replaced: its former content is removed after the new
    one is in place, and put back by the next run if a kill came in between.

    Raises:
        OutputError: another run is building the same folder, or the file system
            refused; other exceptions of the block pass, and ``path`` is as it was.
    """
    workplace = path.with_name(f".{path.name[:200]}.partial")
    old, new = workplace / "old", workplace / "new"
    with exclusive(workplace):
        try:
            try:
                _put_back(old, path)
                shutil.rmtree(new, ignore_errors=True)
                new.mkdir()
            except OSError as error:
                raise output_error(path, error) from error
            yield new
            try:
                if path.exists():
                    os.replace(path, old)
                os.replace(new, path)
            except OSError as error:
                raise output_error(path, error) from error
        finally:
            _put_back(old, path)
            shutil.rmtree(workplace, ignore_errors=True)


def _put_back(old: Path, path: Path) -> None:
    if old.exists() and not path.exists():
        os.replace(old, path)


def refuse_foreign_folder(path: Path, marker: str) -> None:
    """Refuse to replace a folder that holds anything but lacks our file.

    Args:
        path: of the folder.
        marker: name of a file that each folder of ours holds.

    Raises:
        OutputError: not a folder, or one with content of something else.
    """
    if path.is_dir() and ((path / marker).is_file() or not any(path.iterdir())):
        return
    if path.exists():
        found = "a folder of other content" if path.is_dir() else "a file"
        raise OutputError(f"{path}: found {found}; choose another --output")
