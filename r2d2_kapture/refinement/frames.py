"""Affine frames of keypoints, and local affinities between matched images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from r2d2_kapture.types import PATCH_DIAMETER

Array = npt.NDArray[np.float64]
Scales = npt.NDArray[np.floating]


def scale_frames(scales: Scales) -> Array:
    """Frames of a pixel of the level that each keypoint was found at.

    Args:
        scales: (N,) side in pixels of the patch described (LocalFeatures.scales); one
            pixel where it is not above 0.

    Returns:
        (N, 2, 2) float64, multiples of the identity.
    """
    sides = np.asarray(scales, dtype=np.float64)
    steps = np.where(sides > 0, sides, PATCH_DIAMETER) / PATCH_DIAMETER
    return np.asarray(steps[:, None, None] * np.eye(2))


def local_affinities(
    points1: Array, points2: Array, scales1: Scales, scales2: Scales
) -> Array:
    """How the surroundings of matched points are mapped from image 1 to image 2.

    Args:
        points1, points2: (N, 2) pixels of the matches.
        scales1, scales2: (N,) sides in pixels of the patches described.

    Returns:
        (N, 2, 2) float64.
    """
    first, second = scale_frames(scales1), scale_frames(scales2)
    return np.asarray(second @ np.linalg.inv(first))
