"""Pictures to look at: keypoints on their image, heat maps, a dataset at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from r2d2_kapture.pictures.figures import (
    COLORBAR_INCHES,
    LONGEST_SIDE_INCHES,
    TITLE_INCHES,
    ByteImage,
    add_colorbar,
    faded,
    image_extent,
    new_figure,
    panel_size,
    save,
    show_image,
)
from r2d2_kapture.types import LocalFeatures

FloatArray = npt.NDArray[np.float32]

HEAT_COLORMAP = "plasma"
SCORE_COLORMAP_START = 0.3
CIRCLES = 150
OVERVIEW_CIRCLES = 40
OVERVIEW_COLUMNS = 4


def draw_keypoints(
    image: ByteImage,
    features: LocalFeatures,
    path: Path,
    *,
    max_keypoints: int = 1000,
    title: str = "",
) -> None:
    """Write the figure of keypoints_figure; the suffix of ``path`` is the format.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    figure = keypoints_figure(image, features, max_keypoints=max_keypoints, title=title)
    save(figure, path)


def keypoints_figure(
    image: ByteImage,
    features: LocalFeatures,
    *,
    max_keypoints: int = 1000,
    title: str = "",
) -> Figure:
    """The best keypoints of an image over it faded, coloured by score.

    The very best are circles as wide as the patch that their descriptor sees, in image
    pixels; the others are dots.

    Args:
        image: (H, W, 3) uint8 RGB.
        features: of this image; none is fine.
        max_keypoints: the best so many are drawn.
        title: above the picture, before the keypoint count.
    """
    width, height = panel_size(image, LONGEST_SIDE_INCHES)
    figure = new_figure(width + COLORBAR_INCHES, height + TITLE_INCHES)
    axes = figure.add_subplot()
    colors = score_colors([features], max_keypoints)
    show_image(axes, faded(image))
    add_keypoints(axes, features, colors, max_keypoints, CIRCLES)
    count = f"{len(features)} keypoints"
    if len(features) > max_keypoints:
        count += f", best {max_keypoints} drawn"
    axes.set_title(
        f"{title}: {count}" if title else count, fontsize=11, parse_math=False
    )
    add_score_bar(figure, [axes], colors)
    return figure


def draw_heatmaps(image: ByteImage, maps: Mapping[str, FloatArray], path: Path) -> None:
    """Draw an image and named maps of it side by side.

    Args:
        image: (H, W, 3) uint8 RGB.
        maps: title -> (h, w) float32 in 0..1; stretched over the image.
        path: of the picture; its suffix is the format.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    width, height = panel_size(image, LONGEST_SIDE_INCHES / 2)
    columns = 1 + len(maps)
    figure = new_figure(columns * (width + COLORBAR_INCHES), height + TITLE_INCHES)
    norm = Normalize(0, 1)
    colors = ScalarMappable(norm, cmap=HEAT_COLORMAP)
    axes = figure.add_subplot(1, columns, 1)
    show_image(axes, image)
    axes.set_title("image", fontsize=11)
    # an equal bar on every panel keeps the panels equal too, so the image's is hidden
    add_colorbar(figure, [axes], colors, "").ax.set_visible(False)
    for column, (name, heat) in enumerate(maps.items(), 2):
        axes = figure.add_subplot(1, columns, column)
        axes.imshow(
            heat,
            cmap=HEAT_COLORMAP,
            norm=norm,
            extent=image_extent(image),
            interpolation="nearest",
        )
        axes.set_axis_off()
        axes.set_title(name, fontsize=11)
        add_colorbar(figure, [axes], colors, "")
    save(figure, path)


def draw_overview(
    panels: Sequence[tuple[str, ByteImage, LocalFeatures]],
    path: Path,
    *,
    max_keypoints: int = 300,
) -> None:
    """Draw a grid of images with their keypoints, on one scale of colours.

    Args:
        panels: title, (H, W, 3) uint8 RGB image and features of each; at least one.
        path: of the picture; its suffix is the format.
        max_keypoints: the best so many of each image are drawn.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    columns = min(OVERVIEW_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    sizes = [panel_size(image, LONGEST_SIDE_INCHES / 3) for _, image, _ in panels]
    widths, heights = zip(*sizes)
    figure = new_figure(
        columns * max(widths) + COLORBAR_INCHES, rows * (max(heights) + TITLE_INCHES)
    )
    colors = score_colors([features for _, _, features in panels], max_keypoints)
    for number, (title, image, features) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, number)
        show_image(axes, faded(image))
        add_keypoints(axes, features, colors, max_keypoints, OVERVIEW_CIRCLES)
        axes.set_title(f"{title} ({len(features)})", fontsize=9, parse_math=False)
    add_score_bar(figure, figure.axes, colors)
    save(figure, path)


def score_colors(
    all_features: Sequence[LocalFeatures], max_keypoints: int
) -> ScalarMappable:
    """The colours that span the scores of the keypoints to be drawn."""
    scores = np.concatenate([f.scores[:max_keypoints] for f in all_features])
    norm = Normalize(scores.min(), scores.max()) if len(scores) else Normalize(0, 1)
    # the dark end of the map would not show on a dark image
    bright = matplotlib.colormaps["plasma"](np.linspace(SCORE_COLORMAP_START, 1, 256))
    return ScalarMappable(norm, cmap=ListedColormap(bright))


def add_keypoints(
    axes: Axes,
    features: LocalFeatures,
    colors: ScalarMappable,
    max_keypoints: int,
    max_circles: int,
) -> None:
    """Draw the best keypoints: patch-wide circles for the first few, dots for all."""
    score_color = colors.to_rgba(features.scores[:max_keypoints])
    x, y = features.keypoints[:max_keypoints].T
    axes.scatter(x, y, s=9, c=score_color, linewidths=0)
    circles = min(max_circles, max_keypoints)
    diameters = features.scales[:circles]
    patches = EllipseCollection(
        diameters,
        diameters,
        np.zeros(len(diameters)),
        units="xy",
        offsets=features.keypoints[:circles],
        offset_transform=axes.transData,
        facecolors="none",
        edgecolors=score_color[:circles],
        linewidths=0.8,
    )
    axes.add_collection(patches, autolim=False)


def add_score_bar(figure: Figure, axes: Sequence[Axes], colors: ScalarMappable) -> None:
    """Add the bar of scores, unless all are equal: kapture keeps none."""
    low, high = colors.get_clim()
    if low is not None and high is not None and low < high:
        add_colorbar(figure, axes, colors, "score")
