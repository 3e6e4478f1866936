"""Verified matches of kapture with the geometries in the log beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pycolmap

from r2d2_kapture.io.colmap.geometry_log import (
    LOG_NAME,
    PairGeometry,
    read_geometries,
)
from r2d2_kapture.io.kapture.match_store import MatchTable, find_matches, matches_folder

Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class VerifiedMatches:
    """What kapture_r2d2_verify and kapture_r2d2_import write.

    Attributes:
        matches: the inliers of each pair.
        geometries: of pairs; may lack some.
    """

    matches: MatchTable
    geometries: Mapping[Pair, PairGeometry]

    @property
    def files(self) -> Iterator[Path | str]:
        """Logs, and where the inliers are."""
        yield from (folder / LOG_NAME for folder, _ in self.matches.folders)
        yield from self.matches.files(self.matches.pairs)

    def read(self, image1: str, image2: str) -> pycolmap.TwoViewGeometry | None:
        """The geometry from image 1 to image 2, names in ascending order.

        Inliers without a geometry are taken for those of uncalibrated cameras; None
        where there is nothing.

        Raises:
            FeatureFormatError: the file of matches is broken.
        """
        inliers = self.matches.read(image1, image2)
        if inliers is None:
            return None
        known = self.geometries.get((image1, image2))
        if known is not None:
            return known.two_view_geometry(inliers.indices)
        geometry = pycolmap.TwoViewGeometry()
        kinds = pycolmap.TwoViewGeometryConfiguration
        geometry.config = kinds.UNCALIBRATED if len(inliers) else kinds.DEGENERATE
        geometry.inlier_matches = inliers.indices.astype("uint32")
        return geometry


def find_verified(root: Path, keypoints_type: str) -> VerifiedMatches:
    """The verified matches of a keypoints type in a folder; there may be none.

    Args:
        root: of kapture_r2d2_verify --output.
        keypoints_type: whose matches.

    Raises:
        DatasetError: an archive is unreadable or unsafe.
    """
    matches = find_matches([root], keypoints_type)
    log = matches_folder(root, keypoints_type) / LOG_NAME
    return VerifiedMatches(matches=matches, geometries=read_geometries(log))
