"""Folders of outputs made in one way: locked, compared with their manifest, resumed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident

from r2d2_kapture.errors import FeatureFormatError, OutputError
from r2d2_kapture.io.kapture.dataset import PARTIAL_FOLDER
from r2d2_kapture.io.outputs.atomic import is_temporary, output_error, write_json_atomic
from r2d2_kapture.io.outputs.lock import LOCK_NAME, exclusive
from r2d2_kapture.io.outputs.manifest import FILE_NAME, Manifest, read_manifest

WAY_OUT = "choose another place, or --force to redo them"


@contextmanager
def claimed(
    folder: Path, manifest: Manifest, *, what: str, suffix: str, force: bool
) -> Iterator[bool]:
    """Lock a folder for outputs made in one way, and write the manifest that says how.

    Args:
        folder: made where it is missing.
        manifest: of what will be written.
        what: the outputs, for messages.
        suffix: of the files that hold them.
        force: remove outputs that were made otherwise. Those made with the same
            settings stay, for the caller to keep or to write again.

    Yields:
        Whether outputs that were made otherwise may have been removed.

    Raises:
        OutputError: the folder holds outputs made otherwise, another run is writing
            it, or it cannot be written.
        FeatureFormatError: its manifest cannot be read.
    """
    with exclusive(folder):
        if not force:
            _refuse_others(folder, manifest, what)
        emptied = force and _remove_others(folder, manifest, suffix)
        write_json_atomic(folder / FILE_NAME, manifest.to_json())
        yield emptied
        # what this run or a killed one left
        shutil.rmtree(folder / PARTIAL_FOLDER, ignore_errors=True)


def remove_files(folder: Path, suffix: str) -> None:
    """Remove the outputs of a claimed folder.

    Raises:
        OutputError: the file system refused.
    """
    try:
        for path in list(folder.rglob(f"*{suffix}")):
            path.unlink()
    except OSError as error:
        raise output_error(folder, error) from error


def write_claimed(folder: Path, path: Path, data: bytes) -> None:
    """Write a whole file of a claimed folder, or none.

    What a killed run leaves is kept apart, so that it is never taken for an output.

    Raises:
        OutputError: the file system refused.
    """
    partial = folder / PARTIAL_FOLDER / f"{get_ident()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.parent.mkdir(exist_ok=True)
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise output_error(path, error) from error


def _refuse_others(folder: Path, manifest: Manifest, what: str) -> None:
    existing = read_manifest(folder / FILE_NAME)
    if existing is None:
        others = (path for path in folder.iterdir() if path.name != LOCK_NAME)
        if not all(map(is_temporary, others)):
            raise OutputError(
                f"{folder}: found {what} without {FILE_NAME}, written by another tool; "
                f"{WAY_OUT}"
            )
        return
    differences = manifest.differences(existing)
    if differences:
        raise OutputError(
            f"{folder}: found {what} made with {'; '.join(differences)}; {WAY_OUT}"
        )


def _remove_others(folder: Path, manifest: Manifest, suffix: str) -> bool:
    """Empty a folder of other outputs; return whether there were any."""
    try:
        existing = read_manifest(folder / FILE_NAME)
    except FeatureFormatError:
        existing = None
    if existing is not None and not manifest.differences(existing):
        return False
    remove_files(folder, suffix)
    try:
        # last, so that a run killed here is still recognised
        (folder / FILE_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    return True
