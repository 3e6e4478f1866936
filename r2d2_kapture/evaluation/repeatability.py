"""Repeatability of keypoints between two images whose true homography is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from r2d2_kapture.evaluation.projection import inverse, project, shared_region
from r2d2_kapture.types import LocalFeatures

Array = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def repeatability(
    features1: LocalFeatures,
    features2: LocalFeatures,
    H_2_from_1: Array,
    thresholds: Sequence[float],
) -> Array:
    """Share of the keypoints that are found again in the other image.

    R2D2 (Revaud et al., NeurIPS 2019, section 4.1), after Mikolajczyk et al. (IJCV
    2005, section 4): "the number of point correspondences found between the two images
    divided by the minimum number of keypoint detections in the pair of images".

    Here, only keypoints that project into the other image count, in the number of
    detections too. Correspondences are one to one: the two nearest keypoints first,
    then the two nearest of those left, while their distance is at most the threshold.
    The distance is taken in image 2 between keypoints of image 2 and projected ones of
    image 1, and again in image 1 by the inverse homography; the result is the mean of
    both. It is 0 where an image has no keypoint in the shared region.

    Args:
        features1: N features of image 1, (0, 0) at the centre of the top-left pixel.
        features2: M features of image 2, same origin.
        H_2_from_1: (3, 3) maps pixels of image 1 to image 2.
        thresholds: T thresholds in pixels.

    Returns:
        (T,) float64 in 0 to 1.
    """
    region = shared_region(features1, features2, H_2_from_1)
    points1 = features1.keypoints[region.in_1].astype(np.float64)
    points2 = features2.keypoints[region.in_2].astype(np.float64)
    limits = np.asarray(thresholds, dtype=np.float64)
    detections = min(len(points1), len(points2))
    if detections == 0:
        return np.zeros(len(limits))
    directions = [
        (project(points1, H_2_from_1), points2),
        (points1, project(points2, inverse(H_2_from_1))),
    ]
    counts = [
        (closest_pairs(first, second, limits.max())[:, None] <= limits).sum(axis=0)
        for first, second in directions
    ]
    return np.asarray(np.mean(counts, axis=0) / detections, dtype=np.float64)


def closest_pairs(points1: Array, points2: Array, max_distance: float) -> Array:
    """Pair points one to one, the nearest first.

    Args:
        points1: (N, 2).
        points2: (M, 2).
        max_distance: farther points are no pair.

    Returns:
        (K,) float64, the distances of the pairs; K <= min(N, M). The pairs within a
        smaller distance are those that a call with it would give.
    """
    near = cKDTree(points1).sparse_distance_matrix(
        cKDTree(points2), max_distance, output_type="ndarray"
    )
    near = near[np.lexsort((near["j"], near["i"], near["v"]))]
    rows, columns, distances = near["i"], near["j"], near["v"]
    accepted = [distances[:0]]
    while len(distances):
        # in order of distance, a pair that is the first of both its points is safe
        chosen = _is_first(rows) & _is_first(columns)
        accepted.append(distances[chosen])
        left = ~np.isin(rows, rows[chosen]) & ~np.isin(columns, columns[chosen])
        rows, columns, distances = rows[left], columns[left], distances[left]
    return np.sort(np.concatenate(accepted))


def _is_first(values: IndexArray) -> BoolArray:
    """(K,) bool, whether a value has not occurred before."""
    first = np.zeros(len(values), dtype=np.bool_)
    first[np.unique(values, return_index=True)[1]] = True
    return first
