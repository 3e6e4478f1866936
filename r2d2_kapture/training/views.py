"""Pictures seen through a homography: only the crop asked for is drawn, once.

A crop is resampled in one go from the picture as stored: bicubic samples, 2 x 2 of them
a pixel, low-pass filtered, where the view shrinks the picture, taken on a halving of
the picture where it shrinks it more than that. So what the crop cannot hold does not
fold back into it, and the position of every pixel is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from r2d2_kapture.coordinates import image_from_level
from r2d2_kapture.training.pairs import (
    Flow,
    Points,
    RGBArray,
    between_rasters,
    inside,
    pixel_grid,
)
from r2d2_kapture.training.photometry import Photometry

DoubleArray = npt.NDArray[np.float64]

LEAST_LEVEL_SIDE = 32
PLAIN_SAMPLING = 1.15
"""Picture pixels a view pixel up to which one sample is enough."""
LEVEL_SAMPLING = 2.5
"""Pixels of a level a view pixel up to which 2 x 2 samples are enough."""
SAMPLE_MARGIN = 3
"""Pixels around a sample that bicubic weights reach."""
FILTER_MARGIN = 2
"""Pixels around a pixel that the low-pass filter reaches."""
HORIZON = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """Decoded pixels and their halvings.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        stored_size: (W, H) of the file that was shrunk to them; None for the same.
    """

    pixels: RGBArray
    stored_size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(W, H) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @cached_property
    def levels(self) -> tuple[RGBArray, ...]:
        """The pixels and their successive halvings, low-pass filtered."""
        levels = [self.pixels]
        while min(levels[-1].shape[:2]) >= 2 * LEAST_LEVEL_SIDE:
            height, width = levels[-1].shape[:2]
            half = Image.fromarray(levels[-1]).resize(
                (width // 2, height // 2), Image.Resampling.LANCZOS
            )
            levels.append(np.asarray(half))
        return tuple(levels)


@dataclass(frozen=True, kw_only=True, eq=False)
class WarpedView:
    """A picture seen through a homography.

    Attributes:
        picture: what is seen. Beyond its border its mirror image is seen.
        picture_from_view: (3, 3) homography of pixels.
        size: (W, H) of the view in pixels.
        photometry: changes the colours of a crop.
    """

    picture: Picture
    picture_from_view: DoubleArray
    size: tuple[int, int]
    photometry: Photometry = Photometry()

    def crop(self, corner: tuple[int, int], side: int) -> RGBArray:
        """The (side, side, 3) pixels whose top-left one is the corner (x, y)."""
        left, top = corner
        stretch = self._stretch(corner, side)
        if stretch <= PLAIN_SAMPLING:
            steps = np.arange(side, dtype=np.float64)
            drawn = self._draw(left + steps, top + steps, stretch)
        else:
            # pixels around the crop, so that its borders are filtered like the rest
            wide = side + 2 * FILTER_MARGIN
            steps = np.arange(2 * wide, dtype=np.float64)
            steps = image_from_level(steps, 2 * wide, wide, "corrected") - FILTER_MARGIN
            drawn = F.interpolate(
                self._draw(left + steps, top + steps, stretch),
                (wide, wide),
                mode="bicubic",
                align_corners=False,
                antialias=True,
            )[:, :, FILTER_MARGIN:-FILTER_MARGIN, FILTER_MARGIN:-FILTER_MARGIN]
        return self.photometry(drawn[0].permute(1, 2, 0).contiguous().numpy())

    def _draw(self, columns: DoubleArray, rows: DoubleArray, stretch: float) -> Tensor:
        """Bicubic colours (1, 3, rows, columns) at pixels of the view."""
        level = self._level(stretch)
        x, y = _mapped_grid(self.picture_from_view, columns, rows)
        width, height = self.picture.size
        return _sample(
            level,
            image_from_level(x, width, level.shape[1], "corrected"),
            image_from_level(y, height, level.shape[0], "corrected"),
        )

    def _stretch(self, corner: tuple[int, int], side: int) -> float:
        """Picture pixels a view pixel in the direction where they are most."""
        steps = np.linspace(0, side - 1, 7)
        view = pixel_grid(corner[0] + steps, corner[1] + steps)
        points = apply_homography(self.picture_from_view, view)
        shown = inside(points, self.picture.size)
        if not shown.any():
            return 1.0
        matrix = self.picture_from_view
        depths = view @ matrix[2, :2] + matrix[2, 2]
        jacobians = matrix[None, :2, :2] - points[:, :, None] * matrix[None, 2:, :2]
        jacobians = jacobians[shown] / depths[shown, None, None]
        largest = np.linalg.svd(jacobians, compute_uv=False)[:, 0]
        return float(np.quantile(largest, 0.9))

    def _level(self, stretch: float) -> RGBArray:
        if stretch <= LEVEL_SAMPLING:
            return self.picture.pixels
        halvings = int(np.ceil(np.log2(stretch / LEVEL_SAMPLING)))
        return self.picture.levels[min(halvings, len(self.picture.levels) - 1)]


def apply_homography(matrix: DoubleArray, points: Points) -> Points:
    """Map (N, 2) points by a (3, 3) homography whose w is positive where it matters.

    Points beyond the horizon go to far away.
    """
    homogeneous = points @ matrix[:, :2].T + matrix[:, 2]
    depths = np.maximum(homogeneous[:, 2:], HORIZON)
    return np.asarray(homogeneous[:, :2] / depths)


def flow_between(view1: WarpedView, view2: WarpedView, flow: Flow | None) -> Flow:
    """The flow between two views of pictures whose own flow is known.

    Args:
        view1, view2: of the first and of the second picture.
        flow: from the pixels of picture 1 to those of picture 2; None where both have
            the same pixels.
    """
    view2_from_picture2 = np.asarray(
        np.linalg.inv(view2.picture_from_view), dtype=np.float64
    )

    def mapped(points: Points) -> Points:
        source = apply_homography(view1.picture_from_view, points)
        known = inside(source, view1.picture.size)
        target = np.full_like(source, np.nan)
        target[known] = source[known] if flow is None else flow(source[known])
        target[~inside(target, view2.picture.size)] = np.nan
        return apply_homography(view2_from_picture2, target)

    return mapped


def flow_of_pictures(flow: Flow, picture1: Picture, picture2: Picture) -> Flow:
    """The flow of two pictures as decoded, given that of their files."""
    size1, stored1 = picture1.size, picture1.stored_size or picture1.size
    size2, stored2 = picture2.size, picture2.stored_size or picture2.size

    def mapped(points: Points) -> Points:
        stored = flow(between_rasters(points, size1, stored1))
        return between_rasters(stored, stored2, size2)

    return mapped


def _mapped_grid(
    matrix: DoubleArray, columns: DoubleArray, rows: DoubleArray
) -> tuple[DoubleArray, DoubleArray]:
    """apply_homography to a grid: x and y, each (rows, columns)."""
    across = matrix[:, :1] * columns
    down = matrix[:, 1:2] * rows + matrix[:, 2:]
    x, y, depth = across[:, None, :] + down[:, :, None]
    depth = np.maximum(depth, HORIZON)
    return x / depth, y / depth


def _sample(level: RGBArray, x: DoubleArray, y: DoubleArray) -> Tensor:
    """Bicubic colours (1, 3, h, w) of a level at its pixels (x, y), each (h, w)."""
    # only what is seen is turned to floats
    (left, right, x), (top, bottom, y) = (
        _window(positions, size) for positions, size in zip((x, y), level.shape[1::-1])
    )
    part = np.array(level[top:bottom, left:right])
    return F.grid_sample(
        torch.from_numpy(part).permute(2, 0, 1)[None].float().contiguous(),
        torch.from_numpy(np.stack([x, y], axis=-1)[None].astype(np.float32)),
        mode="bicubic",
        padding_mode="reflection",
        align_corners=True,
    )


def _window(positions: DoubleArray, size: int) -> tuple[int, int, DoubleArray]:
    """The pixels [low, high) of an axis that are needed, and positions as -1..1 of it.

    What lies beyond the border is the mirror image of something; of what lies far
    beyond, any pixel will do.
    """
    low = math.floor(max(positions.min(), -size)) - SAMPLE_MARGIN
    high = math.ceil(min(positions.max(), 2 * size)) + SAMPLE_MARGIN + 1
    low = min(max(low, 0), size - 2)
    high = max(min(high, size), low + 2)
    scaled = (np.clip(positions, -size, 2 * size) - low) * (2 / (high - low - 1)) - 1
    return low, high, scaled
