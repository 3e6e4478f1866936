"""Points and homographies between two images.

Throughout, a homography maps pixels of image 1 to pixels of image 2, (0, 0) at the
centre of the top-left pixel of both, and is used as given: any multiple of it means
the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from r2d2_kapture.coordinates import HALF_PIXEL
from r2d2_kapture.types import LocalFeatures

Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedRegion:
    """Which keypoints lie on what both images see.

    Attributes:
        in_1: (N,) bool, whether a keypoint of image 1 projects into image 2.
        in_2: (M,) bool, whether a keypoint of image 2 projects into image 1.
    """

    in_1: BoolArray
    in_2: BoolArray


def project(points: npt.NDArray[np.floating], homography: Array) -> Array:
    """Map (N, 2) points by a (3, 3) homography; infinite where they go to infinity."""
    projected = np.column_stack([points, np.ones(len(points))]) @ homography.T
    depth = projected[:, 2:]
    at_infinity = depth == 0
    return np.where(
        at_infinity, np.inf, projected[:, :2] / np.where(at_infinity, 1.0, depth)
    )


def inverse(homography: Array) -> Array:
    """The (3, 3) homography back, from image 2 to image 1."""
    return np.asarray(np.linalg.inv(homography), dtype=np.float64)


def shared_region(
    features1: LocalFeatures, features2: LocalFeatures, H_2_from_1: Array
) -> SharedRegion:
    """Find the keypoints that project into the other image's raster.

    The raster reaches from the outer border of the first pixel to that of the last.
    """
    return SharedRegion(
        in_1=_in_raster(project(features1.keypoints, H_2_from_1), features2.image_size),
        in_2=_in_raster(
            project(features2.keypoints, inverse(H_2_from_1)),
            features1.image_size,
        ),
    )


def _in_raster(points: Array, image_size: tuple[int, int]) -> BoolArray:
    inside = (points >= -HALF_PIXEL) & (points <= np.array(image_size) - HALF_PIXEL)
    return np.asarray(inside.all(axis=1))


def transfer_errors(
    points1: npt.NDArray[np.floating],
    points2: npt.NDArray[np.floating],
    H_2_from_1: Array,
) -> Array:
    """Distance in image 2 between each projected point 1 and its match, point 2.

    Args:
        points1: (K, 2) pixels of image 1.
        points2: (K, 2) pixels of image 2.
        H_2_from_1: (3, 3).

    Returns:
        (K,) float64 in pixels; infinite where the point projects to infinity.
    """
    errors = np.linalg.norm(project(points1, H_2_from_1) - points2, axis=1)
    return np.where(np.isnan(errors), np.inf, errors)
