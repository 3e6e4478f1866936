"""What all slices of an output agree on: their number, and how they are made."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.slices import ALL
from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.outputs.atomic import write_json_atomic
from r2d2_kapture.io.outputs.ledger import Contents
from r2d2_kapture.io.outputs.manifest import FILE_NAME, Manifest, read_manifest
from r2d2_kapture.io.outputs.pieces import report_of, slices_in


def agree_on_count(folder: Path, output: Path, count: int) -> None:
    """Compare the number of slices with that of those that are begun.

    Args:
        folder: of the slices.
        output: that messages name.
        count: of slices.

    Raises:
        OutputError: they are another number.
    """
    others = [part for part in slices_in(folder) if part.count != count]
    if others:
        raise OutputError(
            f"{output}: found slice {others[0]} of it in {folder}, expected n = "
            f"{count}; go on with n = {others[0].count} and put the slices together "
            f"with --slice {ALL}, or remove that folder"
        )
    for other in slices_in(folder, ".json"):
        if other.count != count:  # of slices that have been put together
            report_of(folder, other).unlink(missing_ok=True)


def agree_on_settings(
    folder: Path,
    output: Path,
    contents: Contents,
    manifest: Manifest,
    options: RunOptions,
) -> None:
    """Compare with the settings of the first slice; of two at once one is the first.

    Args:
        folder: of the slices.
        output: that messages name.
        contents: of it.
        manifest: how a slice will be made.
        options: whether outputs made otherwise are replaced.

    Raises:
        OutputError: the first slice was made otherwise, and is not replaced.
    """
    path = folder / FILE_NAME
    begun = slices_in(folder)
    there = read_manifest(path)
    first = there or _noted(path, manifest)
    differences = manifest.differences(first)
    # runs that found everything done leave the settings of the output as it was
    if not options.replaces and (begun or there is None):
        contents.refuse(output, differences)
    if differences or not manifest.has_inputs_of(first):
        write_json_atomic(path, manifest.to_json())


def _noted(path: Path, manifest: Manifest) -> Manifest:
    """Note a manifest, and give the one that is noted then."""
    own = path.with_name(f".{FILE_NAME}.{uuid.uuid4().hex}")
    write_json_atomic(own, manifest.to_json())
    with suppress(OSError):  # it exists, or the file system has no links
        os.link(own, path)
    own.unlink(missing_ok=True)
    noted = read_manifest(path)
    if noted is None:
        write_json_atomic(path, manifest.to_json())
    return noted or manifest
