"""Views of a frame with what a second search near its first pose finds."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.colmap.sparse_map import SparseMap
from r2d2_kapture.io.kapture.feature_provenance import feature_states
from r2d2_kapture.io.kapture.local_features import (
    LocalFeatureTables,
    open_local_features,
)
from r2d2_kapture.stages.localize.cameras import QueryImage
from r2d2_kapture.stages.localize.matches import QueryMatches
from r2d2_kapture.stages.localize.pose_estimation import View
from r2d2_kapture.stages.localize.second_pass import (
    MOST_IMAGES,
    ReadDescriptors,
    second_matches,
    with_second,
)
from r2d2_kapture.stages.localize.solution import Solution
from r2d2_kapture.types import FloatArray

DoubleArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PointSearch:
    """Searches for the points of a map where a first pose puts them.

    May be used by several threads.

    Attributes:
        sparse_map: the map.
        of_map: descriptors of a map image, by name.
        of_query: those of a query.
        identify: says what determines the descriptors, of a query and of the map.
    """

    sparse_map: SparseMap
    of_map: ReadDescriptors
    of_query: ReadDescriptors
    identify: Callable[[QueryImage], str]

    def __call__(
        self, first: Solution, matches: Sequence[QueryMatches]
    ) -> tuple[View, ...]:
        """The views of a frame with the correspondences that are found.

        Args:
            first: pose of the frame.
            matches: of its images.

        Returns:
            The same views for images without descriptors.
        """
        return tuple(
            self._search(first, index, of_image.xy)
            for index, of_image in enumerate(matches)
        )

    def _search(self, first: Solution, index: int, xy: DoubleArray) -> View:
        view, mask = first.views[index], first.pose.inliers[index]
        try:
            descriptors = self.of_query(view.image.name)
            if descriptors is None or len(descriptors) != len(xy) or not mask.any():
                return view
            found = second_matches(
                self.sparse_map,
                view.correspondences.take(mask),
                camera=first.pose.cameras[index],
                cam_from_world=view.image.cam_from_rig * first.pose.rig_from_world,
                xy=xy,
                descriptors=descriptors,
                read_descriptors=self.of_map,
            )
        except FeatureFormatError:
            return view
        both = with_second(view.correspondences, found)
        return dataclasses.replace(
            view,
            xy=xy[both.keypoints],
            points=self.sparse_map.points[both.points],
            correspondences=both,
        )


def is_searched(config: LocalizeConfig, *, refined: bool) -> bool:
    """Whether there is a second pass, given whether keypoints are refined.

    Those that it finds agree with the pose less precisely than the best match does, and
    unrefined make it no better where there are many.
    """
    return config.second_pass == "on" or (config.second_pass == "auto" and refined)


def described_features(
    features: Sequence[Path], keypoints_type: str
) -> LocalFeatureTables | None:
    """Features with descriptors; None where there are none.

    Args:
        features: folders of the features of queries and map images.
        keypoints_type: of the queries' keypoints.
    """
    try:
        return open_local_features(features, keypoints_type)
    except (DatasetError, FeatureFormatError):
        return None


def open_search(
    tables: LocalFeatureTables | None, sparse_map: SparseMap
) -> PointSearch | None:
    """The search by stored descriptors; None where there are none of the map."""
    if tables is None:
        return None
    described = [name for name in sparse_map.images if name in tables.descriptors]
    if not described:
        return None
    states = feature_states(tables, tables.descriptors.image_names)
    together = "".join(states[name] for name in described)
    of_map = hashlib.sha256(together.encode()).hexdigest()

    def read(name: str) -> FloatArray | None:
        if name not in tables.keypoints or name not in tables.descriptors:
            return None
        return tables.read_descriptors(name)

    return PointSearch(
        sparse_map=sparse_map,
        of_map=lru_cache(MOST_IMAGES)(read),
        of_query=read,
        identify=lambda image: of_map + states.get(image.name, ""),
    )
