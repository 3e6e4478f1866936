"""The relative pose of two calibrated images from matches with outliers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pycolmap

Array = npt.NDArray[np.float64]

SEARCHES = 8
"""Short ones find a better pose than a long one (docs/accuracy.md)."""


def estimate_relative_pose(
    cameras: tuple[pycolmap.Camera, pycolmap.Camera],
    points1: Array,
    points2: Array,
    *,
    max_error: float,
    seed: int,
) -> pycolmap.Rigid3d | None:
    """Estimate cam2_from_cam1 from matches.

    Of SEARCHES LO-RANSACs for the essential matrix, the pose with the least sum of
    squared distances to the epipolar lines, each at most max_error (MSAC: Torr and
    Zisserman, MLESAC, 2000). The same input gives the same output.

    Args:
        cameras: of the two images, in COLMAP's pixel origin.
        points1, points2: (K, 2) matched pixels in COLMAP's pixel origin.
        max_error: distance in pixels from the epipolar line of an inlier.
        seed: of the random sampling.

    Returns:
        With a translation of length 1; None if no pose is found.
    """
    seeds = np.random.default_rng(seed).integers(2**31, size=SEARCHES)
    found = [
        pycolmap.estimate_essential_matrix(
            points1, points2, *cameras, _options(max_error, each)
        )
        for each in seeds.tolist()
    ]
    poses = [each["cam2_from_cam1"] for each in found if each is not None]
    if not poses:
        return None
    rays1, rays2 = (
        camera.cam_from_img(points)
        for camera, points in zip(cameras, (points1, points2))
    )
    limit = np.mean([camera.cam_from_img_threshold(max_error) for camera in cameras])

    def cost(pose: pycolmap.Rigid3d) -> float:
        essential = pycolmap.essential_matrix_from_pose(pose)
        squares = pycolmap.compute_squared_sampson_error(rays1, rays2, essential)
        # NaN, from a pixel without a ray, is an outlier
        return float(np.fmin(squares, limit**2).sum())

    return min(poses, key=cost)


def _options(max_error: float, seed: int) -> pycolmap.RANSACOptions:
    return pycolmap.RANSACOptions(
        max_error=max_error,
        random_seed=seed,
        num_threads=1,
        min_num_trials=300,
        max_num_trials=10_000,
        dyn_num_trials_multiplier=1.0,
        confidence=0.999,
    )
