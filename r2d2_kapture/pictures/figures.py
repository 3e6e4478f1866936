"""Figures without a window system: sizes, images, colour bars, saving."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.text import Text

from r2d2_kapture.coordinates import HALF_PIXEL
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.io.names import shown
from r2d2_kapture.io.outputs.atomic import write_bytes_atomic

ByteImage = npt.NDArray[np.uint8]

DOTS_PER_INCH = 100
LONGEST_SIDE_INCHES = 12.0
COLORBAR_INCHES = 0.8
TITLE_INCHES = 0.35
HEAT_COLORMAP = "plasma"
FORMATS = (".png", ".jpg", ".pdf", ".svg")


def panel_size(image: ByteImage, longest_side: float) -> tuple[float, float]:
    """Inches (width, height) of an image drawn so that its longest side is given."""
    height, width = image.shape[:2]
    scale = longest_side / max(width, height)
    # a narrow image still needs room for its title and its colour bar
    return max(width * scale, 2.0), max(height * scale, 1.0)


class Picture(Figure):
    """A figure that a notebook shows without a plotting backend."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, without a window system."""
    figure = Picture(figsize=(width, height), dpi=DOTS_PER_INCH, layout="compressed")
    FigureCanvasAgg(figure)
    return figure


def image_extent(image: ByteImage) -> tuple[float, float, float, float]:
    """Left, right, bottom, top borders of an image: half a pixel around the centres."""
    height, width = image.shape[:2]
    return -HALF_PIXEL, width - HALF_PIXEL, height - HALF_PIXEL, -HALF_PIXEL


def show_image(axes: Axes, image: ByteImage) -> None:
    """Draw an image so that axes coordinates are its pixels, centre origin."""
    axes.imshow(image, extent=image_extent(image))
    axes.set_axis_off()


def show_heat(
    axes: Axes, heat: npt.NDArray[np.generic], image: ByteImage, norm: Normalize
) -> None:
    """Draw a (h, w) map stretched over the pixels of an image."""
    axes.imshow(
        heat,
        cmap=HEAT_COLORMAP,
        norm=norm,
        extent=image_extent(image),
        interpolation="nearest",
    )
    axes.set_axis_off()


def faded(image: ByteImage) -> ByteImage:
    """The image, darkened and desaturated so that drawings on it stand out."""
    grey = image.mean(axis=2, keepdims=True)
    blend: ByteImage = np.rint(0.4 * grey + 0.25 * image).astype(np.uint8)
    return blend


def add_colorbar(
    figure: Figure, axes: Sequence[Axes], colors: ScalarMappable, label: str
) -> Colorbar:
    """Add a thin bar of the colours to the right of the axes."""
    return figure.colorbar(
        colors, ax=axes, label=label, fraction=0.03, pad=0.01, aspect=40
    )


def plain_axes(axes: Axes) -> None:
    """Remove the frame's lines that carry no numbers."""
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write a figure atomically.

    Raises:
        ConfigError: the suffix is not one of FORMATS, in any case.
        OutputError: the file cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(
            f"{path}: found the suffix '{path.suffix}', expected one of "
            f"{', '.join(FORMATS)}"
        )
    for text in figure.findobj(Text):
        lines = text.get_text().split("\n")
        # fonts lack glyphs that file names may contain
        text.set_text("\n".join(map(shown, lines)))
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower())
    write_bytes_atomic(path, content.getvalue())
