"""Matches of two images, drawn as lines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from r2d2_kapture.pictures.figures import ByteImage
from r2d2_kapture.pictures.two_images import Points, two_images_figure

BoolArray = npt.NDArray[np.bool_]

MAX_INLIER_LINES = 200
MAX_OUTLIER_LINES = 100
INLIER_COLOR = "#35d05a"
OUTLIER_COLOR = "#ff3b30"


def draw_matches(
    image1: ByteImage,
    image2: ByteImage,
    xy1: Points,
    xy2: Points,
    inliers: BoolArray | None = None,
    *,
    title: str = "",
    words: str = "matches are inliers",
) -> Figure:
    """Draw two images with lines between matches: inliers green, others faint red.

    Every match is a dot in both images. Of more than 200 inliers or 100 others, an even
    sample is drawn as lines, and the title states how many.

    Args:
        image1, image2: (H, W, 3) uint8 RGB, of any two sizes.
        xy1, xy2: (K, 2) matched pixels, (0, 0) at the centre of the first.
        inliers: (K,) bool; None draws all green, and the title states their number.
        title: text before the counts.
        words: description of the inliers, after the counts.
    """
    drawing = two_images_figure(image1, image2, grey_image)
    first, second = drawing.places
    ends = np.stack([first.of(xy1), second.of(xy2)], axis=1)
    good = np.ones(len(ends), bool) if inliers is None else inliers
    counts = f"{len(ends)} matches"
    if inliers is not None:
        counts = f"{good.sum()} of {len(ends)} {words}"
    lines = _add_outliers(drawing.axes, ends[~good])
    lines += _add_inliers(drawing.axes, ends[good])
    if lines < len(ends):
        counts += f", {lines} lines drawn"
    drawing.set_title(f"{title}: {counts}" if title else counts)
    return drawing.figure


def grey_image(image: ByteImage) -> ByteImage:
    """The image in grey and darkened, so that coloured lines stand out."""
    grey = np.rint(0.9 * image.mean(axis=2, keepdims=True)).astype(np.uint8)
    return np.repeat(grey, 3, axis=2)


def _add_inliers(axes: Axes, ends: Points) -> int:
    return _add_lines(axes, ends, MAX_INLIER_LINES, INLIER_COLOR, 0.8, 0.8)


def _add_outliers(axes: Axes, ends: Points) -> int:
    return _add_lines(axes, ends, MAX_OUTLIER_LINES, OUTLIER_COLOR, 0.5, 0.4)


def _add_lines(
    axes: Axes, ends: Points, most: int, color: str, width: float, alpha: float
) -> int:
    """Draw dots at all ends and lines between some; return the number of lines."""
    x, y = ends.reshape(-1, 2).T
    axes.scatter(x, y, s=8 * width**2, c=color, alpha=alpha, linewidths=0)
    count = min(len(ends), most)
    drawn = np.linspace(0, len(ends) - 1, count).astype(int)
    axes.add_collection(
        LineCollection(list(ends[drawn]), colors=color, linewidths=width, alpha=alpha),
        autolim=False,
    )
    return count
