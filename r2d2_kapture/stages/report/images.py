"""Small pictures for a page: downscaled photographs and figures, as JPEG."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from r2d2_kapture.errors import ImageError
from r2d2_kapture.io.images.decoding import RGBArray, read_reduced, read_rgb

THUMBNAIL_SIDE = 320
"""Greatest length in pixels of a thumbnail's longest side."""
QUALITY = 78
"""JPEG quality, on Pillow's scale."""


def read_image(path: Path | None) -> RGBArray | None:
    """The pixels of an image file; None if it cannot be read."""
    try:
        return None if path is None else read_rgb(path)
    except ImageError:
        return None


def thumbnail(path: Path | None, side: int = THUMBNAIL_SIDE) -> bytes | None:
    """A JPEG of an image, its longest side at most ``side`` pixels, or None."""
    try:
        pixels = None if path is None else read_reduced(path, side)
    except ImageError:
        return None
    return None if pixels is None else jpeg(Image.fromarray(pixels), side)


def shrunk(pixels: RGBArray, side: int) -> RGBArray:
    """An image whose longest side is at most ``side`` pixels."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    return np.asarray(picture)


def jpeg(picture: Image.Image, side: int) -> bytes:
    """A picture as JPEG, shrunk so that its longest side is at most ``side`` pixels."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def jpeg_of_figure(figure: Figure, side: int) -> bytes:
    """A figure of matplotlib as JPEG, its longest side at most ``side`` pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return jpeg(Image.open(buffer), side)
