"""A figure of two images, side by side or one above the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.pictures.figures import (
    DOTS_PER_INCH,
    TITLE_INCHES,
    ByteImage,
    new_figure,
)

Points = npt.NDArray[np.floating]

WIDTH_INCHES = 14.0
HEIGHT_INCHES = 9.0
SCREEN_ASPECT = 1.6
GAP = 0.01
"""Between the images, relative to the height or width that they share."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an image lies in a figure.

    Attributes:
        scale: units of the axes a pixel.
        corner: x and y in the axes of the image's top-left corner.
    """

    scale: float
    corner: tuple[float, float]

    def of(self, xy: Points) -> Points:
        """(K, 2) in the axes of (K, 2) pixels, (0, 0) at the centre of the first."""
        pixels = colmap_from_kapture(np.asarray(xy, np.float64).reshape(-1, 2))
        return pixels * self.scale + self.corner


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoImages:
    """A figure with two images in its axes, and where they lie."""

    figure: Figure
    axes: Axes
    places: tuple[Place, Place]


def two_images_figure(image1: ByteImage, image2: ByteImage) -> TwoImages:
    """Draw two images at one height side by side, or at one width one above the other.

    Of both, what fills a screen better.

    Args:
        image1, image2: (H, W, 3) uint8 RGB, of any two sizes.
    """
    images = (image1, image2)
    places, (width, height) = arranged([(i.shape[1], i.shape[0]) for i in images])
    inches = min(WIDTH_INCHES / width, HEIGHT_INCHES / height)
    figure = new_figure(
        max(width * inches, 3.0), max(height * inches, 1.0) + TITLE_INCHES
    )
    axes = figure.add_subplot()
    for image, place in zip(images, places):
        small, step = reduced(image, 1 / (place.scale * inches * DOTS_PER_INCH))
        x, y = place.corner
        right = x + small.shape[1] * step * place.scale
        bottom = y + small.shape[0] * step * place.scale
        axes.imshow(small, extent=(x, right, bottom, y))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return TwoImages(figure=figure, axes=axes, places=places)


def arranged(
    sizes: Sequence[tuple[int, int]],
) -> tuple[tuple[Place, Place], tuple[float, float]]:
    """The places of two images of (W, H) pixels, and width and height of both."""
    (width1, height1), (width2, height2) = sizes
    beside = width1 / height1 + width2 / height2
    above = 1 / (height1 / width1 + height2 / width2)
    off = [abs(math.log(aspect / SCREEN_ASPECT)) for aspect in (beside, above)]
    axis = 0 if off[0] <= off[1] else 1
    shared = max(height1, height2) if axis == 0 else max(width1, width2)
    scales = [shared / size[1 - axis] for size in sizes]
    lengths = [scale * size[axis] for scale, size in zip(scales, sizes)]
    start = lengths[0] + GAP * shared
    corner, whole = [0.0, 0.0], [float(shared), float(shared)]
    corner[axis], whole[axis] = start, start + lengths[1]
    first = Place(scale=scales[0], corner=(0.0, 0.0))
    second = Place(scale=scales[1], corner=(corner[0], corner[1]))
    return (first, second), (whole[0], whole[1])


def reduced(image: ByteImage, most: float) -> tuple[ByteImage, int]:
    """An image averaged over squares of whole pixels, and their side, at most that."""
    step = max(int(most), 1)
    if step == 1:
        return image, 1
    return np.asarray(Image.fromarray(image).reduce(step)), step
