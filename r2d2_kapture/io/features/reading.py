"""What the rows of third-party features mean: the one reading of all formats.

Columns of keypoints, by their number (x and y in pixels come first):

    2        x, y
    3        x, y, side of the patch in pixels, as R2D2 and this package write
    4        x, y, scale, orientation: COLMAP's, sigma in pixels and radians
    6        x, y, a11, a12, a21, a22: COLMAP's affine shape
    others   x, y; the rest is not read

Descriptors are compared by the cosine of unit vectors, so rows of any dtype are brought
to unit L2 norm where they say that they are compared by L2 or cosine; SIFT of COLMAP
(bytes of norm 512, the root of an L1-normalised histogram) becomes RootSIFT.

Sources: kapture_format.adoc of github.com/naver/kapture;
https://colmap.github.io/database.html, section on keypoints and descriptors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.types import PATCH_DIAMETER, FloatArray

PATCH_SIGMAS = 12.0
"""Side of SIFT's window in units of a keypoint's sigma: 4 cells of 3 sigma."""

KNOWN_COLUMNS = (2, 3, 4, 6)
METRICS = ("l2", "euclidean", "cosine")
"""Under which unit vectors have the same neighbours."""

OUTSIDE_PIXELS = 2.0
OUTSIDE_SHARE = 0.5
"""How far beyond the border keypoints may lie, and what share farther, before they are
those of another picture: of one of 1.5 times the size 5 of 9 do."""


def patch_sides(rows: npt.NDArray[Any]) -> FloatArray:
    """(N,) float32 sides in pixels of the patches of (N, C) rows of keypoints.

    COLMAP's scale of an affine shape is the mean length of its two axes. Rows
    without a size above 0 get that of R2D2 at full size.
    """
    columns = rows.shape[1]
    if columns == 3:
        sides = rows[:, 2]
    elif columns == 4:
        sides = rows[:, 2] * PATCH_SIGMAS
    elif columns == 6:
        a11, a12, a21, a22 = rows[:, 2:].T
        sides = (np.hypot(a11, a21) + np.hypot(a12, a22)) / 2 * PATCH_SIGMAS
    else:
        sides = np.zeros(len(rows))
    return np.where(sides <= 0, PATCH_DIAMETER, sides).astype(np.float32)


def orientations(rows: npt.NDArray[Any]) -> FloatArray:
    """(N,) float32 orientations in radians of (N, C) rows; 0 where unknown."""
    columns = rows.shape[1]
    if columns == 4:
        return rows[:, 3].astype(np.float32)
    if columns == 6:
        return np.asarray(np.arctan2(rows[:, 4], rows[:, 2]), dtype=np.float32)
    return np.zeros(len(rows), np.float32)


def columns_warnings(name: str, columns: int) -> tuple[str, ...]:
    """The warning on keypoints with columns that are not read."""
    if columns in KNOWN_COLUMNS:
        return ()
    return (
        f"keypoints '{name}' have {columns} columns, expected 2, 3, 4 or 6; only x and "
        "y are read",
    )


def check_metric(metric: str | None, source: str) -> None:
    """Refuse descriptors that are not compared by L2 or cosine; None is L2.

    Args:
        metric: as the features name it.
        source: what names it.

    Raises:
        FeatureFormatError: naming the metric.
    """
    if metric is None or metric.strip().casefold() in METRICS:
        return
    raise FeatureFormatError(
        f"{source}: says that descriptors are compared by '{metric.strip()[:40]}', "
        "expected L2 or cosine; such descriptors cannot be matched or converted here: "
        "choose others, or correct the file if it is wrong"
    )


def check_inside(
    keypoints: npt.NDArray[Any], size: tuple[int, int], source: str
) -> None:
    """Refuse keypoints that a picture of another size must have had.

    Some may lie beyond the border, where a method refines or tracks their places.

    Args:
        keypoints: (N, 2) or more columns, x and y first, from the centre origin.
        size: (W, H) of the image in pixels.
        source: what the features are of, for the error.

    Raises:
        FeatureFormatError: more than OUTSIDE_SHARE lie outside of the image.
    """
    xy = keypoints[:, :2]
    outside = ((xy < -OUTSIDE_PIXELS) | (xy > np.add(size, OUTSIDE_PIXELS))).any(axis=1)
    if outside.sum() > OUTSIDE_SHARE * len(xy):
        x, y = xy.max(axis=0)
        raise FeatureFormatError(
            f"{source}: found {outside.sum()} of {len(xy)} keypoints outside of its "
            f"{size[0]} x {size[1]} pixels, up to ({x:.0f}, {y:.0f}); they belong to "
            "an image of another size: extract features of this image"
        )


def is_turned(stored: tuple[int, int], actual: tuple[int, int], source: str) -> bool:
    """Whether the size stored with features is (H, W), as by deep-image-matching.

    Args:
        stored: with the features.
        actual: (W, H) of the image in pixels.
        source: what the features are of, for the error.

    Raises:
        FeatureFormatError: they were made of an image of another size.
    """
    if stored == actual:
        return False
    if stored == actual[::-1]:
        return True
    raise FeatureFormatError(
        f"{source}: found features of an image of {stored[0]} x {stored[1]} pixels, "
        f"but the image has {actual[0]} x {actual[1]}; extract them of this image"
    )
