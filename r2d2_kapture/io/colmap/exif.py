"""Focal lengths of EXIF data, by COLMAP's reader.

It knows the 35 mm equivalent, the resolution of the focal plane, and a list of sensor
widths by camera. Formats that COLMAP does not read (HEIF, AVIF) have the first.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pycolmap

from r2d2_kapture.errors import ImageError
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.images.decoding import exif_camera

FILM_MM = (36, 24)


def read_exif(path: Path, size: tuple[int, int]) -> tuple[float | None, str | None]:
    """The focal length in pixels, and maker, model, focal length and size in one.

    Args:
        path: of an image.
        size: (W, H) of the image in pixels as stored.

    Returns:
        None for both where EXIF says no focal length, or the image cannot be read.
    """
    with quiet_pycolmap():
        try:
            bitmap = pycolmap.Bitmap.read(str(path), True)
        except (ValueError, RuntimeError):
            bitmap = None
    if bitmap is None:
        return _exif_of_other_formats(path, size)
    if (bitmap.width, bitmap.height) != size:
        return None, None
    focal_length = bitmap.exif_focal_length()
    if focal_length is None or not (np.isfinite(focal_length) and focal_length > 0):
        return None, None
    return focal_length, bitmap.exif_camera_model()


def _exif_of_other_formats(
    path: Path, size: tuple[int, int]
) -> tuple[float | None, str | None]:
    """The same of HEIF and AVIF, which COLMAP does not read."""
    try:
        focal_length, model = exif_camera(path)
    except ImageError:
        return None, None
    if focal_length is None:
        return None, None
    pixels = focal_length / math.hypot(*FILM_MM) * math.hypot(*size)
    return pixels, f"{model}-{size[0]}x{size[1]}"
