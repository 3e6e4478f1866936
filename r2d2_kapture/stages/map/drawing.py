"""The pictures of a map, beside it: whatever becomes of them, the map is made."""

from __future__ import annotations

from pathlib import Path

import pycolmap

from r2d2_kapture.errors import R2D2KaptureError
from r2d2_kapture.io.colmap.binary import check_binary_model
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.pictures.maps import MapCloud, draw_map, write_map_ply

PICTURE_NAME = "map.png"
CLOUD_NAME = "map.ply"
METRES = "m"
OWN_UNITS = "units of the map"
FAILURES = (
    R2D2KaptureError,
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)
"""Of the disk, of numbers that cannot be drawn, and of a model that cannot be read."""


def draw_model(
    place: Path, model: pycolmap.Reconstruction | Path, *, unit: str = OWN_UNITS
) -> tuple[str, ...]:
    """Write map.png and map.ply of a map, those of them that are missing.

    Args:
        place: folder to write in.
        model: or the folder of its files.
        unit: of the world.

    Returns:
        Why they cannot be drawn, as a warning; empty if they are there.
    """
    picture, points = place / PICTURE_NAME, place / CLOUD_NAME
    if picture.exists() and points.exists():
        return ()
    try:
        if isinstance(model, Path):
            check_binary_model(model)
            with quiet_pycolmap():
                model = pycolmap.Reconstruction(str(model))
        cloud = MapCloud.of_model(model)
        if not points.exists():
            write_map_ply(cloud, points)
        if not picture.exists():
            draw_map(cloud, picture, unit=unit)
    except FAILURES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return (f"the map is not drawn, and is as it is without that: {reason}",)
    return ()
