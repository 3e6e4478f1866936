"""Extraction that an earlier run has finished: what decides it, and what it reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.images.masks import MaskFolder
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Files, Finished
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.io.outputs.slice_reports import OwnWork
from r2d2_kapture.io.outputs.slices import Sliced
from r2d2_kapture.types import Report

OF_ITS_OWN = OwnWork(
    sums=("keypoints",),
    averages={"keypoints_per_image": "keypoints"},
    noun="keypoint",
)


def extraction_of(
    folder: Path,
    manifest: Manifest,
    settings: object,
    files: Files,
    masks: MaskFolder | None,
    names: Iterable[str],
    source: str = "",
) -> Finished:
    """The inputs of an extraction, taken before they are read.

    Args:
        folder: of the note.
        manifest: of the features.
        settings: others that change the outputs or the report.
        files: of the images, and what lists them.
        masks: of the images.
        names: of the images.
        source: one of several whose features are in one folder.
    """
    of_masks = () if masks is None else masks.files(names)
    return Finished.of(
        folder / FINISHED_NAME,
        [manifest.model, manifest.settings, settings],
        chain(files, of_masks),
        source,
    )


def is_repeatable(sliced: Sliced, options: RunOptions) -> bool:
    """Whether a finished run may be all that there is to do."""
    return not (options.force or sliced.is_part or sliced.is_waiting)


def note_extraction(
    finished: Finished,
    report: Report,
    warnings: tuple[str, ...],
    outputs: Files,
    items: Files,
) -> None:
    """Note the end of an extraction without failures, as the next run will report it.

    Args:
        finished: see extraction_of.
        report: of the run.
        warnings: of it, that are of the images and not of what the run did.
        outputs: that are few.
        items: that are one or more an image.

    Raises:
        OutputError: the file system refused, unless nothing was done.
    """
    if report.failed:  # these are tried again
        return
    again = OF_ITS_OWN.without(report)
    work = {"replaced": 0, "turned": {}}
    details = again.details | {k: v for k, v in work.items() if k in again.details}
    finished.note(
        dataclasses.replace(again, warnings=warnings, details=details), outputs, items
    )
