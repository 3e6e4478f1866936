"""A pose and what it was estimated from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from r2d2_kapture.stages.localize.pose_estimation import FramePose, View, count_inliers
from r2d2_kapture.stages.surfaces import project

DoubleArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """The pose of a frame and the correspondences of its images.

    Attributes:
        pose: of the frame.
        views: of its images.
    """

    pose: FramePose
    views: tuple[View, ...]

    @property
    def inliers(self) -> int:
        """See ``count_inliers``."""
        return count_inliers(self.views, self.pose.inliers)

    def errors(self, index: int) -> DoubleArray:
        """(N,) reprojection errors of a view, see ``reprojection_errors``."""
        return reprojection_errors(self.views[index], self.pose, index)


def reprojection_errors(view: View, pose: FramePose, index: int) -> DoubleArray:
    """(N,) pixels between keypoints and the projections of their points.

    Infinite behind the camera.

    Args:
        view: of an image of a frame.
        pose: of the frame.
        index: of the image in it.
    """
    cam_from_world = view.image.cam_from_rig * pose.rig_from_world
    projected = project(pose.cameras[index], cam_from_world * view.points)
    away = np.linalg.norm(projected - view.xy, axis=1)
    errors: DoubleArray = np.where(np.isnan(away), np.inf, away)
    return errors


def agreeing(views: Sequence[View], pose: FramePose, max_error: float) -> int:
    """Inliers of a pose among correspondences, see ``count_inliers``."""
    masks = [
        reprojection_errors(view, pose, index) <= max_error
        for index, view in enumerate(views)
    ]
    return count_inliers(views, masks)
