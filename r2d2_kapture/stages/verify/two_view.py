"""The two-view geometry of a pair of images, with its inliers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.types import FloatArray

Indices = npt.NDArray[np.uint32]

DEGENERATE = int(pycolmap.TwoViewGeometryConfiguration.DEGENERATE)
CALIBRATED = int(pycolmap.TwoViewGeometryConfiguration.CALIBRATED)


def verify_matches(
    cameras: tuple[pycolmap.Camera, pycolmap.Camera],
    keypoints: tuple[FloatArray, FloatArray],
    matches: Indices,
    cam2_from_cam1: pycolmap.Rigid3d | None,
    config: VerifyConfig,
) -> pycolmap.TwoViewGeometry:
    """Find the inliers of an estimated or known geometry.

    As COLMAP's geometric_verification and guided_geometric_verification, without a
    database.

    Args:
        cameras: of the two images, in COLMAP's pixel origin.
        keypoints: (N, 2) of each, in COLMAP's pixel origin.
        matches: (K, 2) rows of keypoints, within range.
        cam2_from_cam1: the known geometry; None estimates it.
        config: thresholds and seed.

    Returns:
        Configuration, matrices and ``inlier_matches`` in the order of ``matches``; a
        degenerate one without inliers where fewer than ``min_inliers`` agree.
    """
    if len(matches) < config.min_inliers:
        return _degenerate()
    points1, points2 = (array.astype(np.float64) for array in keypoints)
    if cam2_from_cam1 is None:
        geometry = pycolmap.estimate_two_view_geometry(
            cameras[0], points1, cameras[1], points2, matches, _options(config)
        )
    else:
        geometry = _guided(
            cameras, (points1, points2), matches, cam2_from_cam1, config.max_error
        )
    if len(geometry.inlier_matches) < config.min_inliers:
        return _degenerate()
    return geometry


def _options(config: VerifyConfig) -> pycolmap.TwoViewGeometryOptions:
    options = pycolmap.TwoViewGeometryOptions(min_num_inliers=config.min_inliers)
    options.ransac.max_error = config.max_error
    options.ransac.max_num_trials = config.max_trials
    options.ransac.min_num_trials = min(
        options.ransac.min_num_trials, config.max_trials
    )
    options.ransac.random_seed = config.seed
    options.ransac.num_threads = (
        1  # with more threads, a seed does not determine the result
    )
    return options


def _guided(
    cameras: tuple[pycolmap.Camera, pycolmap.Camera],
    points: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    matches: Indices,
    cam2_from_cam1: pycolmap.Rigid3d,
    max_error: float,
) -> pycolmap.TwoViewGeometry:
    """Matches within ``max_error`` pixels by Sampson's distance.

    As in COLMAP, the threshold on the plane z = 1 is the mean of both cameras.
    """
    geometry = pycolmap.TwoViewGeometry()
    geometry.config = CALIBRATED
    geometry.cam2_from_cam1 = cam2_from_cam1
    geometry.E = pycolmap.essential_matrix_from_pose(cam2_from_cam1)
    rays1, rays2 = (
        camera.cam_from_img(xy[matches[:, side]])
        for side, (camera, xy) in enumerate(zip(cameras, points))
    )
    thresholds = [camera.cam_from_img_threshold(max_error) for camera in cameras]
    squared_errors = np.array(
        pycolmap.compute_squared_sampson_error(rays1, rays2, geometry.E)
    )
    # NaN, from a pixel without a ray or cameras at one place, is not an inlier
    inliers = squared_errors <= np.mean(thresholds) ** 2
    geometry.inlier_matches = matches[inliers]
    return geometry


def _degenerate() -> pycolmap.TwoViewGeometry:
    geometry = pycolmap.TwoViewGeometry()
    geometry.config = DEGENERATE
    return geometry
