"""The keypoints of an image that observe points of a map."""

from __future__ import annotations

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from r2d2_kapture.pictures.figures import (
    COLORBAR_INCHES,
    LONGEST_SIDE_INCHES,
    TITLE_INCHES,
    ByteImage,
    add_colorbar,
    new_figure,
    panel_size,
    show_image,
)
from r2d2_kapture.pictures.matches import grey_image
from r2d2_kapture.pictures.two_images import Points
from r2d2_kapture.types import IndexArray


def draw_observed(
    image: ByteImage, xy: Points, track_lengths: IndexArray, *, title: str = ""
) -> Figure:
    """Draw the keypoints of an image that observe points, coloured by track length.

    Args:
        image: (H, W, 3) uint8 RGB.
        xy: (K, 2) pixels, (0, 0) at the centre of the first.
        track_lengths: (K,) number of keypoints that observe the same point.
        title: text before the count.
    """
    width, height = panel_size(image, LONGEST_SIDE_INCHES)
    figure = new_figure(width + COLORBAR_INCHES, height + TITLE_INCHES)
    axes = figure.add_subplot()
    show_image(axes, grey_image(image))
    # a few long tracks must not leave all others in one colour
    most = float(np.percentile(track_lengths, 95)) if len(track_lengths) else 3.0
    colors = ScalarMappable(Normalize(2, max(most, 3.0)), cmap="plasma")
    order = np.argsort(track_lengths, kind="stable")
    x, y = xy[order].T
    axes.scatter(x, y, s=14, c=colors.to_rgba(track_lengths[order]), linewidths=0)
    add_colorbar(figure, [axes], colors, "track length [observations]")
    axes.set_title(
        f"{title}: {len(xy)} keypoints observe points of the map",
        fontsize=11,
        parse_math=False,
    )
    return figure
