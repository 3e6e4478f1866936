"""Pictures of features: keypoints, heat maps, and an overview of a dataset."""

from __future__ import annotations

import math
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
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from r2d2_kapture.pictures.figures import (
    COLORBAR_INCHES,
    HEAT_COLORMAP,
    LONGEST_SIDE_INCHES,
    TITLE_INCHES,
    ByteImage,
    add_colorbar,
    new_figure,
    panel_size,
    save,
    show_heat,
    show_image,
)
from r2d2_kapture.pictures.matches import grey_image
from r2d2_kapture.pictures.two_images import Points
from r2d2_kapture.types import IndexArray, LocalFeatures

FloatArray = npt.NDArray[np.float32]

SCORE_COLORMAP_START = 0.3
EQUAL_SCORES = 0.85
"""Positions on the colour map, 0..1."""
CIRCLES = 150
OVERVIEW_CIRCLES = 40
OUTLINE = (0, 0, 0, 0.5)
LEGEND_INCHES = 0.35
HEAT_PERCENTILES = (1, 99)
OVERVIEW_COLUMNS = 4


def draw_keypoints(
    image: ByteImage,
    features: LocalFeatures,
    path: Path,
    *,
    max_keypoints: int = 1000,
    title: str = "",
) -> None:
    """Write the figure of keypoints_figure; the suffix of ``path`` selects the format.

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
    """Draw the best keypoints over their image, coloured by score.

    The first few are circles as wide as the patch of their descriptor, in image pixels;
    the others are dots. A legend explains both.

    Args:
        image: (H, W, 3) uint8 RGB.
        features: of this image; may be empty.
        max_keypoints: number of keypoints drawn, best scores first.
        title: above the picture, before the keypoint count.
    """
    width, height = panel_size(image, LONGEST_SIDE_INCHES)
    figure = new_figure(width + COLORBAR_INCHES, height + TITLE_INCHES + LEGEND_INCHES)
    axes = figure.add_subplot()
    colors = score_colors([features], max_keypoints)
    show_image(axes, image)
    add_keypoints(axes, features, colors, max_keypoints, CIRCLES)
    count = f"{len(features)} keypoints"
    if len(features) > max_keypoints:
        count += f", best {max_keypoints} drawn"
    axes.set_title(
        f"{title}: {count}" if title else count, fontsize=11, parse_math=False
    )
    add_score_bar(figure, [axes], colors)
    if len(features):
        circles = min(CIRCLES, len(features), max_keypoints)
        add_keypoint_legend(figure, circles, colors)
    return figure


def draw_heatmaps(image: ByteImage, maps: Mapping[str, FloatArray], path: Path) -> None:
    """Draw an image and its maps side by side, each with its own colour range.

    Colours span the middle 98 % of a map's values, or all of them where these are
    equal; its colour bar states the range.

    Args:
        image: (H, W, 3) uint8 RGB.
        maps: title -> (h, w) float32; stretched over the image.
        path: of the picture; its suffix selects the format.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    width, height = panel_size(image, LONGEST_SIDE_INCHES / 2)
    columns = 1 + len(maps)
    figure = new_figure(columns * (width + COLORBAR_INCHES), height + TITLE_INCHES)
    axes = figure.add_subplot(1, columns, 1)
    show_image(axes, image)
    axes.set_title("image", fontsize=11)
    # a hidden bar keeps the image's panel as wide as the others
    unseen = ScalarMappable(Normalize(0, 1))
    add_colorbar(figure, [axes], unseen, " ").ax.set_visible(False)
    for column, (name, heat) in enumerate(maps.items(), 2):
        low, high = heat_range(heat)
        norm = Normalize(low, high)
        colors = ScalarMappable(norm, cmap=HEAT_COLORMAP)
        axes = figure.add_subplot(1, columns, column)
        show_heat(axes, heat, image, norm)
        axes.set_title(name, fontsize=11)
        digits = 2 - math.floor(math.log10(high - low or 1))
        label = (
            f"{round(low, digits) + 0:g} to {round(high, digits):g}, "
            "the middle 98 % of values"
        )
        add_colorbar(figure, [axes], colors, label)
    save(figure, path)


def heat_range(heat: FloatArray) -> tuple[float, float]:
    """The range of values that the colours of a map span."""
    low, high = np.percentile(heat, HEAT_PERCENTILES)
    if low == high:
        low, high = heat.min(), heat.max()
    return float(low), float(high)


def draw_overview(
    panels: Sequence[tuple[str, ByteImage, LocalFeatures]],
    path: Path,
    *,
    max_keypoints: int = 300,
) -> None:
    """Draw a grid of images with their keypoints, on one colour scale.

    Args:
        panels: title, (H, W, 3) uint8 RGB image and features of each; at least one.
        path: of the picture; its suffix selects the format.
        max_keypoints: number of keypoints drawn per image, best scores first.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    columns = min(OVERVIEW_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    sizes = [panel_size(image, LONGEST_SIDE_INCHES / 3) for _, image, _ in panels]
    widths, heights = zip(*sizes)
    figure = new_figure(
        columns * max(widths) + COLORBAR_INCHES,
        rows * (max(heights) + TITLE_INCHES) + LEGEND_INCHES,
    )
    colors = score_colors([features for _, _, features in panels], max_keypoints)
    for number, (title, image, features) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, number)
        show_image(axes, image)
        add_keypoints(axes, features, colors, max_keypoints, OVERVIEW_CIRCLES)
        axes.set_title(f"{title} ({len(features)})", fontsize=9, parse_math=False)
    add_score_bar(figure, figure.axes, colors)
    add_keypoint_legend(figure, OVERVIEW_CIRCLES, colors)
    save(figure, path)


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


def score_colors(
    all_features: Sequence[LocalFeatures], max_keypoints: int
) -> ScalarMappable:
    """The colour scale of the scores of the keypoints to be drawn."""
    scores = np.concatenate([f.scores[:max_keypoints] for f in all_features])
    norm = Normalize(scores.min(), scores.max()) if len(scores) else Normalize(0, 1)
    # the dark end of the map is invisible on a dark image
    first = SCORE_COLORMAP_START if norm.vmin != norm.vmax else EQUAL_SCORES
    bright = matplotlib.colormaps["plasma"](np.linspace(first, 1, 256))
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
    axes.scatter(x, y, s=12, c=score_color, linewidths=0.5, edgecolors=OUTLINE)
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
        linewidths=1.0,
        # a bright circle is invisible on a bright wall
        path_effects=[withStroke(linewidth=2.4, foreground=OUTLINE)],
    )
    axes.add_collection(patches, autolim=False)


def add_score_bar(figure: Figure, axes: Sequence[Axes], colors: ScalarMappable) -> None:
    """Add the bar of scores, unless all are equal: kapture keeps none."""
    if _differ(colors):
        add_colorbar(figure, axes, colors, "score")


def _differ(colors: ScalarMappable) -> bool:
    low, high = colors.get_clim()
    return low is not None and high is not None and low < high


def add_keypoint_legend(figure: Figure, circles: int, colors: ScalarMappable) -> None:
    """Add a legend of circles, dots and colours below a picture."""
    ink = "#333333"
    circle = Line2D([], [], color=ink, marker="o", markersize=10, fillstyle="none")
    dot = Line2D([], [], color=ink, marker="o", markersize=3)
    for handle in (circle, dot):
        handle.set_linestyle("none")
    figure.legend(
        [circle, dot],
        [
            f"circle: patch of the descriptor, for the best {circles} keypoints",
            "dot: keypoint" + ("; colour: score" if _differ(colors) else ""),
        ],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
