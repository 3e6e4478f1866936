"""How well a homography can be estimated from matches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.evaluation.matched_points import ransac_options
from r2d2_kapture.evaluation.projection import project, transfer_errors

Array = npt.NDArray[np.float64]

CORNER_THRESHOLDS = (1.0, 3.0, 5.0)
"""Pixels, of the homography accuracy and of its area under the curve."""


def corner_error(
    points1: npt.NDArray[np.floating],
    points2: npt.NDArray[np.floating],
    H_2_from_1: Array,
    image_size1: tuple[int, int],
    *,
    max_error: float,
    seed: int,
) -> float:
    """Mean distance between corners of image 1 mapped by estimated and true homography.

    SuperPoint (DeTone et al., CVPRW 2018, section 7.2): the homography is estimated
    from the matches, and the centres of the four corner pixels of image 1 are mapped
    to image 2. The estimator is pycolmap.estimate_homography_matrix with
    ransac_options.

    Args:
        points1: (K, 2) matched pixels of image 1, (0, 0) at the centre of the top-left
            pixel; the estimate is in whatever origin the points have.
        points2: (K, 2) their matches in image 2, same origin.
        H_2_from_1: (3, 3), the truth.
        image_size1: (W, H) of image 1 in pixels.
        max_error: residual of an inlier, pixels.
        seed: of the random sampling.

    Returns:
        Pixels of image 2; infinite where no homography could be estimated.
    """
    estimate = pycolmap.estimate_homography_matrix(
        points1.astype(np.float64),
        points2.astype(np.float64),
        ransac_options(max_error, seed),
    )
    if estimate is None:
        return float("inf")
    right, bottom = image_size1[0] - 1, image_size1[1] - 1
    corners = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], float)
    expected = project(corners, H_2_from_1)
    return float(transfer_errors(corners, expected, estimate["H"]).mean())
