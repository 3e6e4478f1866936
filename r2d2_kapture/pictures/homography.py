"""Figures of the evaluation on image pairs: accuracy curves, and matches of a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from r2d2_kapture.pictures.figures import (
    TITLE_INCHES,
    ByteImage,
    new_figure,
    panel_size,
    save,
    show_image,
)

Points = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

PANEL_INCHES = 4.5
LEGEND_ROW_INCHES = 0.24
LEGEND_LETTERS_PER_INCH = 15
LEGEND_HANDLE_LETTERS = 6
MAX_THRESHOLD = 10
MARKERS = "os^Dv<>pP*"

PAIR_INCHES = 14.0
GAP_PIXELS = 16
MAX_LINES = 200
CORRECT_COLOR = "#35d05a"
WRONG_COLOR = "#ff3b30"


@dataclass(frozen=True, kw_only=True)
class AccuracyCurves:
    """Mean matching accuracy of one method.

    Attributes:
        label: in the legend.
        published: drawn dashed, as results of others.
        curves: name of a panel -> accuracy at each threshold in pixels.
    """

    label: str
    published: bool
    curves: Mapping[str, Mapping[float, float]]


def plot_accuracy(
    methods: Sequence[AccuracyCurves], panels: Sequence[str], path: Path
) -> None:
    """Draw accuracy over the threshold, 1 to 10 pixels, a panel for each group.

    The figure of D2-Net (Dusmanu et al., CVPR 2019) on HPatches.

    Args:
        methods: at least one; a panel leaves out those that it has no curve of.
        panels: names of the groups.
        path: of the picture; its suffix (.png, .jpg, .pdf, .svg) is the format.

    Raises:
        ConfigError: another suffix.
        OutputError: ``path`` cannot be written.
    """
    longest = max(len(method.label) for method in methods) + LEGEND_HANDLE_LETTERS
    fitting = int(PANEL_INCHES * len(panels) * LEGEND_LETTERS_PER_INCH / longest)
    columns = max(1, min(fitting, len(methods)))
    rows = -(-len(methods) // columns)
    figure = new_figure(
        PANEL_INCHES * len(panels), PANEL_INCHES + LEGEND_ROW_INCHES * (rows + 0.5)
    )
    all_axes: list[Axes] = list(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    )
    colors = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for axes, panel in zip(all_axes, panels):
        for i, method in enumerate(methods):
            curve = {
                t: v
                for t, v in sorted(method.curves.get(panel, {}).items())
                if t <= MAX_THRESHOLD
            }
            axes.plot(
                list(curve.keys()),
                list(curve.values()),
                linestyle="--" if method.published else "-",
                marker=MARKERS[i % len(MARKERS)],
                markersize=3.5,
                linewidth=1.2 if method.published else 1.8,
                color=colors[i % len(colors)],
            )
        _style_panel(axes, panel, any(panel in method.curves for method in methods))
    all_axes[0].set_ylabel("mean matching accuracy")
    legend = figure.legend(
        all_axes[0].get_lines(),
        [method.label for method in methods],
        loc="outside lower center",
        ncols=columns,
        fontsize=8.5,
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    save(figure, path)


def _style_panel(axes: Axes, title: str, has_curves: bool) -> None:
    axes.set_title(title.capitalize(), fontsize=11)
    axes.set_xlabel("threshold [px]")
    axes.set_xlim(0.7, MAX_THRESHOLD + 0.3)
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_locator(MultipleLocator(1))
    axes.yaxis.set_major_locator(MultipleLocator(0.1))
    axes.grid(linewidth=0.4, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if not has_curves:
        axes.text(
            0.5,
            0.5,
            "no such pairs",
            transform=axes.transAxes,
            ha="center",
            color="grey",
        )


def draw_matches(
    image1: ByteImage,
    image2: ByteImage,
    points1: Points,
    points2: Points,
    correct: BoolArray,
    path: Path,
    *,
    title: str = "",
) -> None:
    """Write the figure of matches_figure, green where matches are correct.

    Args:
        image1, image2: (H, W, 3) uint8 RGB, of any two sizes.
        points1, points2: (K, 2) matched pixels, centre origin.
        correct: (K,) bool.
        path: of the picture; its suffix is the format.
        title: before the counts.

    Raises:
        ConfigError: another suffix.
        OutputError: ``path`` cannot be written.
    """
    figure = matches_figure(
        image1,
        image2,
        points1,
        points2,
        correct,
        title=title,
        words="matches correct",
    )
    save(figure, path)


def matches_figure(
    image1: ByteImage,
    image2: ByteImage,
    points1: Points,
    points2: Points,
    good: BoolArray | None,
    *,
    title: str = "",
    words: str = "matches",
) -> Figure:
    """Two images side by side with lines between matches, green where good, else red.

    Of more than 200 matches, evenly chosen ones are drawn; the title counts all.

    Args:
        image1, image2: (H, W, 3) uint8 RGB, of any two sizes.
        points1, points2: (K, 2) matched pixels, centre origin.
        good: (K,) bool; None takes all for good, and the title counts them alone.
        title: before the counts.
        words: after the counts, what the good ones are.
    """
    counts = f"{len(points1)} matches"
    if good is None:
        good = np.ones(len(points1), bool)
    else:
        counts = f"{good.sum()} of {len(good)} {words}"
    canvas, offset = _side_by_side(image1, image2)
    width, height = panel_size(canvas, PAIR_INCHES)
    figure = new_figure(width, height + TITLE_INCHES)
    axes = figure.add_subplot()
    show_image(axes, canvas)
    drawn = np.unique(
        np.linspace(0, len(good) - 1, min(len(good), MAX_LINES)).astype(int)
    )
    ends = np.stack([points1[drawn], points2[drawn] + [offset, 0]], axis=1)
    # what is good lies on top
    for color, chosen in ((WRONG_COLOR, ~good[drawn]), (CORRECT_COLOR, good[drawn])):
        axes.add_collection(
            LineCollection(list(ends[chosen]), colors=color, linewidths=0.7, alpha=0.7),
            autolim=False,
        )
        x, y = ends[chosen].reshape(-1, 2).T
        axes.scatter(x, y, s=5, c=color, linewidths=0)
    if len(drawn) < len(good):
        counts += f", {len(drawn)} drawn"
    axes.set_title(
        f"{title}: {counts}" if title else counts, fontsize=11, parse_math=False
    )
    return figure


def _side_by_side(image1: ByteImage, image2: ByteImage) -> tuple[ByteImage, int]:
    """A white canvas with both images in grey, and where the second begins."""
    height = max(image1.shape[0], image2.shape[0])
    offset = image1.shape[1] + GAP_PIXELS
    canvas = np.full((height, offset + image2.shape[1], 3), 255, dtype=np.uint8)
    for image, left in ((image1, 0), (image2, offset)):
        rows, columns = image.shape[:2]
        grey = 0.75 * image.mean(axis=2, keepdims=True)
        canvas[:rows, left : left + columns] = np.rint(grey).astype(np.uint8)
    return canvas, offset
