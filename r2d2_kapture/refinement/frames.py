"""Affine frames of keypoints, and local affinities between matched images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from r2d2_kapture.types import PATCH_DIAMETER

Array = npt.NDArray[np.float64]
Scales = npt.NDArray[np.floating]

NEIGHBOURS = 24
"""Nearest matches that a local affinity is fitted to."""

TURNS = 8
"""Rotations by which a fit is begun; the one that most neighbours support is kept."""

ROUNDS = 4
"""Of reweighting."""

DETECTION_NOISE = 1.5
"""Pixels of its level by which a keypoint may lie off an affinity, and"""

BENDING = 0.15
"""what is added relative to its distance: depth and perspective."""

SUPPORT = 3.0
"""Least sum of weights, each 0 to 1, of the neighbours that agree."""

LARGEST_STRETCH = 3.0
"""Largest ratio of the two scales of an affinity."""

LARGEST_ZOOM = 2.0
"""Largest ratio between the scale of an affinity and that of the keypoints."""

PRIOR_DISTANCE = 4.0
"""Pixels of a level from which neighbours count more than the keypoints' scales."""


def scale_frames(scales: Scales) -> Array:
    """Frames of a pixel of the level that each keypoint was found at.

    Args:
        scales: (N,) side in pixels of the patch described (LocalFeatures.scales); one
            pixel where it is not a number above 0.

    Returns:
        (N, 2, 2) float64, multiples of the identity.
    """
    return np.asarray(_pixels(scales)[:, None, None] * np.eye(2))


def _pixels(scales: Scales) -> Array:
    """(N,) side of a pixel of the level."""
    sides = np.asarray(scales, dtype=np.float64)
    known = np.isfinite(sides) & (sides > 0)
    return np.where(known, sides, PATCH_DIAMETER) / PATCH_DIAMETER


def local_affinities(
    points1: npt.NDArray[np.floating],
    points2: npt.NDArray[np.floating],
    scales1: Scales,
    scales2: Scales,
    of: npt.NDArray[np.intp] | slice = slice(None),
) -> Array:
    """How the surroundings of matched points are mapped from image 1 to image 2.

    An affinity through each match, fitted robustly to its nearest matches in image 1;
    where these do not agree on one, the ratio of the keypoints' scales.

    Args:
        points1, points2: (N, 2) pixels of the matches of one pair of images.
        scales1, scales2: (N,) sides in pixels of the patches described.
        of: positions of the matches whose surroundings are asked for; all by default.

    Returns:
        (N, 2, 2) float64, of the matches asked for.
    """
    first, second = (np.asarray(points, np.float64) for points in (points1, points2))
    pixel = _pixels(scales1[of])
    ratio = _pixels(scales2[of]) / pixel
    alone = ratio[:, None, None] * np.eye(2)
    count = min(NEIGHBOURS + 1, len(first))
    if count <= SUPPORT:
        return alone
    _, near = cKDTree(first).query(first[of], k=count)
    steps1 = first[near] - first[of][:, None]
    steps2 = second[near] - second[of][:, None]
    best, most = alone, np.zeros(len(alone))
    for turn in np.arange(TURNS) * (2 * np.pi / TURNS):
        cos, sin = np.cos(turn), np.sin(turn)
        begun = alone @ np.array([[cos, -sin], [sin, cos]])
        support = _weights(begun, steps1, steps2, pixel, 2).sum(axis=1)
        best = np.where((support > most)[:, None, None], begun, best)
        most = np.maximum(support, most)
    prior = (PRIOR_DISTANCE * pixel)[:, None, None] ** 2 * np.eye(2)
    fitted, start = best, best
    for _ in range(ROUNDS):
        weights = _weights(fitted, steps1, steps2, pixel, 1)
        weighted = weights[..., None] * steps1
        moments = weighted.transpose(0, 2, 1) @ steps1 + prior
        across = steps2.transpose(0, 2, 1) @ weighted + start @ prior
        fitted = across @ np.linalg.inv(moments)
    support = _weights(fitted, steps1, steps2, pixel, 1).sum(axis=1)
    trusted = (support >= SUPPORT) & _plausible(fitted, ratio)
    return np.where(trusted[:, None, None], fitted, alone)


def _weights(
    affinity: Array, steps1: Array, steps2: Array, pixel: Array, slack: float
) -> Array:
    """(N, K) weights of neighbours by their distance to where they should be; that of
    the match itself is 0."""
    residual = np.linalg.norm(steps2 - steps1 @ affinity.transpose(0, 2, 1), axis=2)
    distance = np.linalg.norm(steps1, axis=2)
    zoom = np.sqrt(np.abs(np.linalg.det(affinity)))[:, None]
    tolerance = zoom * (BENDING * distance + DETECTION_NOISE * pixel[:, None]) * slack
    tiny = np.finfo(np.float64).tiny
    weights = 1 / (1 + (residual / np.maximum(tolerance, tiny)) ** 2) ** 2
    return np.where(distance > 0, weights, 0)


def _plausible(affinity: Array, ratio: Array) -> npt.NDArray[np.bool_]:
    """(N,) whether affinities keep the hand, and are near the keypoints' scale."""
    stretch = np.linalg.svd(affinity, compute_uv=False)
    determinant = np.linalg.det(affinity)
    zoom = np.sqrt(np.abs(determinant)) / ratio
    holds = (determinant > 0) & (stretch[:, 0] <= LARGEST_STRETCH * stretch[:, 1])
    holds &= (zoom <= LARGEST_ZOOM) & (zoom >= 1 / LARGEST_ZOOM)
    return np.asarray(holds)
