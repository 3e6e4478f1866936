"""A second export of a dataset with nothing to do, noticed before anything is opened.

Opening a dataset and its features takes a quarter of an export; looking at the sizes
and times of all their files takes little.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from r2d2_kapture.io.kapture.dataset_stamps import stamped_files
from r2d2_kapture.io.outputs.finished import Finished
from r2d2_kapture.stages.export.inputs import Inputs
from r2d2_kapture.types import Report

NOTE_NAME = ".unchanged.json"


def early_note(
    inputs: Inputs, verified: Path, output: Path, *, is_file: bool, settings: object
) -> Finished | None:
    """Where the end of this export is noted, with all files that it may read.

    Args:
        inputs: of the export.
        verified: folder of geometries, which may be missing.
        output: file or folder.
        is_file: which of both.
        settings: of the user.

    Returns:
        None for a pipeline, whose inputs lie in many places.
    """
    if inputs.layout is not None:
        return None
    notes = output.with_name(f".{output.name}.export") if is_file else output
    root = inputs.mapping
    files = [
        *stamped_files(root),
        *_files_below(root / "reconstruction"),
        *_files_below(verified),
    ]
    return Finished.of(notes / NOTE_NAME, settings, files)


def note_end(note: Finished | None, report: Report, output: Path) -> Report:
    """Note that an export has ended, unless images failed, which are tried again."""
    if note is None or report.failed:
        return report
    written = [str(output)] if output.is_file() else _files_below(output)
    of_runs = os.path.join(output, ".")
    return note.note(report, (file for file in written if not file.startswith(of_runs)))


def _files_below(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        yield from (os.path.join(place, name) for name in sorted(names))
