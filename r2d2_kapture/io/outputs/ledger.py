"""Outputs that are open for work: locked, compared with how they were made, resumed.

What every command agrees on:

- An output says how it was made: a folder by ``manifest.json`` in it.
- One made otherwise is refused, or with ``force`` what the command makes is redone.
- What the command does not make stays; a folder of nothing else is refused even with
  ``force``.
- Items appear whole, so that a killed run resumes; a run without new work writes
  nothing.
"""

from __future__ import annotations

import filecmp
import os
import platform
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from threading import get_ident
from typing import Any, BinaryIO

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import FeatureFormatError, OutputError
from r2d2_kapture.io.kapture.dataset import PARTIAL_FOLDER
from r2d2_kapture.io.names import shown
from r2d2_kapture.io.outputs.atomic import output_error, write_json_atomic
from r2d2_kapture.io.outputs.atomic_folder import building_folder, owned
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from r2d2_kapture.io.outputs.lock import LOCK_NAME, exclusive
from r2d2_kapture.io.outputs.manifest import FILE_NAME, Manifest, read_manifest
from r2d2_kapture.types import Report

STAGE = "stage"
"""Setting that tells commands apart whose folders could be mistaken."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a command makes in a folder.

    Attributes:
        what: noun in the plural, for messages.
        files: glob patterns of its files, besides the manifest.
        flag: of the command, which chooses another place.
        by_name: whether files of these names are ours to replace where no manifest
            says whose they are.
        named: the output that messages name; None names the folder.
    """

    what: str
    files: tuple[str, ...]
    flag: str = "--output"
    by_name: bool = False
    named: Path | None = None

    def refusal(self, place: Path, found: str, *, forcible: bool = True) -> OutputError:
        """The error of an output that is in the way: what was found, and the way out.

        Args:
            place: of the output.
            found: words that follow "found".
            forcible: whether ``force`` would replace it.
        """
        forced = f", or --force to redo the {self.what}" if forcible else ""
        return OutputError(
            f"{self.named or place}: found {found}; choose another {self.flag}{forced}"
        )

    def refuse(self, place: Path, differences: list[str]) -> None:
        """Refuse an output that was made otherwise.

        Args:
            place: of the output.
            differences: see ``manifest.differences``; without any it passes.

        Raises:
            OutputError: naming them.
        """
        if differences:
            found = f"{self.what} made with {'; '.join(differences)}"
            raise self.refusal(place, found)


@contextmanager
def open_ledger(
    folder: Path,
    contents: Contents,
    manifest: Manifest,
    options: RunOptions,
    *,
    anew: bool = False,
) -> Iterator[bool]:
    """Lock a folder for outputs made in one way, and write the manifest that says how.

    Args:
        folder: made where it is missing.
        contents: what of it is ours.
        manifest: of what will be written.
        options: whether outputs made otherwise are removed. Those made with the same
            settings stay, for the caller to keep or to write again.
        anew: remove these too.

    Yields:
        Whether there are no outputs, or none any more.

    Raises:
        OutputError: the folder has outputs made otherwise or other content, another run
            is writing it, or it cannot be written.
        FeatureFormatError: its manifest cannot be read.
    """
    # first, since even a lock does not belong into a folder of others
    is_made_with(folder, contents, manifest, options)
    with exclusive(folder, contents.named):
        remove = not is_made_with(folder, contents, manifest, options) or anew
        if remove:
            _remove_ours(folder, contents)
            write_json_atomic(folder / FILE_NAME, manifest.to_json())
        _remove_partial(folder)
        yield remove
        _remove_partial(folder)


@contextmanager
def rebuilding(folder: Path, contents: Contents, manifest: Manifest) -> Iterator[Path]:
    """Give an empty folder that replaces what is ours in ``folder`` when complete.

    Raises:
        OutputError: see ``building_folder``.
    """
    with building_folder(folder, (*contents.files, FILE_NAME)) as new:
        yield new
        write_json_atomic(new / FILE_NAME, manifest.to_json())


def is_made_with(
    folder: Path,
    contents: Contents,
    manifest: Manifest,
    options: RunOptions,
    *,
    older: Manifest | None = None,
) -> bool:
    """Whether a folder has outputs of the same settings and inputs.

    Args:
        folder: may be missing.
        contents: what of it is ours.
        manifest: of the outputs wanted.
        options: whether outputs made otherwise may be replaced.
        older: how outputs without a manifest were made, if another file says so.

    Raises:
        OutputError: there are outputs made otherwise that must not be replaced, or
            other content and no manifest.
        FeatureFormatError: the manifest cannot be read and must not be replaced.
    """
    try:
        existing = read_manifest(folder / FILE_NAME) or older
    except FeatureFormatError:
        if not options.replaces:
            raise
        existing = None
    ours = existing is not None and (
        existing.settings.get(STAGE) == manifest.settings.get(STAGE)
    )
    if existing is None or not ours:
        _refuse_others(folder, contents, options, of_another=existing is not None)
        return False
    differences = manifest.differences(existing)
    if not options.replaces:
        contents.refuse(folder, differences)
    return not differences and manifest.has_inputs_of(existing)


