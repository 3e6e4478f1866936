"""Export of features of a kapture dataset to the formats of other tools."""

from __future__ import annotations

import time
from pathlib import Path

from r2d2_kapture.config.cameras import CameraMode
from r2d2_kapture.config.extract import ExportFormat
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.coordinates import CameraOrigin
from r2d2_kapture.io.kapture.match_store import find_matches
from r2d2_kapture.io.outputs.ledger import Contents
from r2d2_kapture.stages.export.colmap_database import ColmapDatabase
from r2d2_kapture.stages.export.feature_files import (
    ColmapTexts,
    H5File,
    source_features,
)
from r2d2_kapture.stages.export.formats import Format
from r2d2_kapture.stages.export.outputs import REPORT_NAME, Export
from r2d2_kapture.stages.export.source import Source, open_source
from r2d2_kapture.types import Report

DEFAULT_OUTPUTS: dict[ExportFormat, str] = {
    "colmap-db": "colmap.db",
    "h5": "features.h5",
    "colmap-text": "colmap_text",
}
FOLDERS: dict[ExportFormat, Contents] = {
    "colmap-text": Contents(
        what="export", files=("**/*.txt", REPORT_NAME), by_name=True
    ),
}
"""Formats of several files, and what these are called."""


def run(
    *,
    kapture_root: Path,
    to: ExportFormat,
    output: Path | None = None,
    keypoints_type: str | None = None,
    descriptors_type: str | None = None,
    camera_origin: CameraOrigin = "auto",
    keypoint_origin: CameraOrigin = "auto",
    camera_mode: CameraMode = "auto",
    options: RunOptions = RunOptions(),
) -> Report:
    """Export the features of a kapture dataset for other tools.

    The output is a COLMAP 4 database, hloc's HDF5 layout, or COLMAP's text files.
    Images whose size differs from that of their camera or keypoints get no keypoints
    and no matches in a database, and fail.

    Args:
        kapture_root: folder of a kapture dataset.
        to: ``colmap-db``: cameras, rigs, frames, images, keypoints in COLMAP's pixel
            origin, matches; ``h5``: features file of hloc; ``colmap-text``: one file
            per image.
        output: file, or folder for colmap-text; by default colmap.db, features.h5 or
            colmap_text in the dataset.
        keypoints_type, descriptors_type: by default the only existing one.
        camera_origin: pixel origin of principal points: the ``center`` of the first
            pixel (kapture) or its ``corner`` (COLMAP); ``auto`` takes the origin stated
            in files, else infers it from principal points at (W / 2, H / 2) and from
            names of COLMAP's import.
        keypoint_origin: pixel origin of third-party keypoints: the ``center`` of the
            first pixel (R2D2, hloc) or its ``corner`` (COLMAP); ``auto`` takes the
            origin stated in files, else that of the cameras.
        camera_mode: for colmap-db, which images of unknown cameras (UNKNOWN_CAMERA)
            share one: ``auto`` those of the same sensor of the dataset; ``single`` all
            of the same size; ``per-folder`` those of the same folder and size;
            ``per-image`` none; known cameras, and those of rigs, are never merged.
        options: force (redo an export, or replace a file of others) and progress are
            used.

    Raises:
        DatasetError, FeatureFormatError, OutputError: nothing is written. A file that
            no export wrote, or one made with other settings, stays without force.
    """
    started = time.monotonic()
    source = open_source(
        kapture_root,
        keypoints_type=keypoints_type,
        camera_origin=camera_origin,
        keypoint_origin=keypoint_origin,
    )
    export = Export(
        source=source,
        form=_open_format(to, source, descriptors_type, camera_mode),
        root=kapture_root,
        settings={"to": to},
        output=output or kapture_root / DEFAULT_OUTPUTS[to],
        started=started,
        options=options,
    )
    return export.to_folder(FOLDERS[to]) if to in FOLDERS else export.to_file()


def _open_format(
    to: ExportFormat,
    source: Source,
    descriptors_type: str | None,
    camera_mode: CameraMode,
) -> Format:
    if to == "colmap-db":
        matches = find_matches(source.roots, source.keypoints.type_name)
        return ColmapDatabase(source=source, matches=matches, camera_mode=camera_mode)
    tables = source_features(source, descriptors_type)
    kind = H5File if to == "h5" else ColmapTexts
    return kind(source=source, tables=tables)
