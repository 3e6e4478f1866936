"""A figure of two images, side by side or one above the other."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
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
CLEARLY_LARGER = 1.3
"""Images are stacked if that shows them larger by this factor."""
LETTERS_PER_INCH = 12
"""Letters of a title that fit into an inch."""
GAP = 0.01
"""Between the images, relative to the height or width that they share."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Position of an image in a figure.

    Attributes:
        scale: axes units per pixel.
        corner: x and y in the axes of the image's top-left corner.
    """

    scale: float
    corner: tuple[float, float]

    def of(self, xy: Points) -> Points:
        """(K, 2) in the axes of (K, 2) pixels, (0, 0) at the centre of the first."""
        pixels = colmap_from_kapture(np.asarray(xy, np.float64).reshape(-1, 2))
        return pixels * self.scale + self.corner


Places = tuple[Place, Place]


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoImages:
    """A figure with two images in its axes, and their positions."""

    figure: Figure
    axes: Axes
    places: Places

    def set_title(self, text: str) -> None:
        """Write a title above both, on as many lines as it needs."""
        width = int(self.figure.get_figwidth() * LETTERS_PER_INCH)
        self.axes.set_title(textwrap.fill(text, width), fontsize=11, parse_math=False)


def two_images_figure(
    image1: ByteImage,
    image2: ByteImage,
    tone: Callable[[ByteImage], ByteImage] = lambda image: image,
) -> TwoImages:
    """Draw two images side by side at equal height, or stacked at equal width.

    They are stacked where that shows them clearly larger, as with panoramas.

    Args:
        image1, image2: (H, W, 3) uint8 RGB, of any two sizes.
        tone: function applied to the colours of both images.
    """
    images = (image1, image2)
    places, (width, height) = arranged([(i.shape[1], i.shape[0]) for i in images])
    inches = inches_per_unit((width, height))
    figure = new_figure(
        max(width * inches, 3.0), max(height * inches, 1.0) + TITLE_INCHES
    )
    axes = figure.add_subplot()
    for image, place in zip(images, places):
        small, step = reduced(image, 1 / (place.scale * inches * DOTS_PER_INCH))
        x, y = place.corner
        right = x + small.shape[1] * step * place.scale
        bottom = y + small.shape[0] * step * place.scale
        axes.imshow(tone(small), extent=(x, right, bottom, y))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return TwoImages(figure=figure, axes=axes, places=places)


def arranged(sizes: Sequence[tuple[int, int]]) -> tuple[Places, tuple[float, float]]:
    """Positions of two images of (W, H) pixels, and the width and height of both."""
    beside, above = (_along(axis, sizes) for axis in (0, 1))
    drawn_beside, drawn_above = (
        places[0].scale * inches_per_unit(whole) for places, whole in (beside, above)
    )
    return above if drawn_above > CLEARLY_LARGER * drawn_beside else beside


def _along(
    axis: int, sizes: Sequence[tuple[int, int]]
) -> tuple[Places, tuple[float, float]]:
    """Positions of two images in a row along x (0) or y (1), of equal size across
    it."""
    shared = float(max(size[1 - axis] for size in sizes))
    scales = [shared / size[1 - axis] for size in sizes]
    lengths = [scale * size[axis] for scale, size in zip(scales, sizes)]
    start = lengths[0] + GAP * shared
    corner, whole = [0.0, 0.0], [shared, shared]
    corner[axis], whole[axis] = start, start + lengths[1]
    first = Place(scale=scales[0], corner=(0.0, 0.0))
    second = Place(scale=scales[1], corner=(corner[0], corner[1]))
    return (first, second), (whole[0], whole[1])


def inches_per_unit(whole: tuple[float, float]) -> float:
    """Inches per axes unit at which a width and height fit into a figure."""
    return min(WIDTH_INCHES / whole[0], HEIGHT_INCHES / whole[1])


def reduced(image: ByteImage, most: float) -> tuple[ByteImage, int]:
    """An image averaged over squares of at most that many pixels a side, and the
    side."""
    step = max(int(most), 1)
    if step == 1:
        return image, 1
    return np.asarray(Image.fromarray(image).reduce(step)), step
