"""Pictures of training pairs: corresponding points in both crops, and their maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from scipy.ndimage import map_coordinates

from r2d2_kapture.pictures.figures import (
    COLORBAR_INCHES,
    HEAT_COLORMAP,
    TITLE_INCHES,
    ByteImage,
    add_colorbar,
    faded,
    new_figure,
    save,
    show_heat,
    show_image,
)

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

PANEL_INCHES = 4.0
POINTS_A_SIDE = 9
TILES_A_SIDE = 6
LONGEST_TITLE = 120
UNKNOWN_TINT = np.array([90, 20, 60], dtype=np.uint8)
"""Tint of unknown pixels."""


def draw_training_pair(
    images: tuple[ByteImage, ByteImage],
    aflow: FloatArray,
    path: Path,
    *,
    title: str = "",
    maps: Mapping[str, tuple[FloatArray, FloatArray]] | None = None,
) -> None:
    """Draw both crops with corresponding points, and the second warped onto the first.

    A point has one colour in both crops; some are joined by lines. In the third panel
    tiles of crop 1 alternate with tiles of crop 2 warped by the flow: edges continue
    from tile to tile where the flow is right. Unknown pixels are purple.

    Args:
        images: two (H, W, 3) uint8 RGB crops of one size.
        aflow: (H, W, 2) position in crop 2 of each pixel of crop 1; NaN where unknown.
        path: of the picture; its suffix is the format.
        title: above the picture.
        maps: title -> (h, w) maps of 0..1 of both crops, drawn below them.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    maps = maps or {}
    rows = 1 + len(maps)
    figure = new_figure(
        3 * PANEL_INCHES + COLORBAR_INCHES * bool(maps),
        rows * PANEL_INCHES + 2 * TITLE_INCHES,
    )
    axes = figure.subplots(rows, 3, squeeze=False)
    share = np.isfinite(aflow[..., 0]).mean()
    figure.suptitle(shortened(title), fontsize=11, parse_math=False)
    show_image(axes[0, 0], images[0])
    show_image(axes[0, 1], images[1])
    show_image(axes[0, 2], tiled(images, aflow))
    titles = ("crop 1", "crop 2", f"both as seen from crop 1, {share:.0%} known")
    for panel, text in zip(axes[0], titles):
        panel.set_title(text, fontsize=10)
    add_points(figure, axes[0, 0], axes[0, 1], aflow)
    for row, (name, pair) in enumerate(maps.items(), 1):
        add_maps(figure, list(axes[row]), name, pair, images[0], aflow)
    save(figure, path)


def shortened(title: str) -> str:
    """A title shortened in the middle to fit above the picture."""
    if len(title) <= LONGEST_TITLE:
        return title
    half = LONGEST_TITLE // 2
    return f"{title[:half]}\N{HORIZONTAL ELLIPSIS}{title[-half:]}"


def add_points(figure: Figure, left: Axes, right: Axes, aflow: FloatArray) -> None:
    """Draw a grid of points with known correspondences, some joined by lines."""
    height, width = aflow.shape[:2]
    steps = [
        np.linspace(0, side - 1, POINTS_A_SIDE + 2)[1:-1].round().astype(int)
        for side in (width, height)
    ]
    x, y = (grid.ravel() for grid in np.meshgrid(*steps))
    known = np.isfinite(aflow[y, x, 0])
    x, y = x[known], y[known]
    targets = aflow[y, x]
    colors = position_colors(x / width, y / height)
    for axes, columns, rows in (left, x, y), (right, *targets.T):
        axes.scatter(
            columns, rows, s=26, c=colors, edgecolors="black", linewidths=0.7, zorder=3
        )
    for number in range(0, len(x), POINTS_A_SIDE + 1):
        line = ConnectionPatch(
            (float(x[number]), float(y[number])),
            (float(targets[number, 0]), float(targets[number, 1])),
            "data",
            "data",
            axesA=left,
            axesB=right,
            color=colors[number],
            linewidth=0.9,
            alpha=0.8,
        )
        line.set_in_layout(False)
        figure.add_artist(line)


def add_maps(
    figure: Figure,
    axes: list[Axes],
    name: str,
    maps: tuple[FloatArray, FloatArray],
    image: ByteImage,
    aflow: FloatArray,
) -> None:
    """Draw a map of both crops, and that of the second warped onto the first."""
    norm = Normalize(0, 1)
    colors = ScalarMappable(norm, cmap=HEAT_COLORMAP)
    shown: list[npt.NDArray[np.floating]] = [*maps, warped(maps[1], aflow)]
    titles = (f"{name} 1", f"{name} 2", f"{name} 2 as seen from crop 1")
    for panel, values, text in zip(axes, shown, titles):
        show_heat(panel, values, image, norm)
        panel.set_title(text, fontsize=10)
    add_colorbar(figure, axes, colors, "")


def position_colors(x: DoubleArray, y: DoubleArray) -> DoubleArray:
    """(N, 3) RGB of positions (N,), (N,) in 0..1: hue along x, lightness along y."""
    hue = 0.85 * x
    saturation = np.where(y < 1 / 2, 0.35 + 1.3 * y, 1.0)
    value = np.where(y < 1 / 2, 1.0, 1.6 - 1.2 * y)
    return np.asarray(hsv_to_rgb(np.stack([hue, saturation, value], axis=-1)))


def tiled(images: tuple[ByteImage, ByteImage], aflow: FloatArray) -> ByteImage:
    """Tiles of crop 1 alternating with tiles of crop 2 warped onto crop 1."""
    height, width = aflow.shape[:2]
    channels = [warped(images[1][..., c], aflow) for c in range(3)]
    second = np.stack(channels, axis=-1)
    known = np.isfinite(second[..., 0])
    rows, columns = np.ogrid[:height, :width]
    tile = (rows * TILES_A_SIDE // height + columns * TILES_A_SIDE // width) % 2 == 1
    result = np.where(known[..., None], images[0], faded(images[0]) // 2 + UNKNOWN_TINT)
    chosen = tile & known
    result[chosen] = np.rint(second[chosen]).astype(np.uint8)
    return np.asarray(result, dtype=np.uint8)


def warped(values: npt.NDArray[np.generic], aflow: FloatArray) -> DoubleArray:
    """A (h, w) map of crop 2 as seen from crop 1, (H, W); NaN where unknown."""
    known = np.isfinite(aflow[..., 0])
    result = np.full(known.shape, np.nan)
    x, y = aflow[known].T
    result[known] = map_coordinates(
        values.astype(np.float64), [y, x], order=1, mode="nearest"
    )
    return result
