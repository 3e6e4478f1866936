"""Small pictures for a page: photographs found by name, shrunk, as JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kapture.io.records import get_record_fullpath
from matplotlib.figure import Figure
from PIL import Image

from r2d2_kapture.errors import ImageError
from r2d2_kapture.io.images.decoding import RGBArray, read_rgb

THUMBNAIL_SIDE = 320
"""Pixels at most of a thumbnail's longest side."""
QUALITY = 78
"""Of JPEG, as Pillow counts it."""


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """Where photographs are.

    Attributes:
        roots: kapture datasets, and folders that hold images below their names.
    """

    roots: tuple[Path, ...]

    def find(self, name: str) -> Path | None:
        """The file of an image; None where there is none, or its name leads outside."""
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            return None
        for root in self.roots:
            for path in (Path(get_record_fullpath(str(root), name)), root / name):
                if path.is_file():
                    return path
        return None

    def read(self, name: str) -> RGBArray | None:
        """The pixels of an image as stored; None where they cannot be read."""
        path = self.find(name)
        try:
            return None if path is None else read_rgb(path)
        except ImageError:
            return None

    def thumbnail(self, name: str, side: int = THUMBNAIL_SIDE) -> bytes | None:
        """A JPEG of an image, its longest side at most ``side`` pixels, or None."""
        pixels = self.read(name)
        return None if pixels is None else jpeg(Image.fromarray(pixels), side)


def jpeg(picture: Image.Image, side: int) -> bytes:
    """A picture as JPEG, shrunk so that its longest side is at most ``side`` pixels."""
    shrunk = picture.convert("RGB")
    shrunk.thumbnail((side, side))
    buffer = io.BytesIO()
    shrunk.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def jpeg_of_figure(figure: Figure, side: int) -> bytes:
    """A figure of matplotlib as JPEG, its longest side at most ``side`` pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return jpeg(Image.open(buffer), side)


def jpeg_of_file(path: Path, side: int) -> bytes | None:
    """A picture file as JPEG; None where it cannot be read."""
    try:
        return jpeg(Image.fromarray(read_rgb(path)), side)
    except ImageError:
        return None
