"""The best map image of a query, and the matches between the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kapture
import numpy as np
import numpy.typing as npt

from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.errors import R2D2KaptureError
from r2d2_kapture.io.colmap.cameras import colmap_camera
from r2d2_kapture.io.colmap.sparse_map import SparseMap, read_sparse_map
from r2d2_kapture.io.kapture.feature_table import FeatureTable, open_feature_table
from r2d2_kapture.io.kapture.match_store import MatchTable, open_matches
from r2d2_kapture.io.kapture.pairs import read_pairs
from r2d2_kapture.io.outputs.atomic import read_json
from r2d2_kapture.stages.localize import QueryResult
from r2d2_kapture.types import FloatArray

BoolArray = npt.NDArray[np.bool_]
DoubleArray = npt.NDArray[np.float64]

MAX_ERROR = 12.0
"""Default reprojection error in pixels of inliers, if the poses do not state one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryView:
    """Matches of a query with a map image.

    Attributes:
        image: name of the map image.
        xy_query, xy_image: (K, 2) matched pixels, (0, 0) at the centre of the first.
        inliers: (K,) whether the pose of the query projects the matched map point to
            the keypoint; all False without a pose.
    """

    image: str
    xy_query: FloatArray
    xy_image: FloatArray
    inliers: BoolArray


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryViews:
    """The inputs from which the matches of queries are read.

    Attributes:
        sparse_map: the map.
        keypoints: of queries and map images.
        matches: of the pairs.
        paired: map images that each query is paired with.
        origin: pixel origin of the principal points of the queries.
        max_error: reprojection error in pixels up to which matches are inliers.
    """

    sparse_map: SparseMap
    keypoints: FeatureTable
    matches: MatchTable
    paired: Mapping[str, Sequence[str]]
    origin: Any
    max_error: float

    def match_counts(self) -> dict[tuple[str, str], int]:
        """Matches of each pair of a query and a map image."""
        return {
            (query, image): self.matches.count(query, image) or 0
            for query, images in self.paired.items()
            for image in images
            if image in self.sparse_map.images
        }

    def best(self, query: str, result: QueryResult | None) -> QueryView | None:
        """The first of ``all``; None if there is none."""
        return next(iter(self.all(query, result)), None)

    def all(self, query: str, result: QueryResult | None) -> list[QueryView]:
        """The map images that a query is matched with.

        Args:
            query: its name.
            result: with its pose; None if it has none.

        Returns:
            Views by descending number of inliers, or of matches without a pose; those
            whose matches cannot be read are left out.
        """
        found: list[QueryView] = []
        for image in self.paired.get(query, ()):
            if image in self.sparse_map.images:
                with suppress(R2D2KaptureError):
                    found += self._view(query, image, result)
        return sorted(
            found,
            key=lambda view: (view.inliers.sum(), len(view.inliers)),
            reverse=True,
        )

    def _view(
        self, query: str, image: str, result: QueryResult | None
    ) -> list[QueryView]:
        """The view of a pair with matches."""
        matches = self.matches.read(query, image)
        if not matches:
            return []
        rows = matches.indices
        counts = self.keypoints.count(query), self.keypoints.count(image)
        matches.check_counts((query, image), counts)
        xy = [
            self.keypoints.read(name)[rows[:, column], :2].astype(np.float32)
            for column, name in enumerate((query, image))
        ]
        points = self.sparse_map.images[image].points_seen(rows[:, 1])
        inliers = np.zeros(len(rows), bool)
        seen = points >= 0
        if result is not None and seen.any():
            inliers[seen] = self._agree(
                result, self.sparse_map.points[points[seen]], xy[0][seen]
            )
        return [QueryView(image=image, xy_query=xy[0], xy_image=xy[1], inliers=inliers)]

    def _agree(
        self, result: QueryResult, points: DoubleArray, xy: FloatArray
    ) -> BoolArray:
        model, *parameters = result.camera
        camera = colmap_camera(kapture.Camera(model, parameters), 1, self.origin)
        in_camera = result.pose * points
        errors = np.linalg.norm(
            camera.img_from_cam(in_camera) - colmap_from_kapture(xy), axis=1
        )
        agree: BoolArray = (errors <= self.max_error) & (in_camera[:, 2] > 0)
        return agree


def open_query_views(
    *,
    map_path: Path,
    features: Sequence[Path],
    matches: Path,
    pairs: Path,
    localized: Path,
    keypoints_type: str | None,
) -> QueryViews | None:
    """The inputs of queries in the output of a pipeline; None if some are missing.

    Args:
        map_path: the map.
        features: folders of keypoints of queries and map images.
        matches: folder of the matches of the pairs.
        pairs: list of queries and map images.
        localized: folder of the poses, with the settings of localization.
        keypoints_type: in use; None takes the only existing one.
    """
    found = [folder for folder in features if folder.is_dir()]
    try:
        keypoints = open_feature_table(found, "keypoints", keypoints_type)
        paired: dict[str, list[str]] = {}
        for pair in read_pairs(pairs):
            paired.setdefault(pair.image1, []).append(pair.image2)
        return QueryViews(
            sparse_map=read_sparse_map(map_path, keypoints.type_name),
            keypoints=keypoints,
            matches=open_matches([matches], keypoints.type_name),
            paired=paired,
            origin=read_json(localized / "report.json").get("camera_origin", "center"),
            max_error=read_json(localized / "manifest.json")
            .get("settings", {})
            .get("max_error", MAX_ERROR),
        )
    except R2D2KaptureError:
        return None
