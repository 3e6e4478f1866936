"""Images that match too little, maybe because they are turned against each other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from r2d2_kapture.io.outputs.manifest import FILE_NAME, read_manifest

INVARIANT = ("sift",)
"""Extractors whose features do not depend on rotation."""
SURE, CREDIBLE, CHANCE = 100, 25, 0.25
"""Inliers that are no chance, those of fewer that may be, and the share of matches that
RANSAC fits by chance: 63 of 400 in photographs turned by 90 degrees."""
WAY_OUT = (
    "if photographs are turned against each other by 90 or 180 degrees, as a drone "
    "that yaws takes them, extract them with --rotations auto"
)


def by_chance(inliers: int, matches: int) -> bool:
    """Whether a geometry may fit so many of the matches by chance."""
    return inliers < CREDIBLE or inliers < min(SURE, CHANCE * matches)


def seen_as_stored(folders: Iterable[Path]) -> bool:
    """Whether the record of any features says that images were not turned to match.

    Args:
        folders: of keypoints; those of other tools have no record.

    Raises:
        FeatureFormatError: a record is broken.
    """
    records = (read_manifest(folder / FILE_NAME) for folder in folders)
    return any(
        record.settings["extractor"] not in INVARIANT
        and record.settings.get("rotations", "exif") == "exif"
        for record in records
        if record is not None and "extractor" in record.settings
    )