def _refuse_others(
    folder: Path, contents: Contents, options: RunOptions, *, of_another: bool
) -> None:
    """Refuse a folder without our manifest that holds anything."""
    if folder.exists() and not folder.is_dir():
        raise contents.refusal(folder, "a file", forcible=False)
    if of_another:
        found = f"a {FILE_NAME} of something else than {contents.what}"
        raise contents.refusal(folder, found, forcible=False)
    patterns = [p.replace("**/", "") for p in contents.files if contents.by_name]
    ours = False
    for place, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in sorted([*names, *links]):
            inside = os.path.relpath(os.path.join(place, name), folder)
            # hidden: the lock, and what runs killed at their start left
            if inside.startswith(".") or inside == FILE_NAME:
                continue
            if not any(fnmatch(inside, pattern) for pattern in patterns):
                found = (
                    f"'{shown(inside)}' without a {FILE_NAME} of {contents.what}, "
                    "expected an earlier output or an empty folder"
                )
                raise contents.refusal(folder, found, forcible=False)
            ours = True
    if ours and not options.replaces:
        found = f"{contents.what} without {FILE_NAME}, made by another tool"
        raise contents.refusal(folder, found)


def _remove_ours(folder: Path, contents: Contents) -> None:
    """Remove what a command makes, last the manifest, by which it is recognised."""
    ours = owned(folder, contents.files)
    if ours and folder.is_symlink():
        found = f"a link to {folder.resolve()}, which --force would empty"
        raise contents.refusal(folder, found, forcible=False)
    try:
        for path in (*ours, folder / FILE_NAME):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def remove_outputs(folder: Path, contents: Contents) -> None:
    """Remove what a command makes in a folder, and the folders that are empty then.

    Raises:
        OutputError: the file system refused, another run is writing the folder, or it
            is a link.
    """
    with exclusive(folder):
        _remove_ours(folder, contents)
    try:
        for name in (FINISHED_NAME, LOCK_NAME):
            (folder / name).unlink(missing_ok=True)
        for place, _, _ in os.walk(folder, topdown=False):
            if not any(Path(place).iterdir()):
                os.rmdir(place)
    except OSError as error:
        raise output_error(folder, error) from error


def _remove_partial(folder: Path) -> None:
    """Remove what this run or a killed one left, not what a link leads to."""
    partial = folder / PARTIAL_FOLDER
    if partial.is_symlink():
        partial.unlink()
    shutil.rmtree(partial, ignore_errors=True)


def write_item(folder: Path, path: Path | str, data: bytes) -> None:
    """Write a whole file of an open folder, or none.

    Raises:
        OutputError: see ``open_item``.
    """
    with open_item(folder, path) as file:
        file.write(data)


@contextmanager
def open_item(
    folder: Path, path: Path | str, *, keep_same: bool = False
) -> Iterator[BinaryIO]:
    """Give a file to write, which becomes ``path`` in an open folder when it is whole.

    What a killed run leaves is kept apart, so that it is never taken for an output.

    Args:
        folder: that is open.
        path: in it.
        keep_same: whether a file of the same content stays as it is.

    Raises:
        OutputError: the file system refused, or a link leads out of the folder.
    """
    ours = f"{platform.node()}-{os.getpid()}-{get_ident()}.tmp"
    partial = os.path.join(folder, PARTIAL_FOLDER, ours)
    try:
        _make_inside(folder, os.path.dirname(path))
        os.makedirs(os.path.dirname(partial), exist_ok=True)
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if (
            keep_same
            and os.path.isfile(path)
            and filecmp.cmp(partial, path, shallow=False)
        ):
            os.unlink(partial)
        else:
            os.replace(partial, path)
    except OSError as error:
        raise output_error(Path(path), error) from error


def _make_inside(folder: Path, parent: str) -> None:
    """Make the folder of an item; below the open folder, only links may lead out.

    Raises:
        OutputError: one does.
    """
    place = str(folder)
    for name in parent.removeprefix(place).split(os.sep)[1:]:
        place = os.path.join(place, name)
        try:
            is_link = stat.S_ISLNK(os.lstat(place).st_mode)
        except FileNotFoundError:
            os.makedirs(parent, exist_ok=True)
            return
        if is_link and not Path(place).resolve().is_relative_to(folder.resolve()):
            raise OutputError(f"{place}: a link that leaves {folder}; remove it")


def write_report(path: Path, report: Report, more: Mapping[str, Any] = {}) -> Report:
    """Write a report as JSON beside its output; without new work keep the earlier one.

    Args:
        path: of the file.
        report: of a run.
        more: values for the file alone.

    Raises:
        OutputError: the file system refused.
    """
    if report.done or report.failed or not path.exists():
        write_json_atomic(path, {**report.to_json(), **more})
    return report
