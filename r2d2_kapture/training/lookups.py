"""Reading dense arrays between their pixels: flow fields and depth maps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from r2d2_kapture.training.pairs import Points, between_rasters, inside

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

LARGEST_STRETCH = 4.0
"""Pixels that a flow may pull two neighbours apart on the same surface."""
LARGEST_DEPTH_STEP = 1.1
"""Ratio of the depths of two neighbours on the same surface."""


class DenseFlow:
    """A flow given at every pixel: read bilinearly, unknown across jumps.

    Args:
        aflow: (H, W, 2) float32, the position (x, y) in picture 2 of each pixel of
            picture 1; NaN where unknown.
    """

    def __init__(self, aflow: FloatArray) -> None:
        self._aflow = aflow

    def __call__(self, points: Points) -> Points:
        """Positions (N, 2) in picture 2 of (N, 2) pixels of picture 1."""
        corners, weights = _corners(self._aflow, points)
        found: Points = np.einsum("nk,nkc->nc", weights, corners)
        # a mean of two surfaces is a place on neither; NaN stays NaN
        jumps = np.ptp(corners, axis=1).max(axis=1) > LARGEST_STRETCH
        found[jumps] = np.nan
        return found


class DepthMap:
    """Depth of a picture: inverse depth read bilinearly, unknown across jumps.

    Inverse depth is what is affine in the pixels of a plane.

    Args:
        inverse_depth: (h, w) float32, 1 / depth along the camera's z axis; NaN where
            unknown.
        size: (W, H) of the picture, whose raster may be a finer one.
    """

    def __init__(self, inverse_depth: FloatArray, size: tuple[int, int]) -> None:
        self._inverse_depth = inverse_depth[..., None]
        self._size = size

    def __call__(self, points: Points) -> DoubleArray:
        """Inverse depth (N,) at (N, 2) pixels of the picture; NaN where unknown."""
        height, width = self._inverse_depth.shape[:2]
        raster = between_rasters(points, self._size, (width, height))
        raster[~inside(points, self._size)] = np.nan
        # the outermost pixels of the picture lie beyond those of a coarser raster
        raster = np.clip(raster, 0, (width - 1, height - 1))
        corners, weights = _corners(self._inverse_depth, raster)
        values = corners[..., 0]
        found: DoubleArray = np.einsum("nk,nk->n", weights, values)
        jumps = values.max(axis=1) > LARGEST_DEPTH_STEP * values.min(axis=1)
        found[jumps] = np.nan
        return found


def inverse_of_depth(depth: FloatArray) -> FloatArray:
    """1 / depth; NaN where depth is unknown: not finite, or not above 0."""
    known = np.isfinite(depth) & (depth > 0)
    return np.divide(
        1, depth, out=np.full(depth.shape, np.nan, dtype=np.float32), where=known
    )


def _corners(array: FloatArray, points: Points) -> tuple[DoubleArray, DoubleArray]:
    """The four neighbours (N, 4, C) of (N, 2) pixels, and their weights (N, 4).

    A neighbour without weight is replaced by one that has some. All are NaN for points
    outside of the array.
    """
    height, width, channels = array.shape
    within = inside(points, (width, height))
    x, y = np.where(within[:, None], points, 0).T
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right_weight, bottom_weight = x - left, y - top
    right, bottom = left + (right_weight > 0), top + (bottom_weight > 0)
    flat = array.reshape(-1, channels)
    rows = np.stack([top, top, bottom, bottom], axis=1) * width
    corners = flat[rows + np.stack([left, right, left, right], axis=1)]
    corners = corners.astype(np.float64)
    corners[~within] = np.nan
    across = np.stack([1 - right_weight, right_weight], axis=1)
    down = np.stack([1 - bottom_weight, bottom_weight], axis=1)
    return corners, (down[:, :, None] * across[:, None, :]).reshape(-1, 4)
