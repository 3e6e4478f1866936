"""Matches between two images with their errors, and the sampling of estimates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pycolmap


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchedPoints:
    """Matches between two images whose true geometry is known.

    Attributes:
        points1, points2: (K, 2) float32 pixels of the two images, (0, 0) at the centre
            of the top-left pixel.
        errors: (K,) float64 pixels, distance to where the match should be.
    """

    points1: npt.NDArray[np.float32]
    points2: npt.NDArray[np.float32]
    errors: npt.NDArray[np.float64]


def ransac_options(max_error: float, seed: int) -> pycolmap.RANSACOptions:
    """Options of a LO-RANSAC with one thread, 1000 to 100000 trials and a confidence
    of 0.9999.

    Args:
        max_error: residual of an inlier, pixels.
        seed: of the random sampling.
    """
    return pycolmap.RANSACOptions(
        max_error=max_error,
        random_seed=seed,
        num_threads=1,
        min_num_trials=1000,
        max_num_trials=100_000,
        confidence=0.9999,
    )
