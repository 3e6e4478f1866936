"""Guided matching of a pair of images that has a two-view geometry."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pycolmap
import torch

from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.matching.guided import (
    EpipolarBand,
    Geometry,
    HomographyRadius,
    match_guided,
)
from r2d2_kapture.stages.verify.two_view import CALIBRATED, verify_matches
from r2d2_kapture.types import FloatArray, PairMatches

Cameras = tuple[pycolmap.Camera, pycolmap.Camera]
DoubleArray = npt.NDArray[np.float64]

HOMOGRAPHIES = frozenset(
    int(kind)
    for kind in (
        pycolmap.TwoViewGeometryConfiguration.PLANAR,
        pycolmap.TwoViewGeometryConfiguration.PANORAMIC,
        pycolmap.TwoViewGeometryConfiguration.PLANAR_OR_PANORAMIC,
    )
)


def add_guided(
    cameras: Cameras,
    keypoints: tuple[FloatArray, FloatArray],
    descriptors: tuple[FloatArray, FloatArray],
    matches: PairMatches,
    geometry: pycolmap.TwoViewGeometry,
    cam2_from_cam1: pycolmap.Rigid3d | None,
    config: VerifyConfig,
) -> tuple[pycolmap.TwoViewGeometry, PairMatches]:
    """Match again near what a geometry says, and estimate it again.

    It is estimated from its inliers and the guided matches, none of which shares a
    keypoint with an inlier.

    Args:
        cameras: of the two images, in COLMAP's pixel origin.
        keypoints: (N, 2) of each, in COLMAP's pixel origin.
        descriptors: (N, D) float32 of these, of unit L2 norm or zeros.
        matches: that were verified.
        geometry: of these, with inliers.
        cam2_from_cam1: the known geometry; None estimates it.
        config: thresholds and seed.

    Returns:
        The geometry with more inliers, and the matches that it lists them of: those
        given, followed by the guided ones, whose scores are cosine similarities.
    """
    known = geometry.inlier_matches.astype(np.int64)
    points1, points2 = (array.astype(np.float64) for array in keypoints)
    first, second = map(torch.from_numpy, descriptors)
    near = _geometry(cameras, (points1, points2), geometry, config.guided_error)
    found = match_guided(first, second, near, known)
    rows = np.concatenate([known, found.indices])
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))].astype(np.uint32)
    again = verify_matches(cameras, keypoints, rows, cam2_from_cam1, config)
    if len(again.inlier_matches) <= len(known):
        return geometry, matches
    return again, PairMatches(
        indices=np.concatenate([matches.indices, found.indices]),
        scores=np.concatenate([matches.scores, found.scores]),
    )


def _geometry(
    cameras: Cameras,
    points: tuple[DoubleArray, DoubleArray],
    found: pycolmap.TwoViewGeometry,
    max_error: float,
) -> Geometry:
    """What a two-view geometry allows, within a distance in pixels.

    Cameras with distortion bend epipolar lines: an essential matrix is one of rays.
    COLMAP estimates homographies and fundamental matrices of pixels as they are.
    """
    if found.config in HOMOGRAPHIES:
        return HomographyRadius.of(*points, found.H, max_error)
    if found.config != CALIBRATED:
        return EpipolarBand.of(*points, found.F, max_error)
    rays1, rays2 = (camera.cam_from_img(xy) for camera, xy in zip(cameras, points))
    # as in COLMAP, the threshold on the plane z = 1 is the mean of both cameras
    limits = [camera.cam_from_img_threshold(max_error) for camera in cameras]
    return EpipolarBand.of(rays1, rays2, found.E, float(np.mean(limits)))
