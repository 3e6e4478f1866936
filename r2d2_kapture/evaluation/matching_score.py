"""The matching score of features between two images of known homography."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from r2d2_kapture.evaluation.projection import inverse, shared_region, transfer_errors
from r2d2_kapture.types import LocalFeatures

Array = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]


def matching_score(
    features1: LocalFeatures,
    features2: LocalFeatures,
    matches: IndexArray,
    H_2_from_1: Array,
    thresholds: Sequence[float],
) -> Array:
    """Share of the features in the shared region that are matched correctly (M-score).

    R2D2 (Revaud et al., NeurIPS 2019, section 4.1), after LIFT (Yi et al., ECCV 2016)
    and SuperPoint (DeTone et al., CVPRW 2018): "the average ratio between the number of
    ground-truth correspondences that can be recovered by the whole pipeline and the
    total number of estimated features within the shared viewpoint region when matching
    points from the first image to the second and the second image to the first one".

    Here, from image 1 to image 2: of the keypoints of image 1 that project into image
    2, the share whose match lies within the threshold of the projection, in pixels of
    image 2. From image 2 to image 1 likewise, by the inverse homography and in pixels
    of image 1. The score is the mean of both; a direction without a keypoint in the
    shared region counts 0.

    Args:
        features1: N features of image 1.
        features2: M features of image 2.
        matches: (K, 2) int64, rows of features1 and of features2, each at most once.
        H_2_from_1: (3, 3).
        thresholds: T thresholds in pixels.

    Returns:
        (T,) float64 in 0 to 1.
    """
    region = shared_region(features1, features2, H_2_from_1)
    points1 = features1.keypoints[matches[:, 0]].astype(np.float64)
    points2 = features2.keypoints[matches[:, 1]].astype(np.float64)
    forward = transfer_errors(points1, points2, H_2_from_1)
    backward = transfer_errors(points2, points1, inverse(H_2_from_1))
    limits = np.asarray(thresholds, dtype=np.float64)
    directions = [
        (forward, region.in_1, matches[:, 0]),
        (backward, region.in_2, matches[:, 1]),
    ]
    scores = [
        (errors[inside[rows], None] <= limits).sum(axis=0) / max(inside.sum(), 1)
        for errors, inside, rows in directions
    ]
    return np.asarray(np.mean(scores, axis=0), dtype=np.float64)
