"""Pairs of overlapping crops with the true position of every pixel.

Pixels are (x, y), (0, 0) at the centre of the top-left one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from r2d2_kapture.coordinates import image_from_level

RGBArray = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
Flow = Callable[[Points], Points]
"""(N, 2) pixels of one picture to (N, 2) pixels of another, NaN where unknown."""

PROBES = 32
ANCHOR_SPACING = 16
CROP_TRIES = 10
LEAST_VISIBLE_SHARE = 0.08
SHIFT = 0.15


class View(Protocol):
    """A picture of which only the crops that are asked for are drawn."""

    @property
    def size(self) -> tuple[int, int]:
        """(W, H) in pixels."""

    def crop(self, corner: tuple[int, int], side: int) -> RGBArray:
        """The (side, side, 3) pixels whose top-left one is the corner (x, y)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RawPair:
    """Two pictures and where each pixel of the first lies in the second.

    Attributes:
        name: of the pair, for messages.
        view1, view2: the pictures.
        flow: pixels of ``view1`` to pixels of ``view2``, NaN where it is unknown or
            hidden; positions may lie outside of ``view2``.
    """

    name: str
    view1: View
    view2: View
    flow: Flow


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingPair:
    """Two crops of equal size.

    Attributes:
        image1, image2: (H, W, 3) uint8 RGB.
        aflow: (H, W, 2) float32, the position (x, y) in crop 2 of each pixel of crop 1;
            NaN where it is unknown, hidden or outside of crop 2.
        name: of the pair, for messages.
    """

    image1: RGBArray
    image2: RGBArray
    aflow: npt.NDArray[np.float32]
    name: str


def crop_pair(
    raw: RawPair, size: int, rng: np.random.Generator, *, min_overlap: float = 0.5
) -> TrainingPair | None:
    """Cut two crops that show the same thing, at random.

    The overlap is the share of what the closer of the two crops sees that the other
    one sees too; so that a pair whose scales differ by 2 can still reach 1.

    Args:
        raw: the pictures.
        size: side of the crops in pixels.
        rng: source of the places.
        min_overlap: least overlap, 0 to 1.

    Returns:
        None where a picture is smaller than the crop, or where a few tries found no
        place that overlaps enough.
    """
    if min(*raw.view1.size, *raw.view2.size) < size:
        return None
    anchors = _anchors(raw)
    if not len(anchors):
        return None
    for _ in range(CROP_TRIES):
        anchor = anchors[rng.integers(len(anchors))]
        corner1 = _clipped(anchor - rng.uniform(0, size, 2), raw.view1.size, size)
        corner2 = _facing_corner(raw, corner1, size, rng, min_overlap)
        if corner2 is not None:
            return _cut(raw, corner1, corner2, size)
    return None


def pixel_grid(columns: npt.ArrayLike, rows: npt.ArrayLike) -> Points:
    """All (x, y) of some columns and rows: (rows * columns, 2), row by row."""
    x, y = np.meshgrid(columns, rows)
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)


def inside(points: Points, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Whether (N, 2) points lie between the outermost pixel centres; NaN do not."""
    x, y = points.T
    within = (x >= 0) & (x <= size[0] - 1) & (y >= 0) & (y <= size[1] - 1)
    return np.asarray(within)


def between_rasters(
    points: Points, size: tuple[int, int], other: tuple[int, int]
) -> Points:
    """Map (N, 2) pixels of a raster to another one of the same picture; (W, H) each."""
    columns = image_from_level(points[:, 0], size[0], other[0], "corrected")
    rows = image_from_level(points[:, 1], size[1], other[1], "corrected")
    return np.stack([columns, rows], axis=1)


def _anchors(raw: RawPair) -> Points:
    """Pixels of view 1, far apart, that are seen in view 2."""
    width, height = raw.view1.size
    points = pixel_grid(
        np.arange(0, width, ANCHOR_SPACING), np.arange(0, height, ANCHOR_SPACING)
    )
    return points[inside(raw.flow(points), raw.view2.size)]


def _facing_corner(
    raw: RawPair,
    corner1: npt.NDArray[np.int64],
    size: int,
    rng: np.random.Generator,
    min_overlap: float,
) -> npt.NDArray[np.int64] | None:
    """The corner of a crop of view 2 that shows what the crop of view 1 shows."""
    shift = rng.uniform(-SHIFT, SHIFT, 2) * size
    steps = np.linspace(0, size - 1, PROBES)
    targets = raw.flow(corner1 + pixel_grid(steps, steps))
    known = inside(targets, raw.view2.size)
    if not known.any():
        return None
    middle = np.median(targets[known], axis=0)
    corner2 = _clipped(middle - (size - 1) / 2 + shift, raw.view2.size, size)
    visible = inside(targets - corner2, (size, size)).mean()
    closeness = max(1.0, _area_ratio(targets, steps[1]))
    if visible < LEAST_VISIBLE_SHARE or visible * closeness < min_overlap:
        return None
    return corner2


def _area_ratio(targets: Points, spacing: float) -> float:
    """Pixels of view 2 for each one of view 1, the median over the probes."""
    grid = targets.reshape(PROBES, PROBES, 2)
    along_x = grid[:-1, 1:] - grid[:-1, :-1]
    along_y = grid[1:, :-1] - grid[:-1, :-1]
    areas = along_x[..., 0] * along_y[..., 1] - along_x[..., 1] * along_y[..., 0]
    areas = np.abs(areas[np.isfinite(areas)])
    return float(np.median(areas)) / spacing**2 if len(areas) else 0.0


def _clipped(
    corner: Points, view_size: tuple[int, int], size: int
) -> npt.NDArray[np.int64]:
    return np.clip(np.rint(corner), 0, np.subtract(view_size, size)).astype(np.int64)


def _cut(
    raw: RawPair,
    corner1: npt.NDArray[np.int64],
    corner2: npt.NDArray[np.int64],
    size: int,
) -> TrainingPair:
    columns = np.arange(size)
    aflow = raw.flow(corner1 + pixel_grid(columns, columns)) - corner2
    aflow[~inside(aflow, (size, size))] = np.nan
    return TrainingPair(
        image1=raw.view1.crop((int(corner1[0]), int(corner1[1])), size),
        image2=raw.view2.crop((int(corner2[0]), int(corner2[1])), size),
        aflow=aflow.reshape(size, size, 2).astype(np.float32),
        name=raw.name,
    )
