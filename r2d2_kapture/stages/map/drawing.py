"""The pictures of a map, beside it: whatever becomes of them, the map is made."""

from __future__ import annotations

from pathlib import Path

import pycolmap

from r2d2_kapture.errors import R2D2KaptureError
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.pictures.maps import MapCloud, draw_map, write_map_ply

PICTURE_NAME = "map.png"
CLOUD_NAME = "map.ply"
METRES = "m"
OWN_UNITS = "units of the map"


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
            with quiet_pycolmap():
                model = pycolmap.Reconstruction(str(model))
        cloud = MapCloud.of_model(model)
        if not points.exists():
            write_map_ply(cloud, points)
        if not picture.exists():
            draw_map(cloud, picture, unit=unit)
    except (R2D2KaptureError, OSError, ValueError, ArithmeticError, MemoryError) as e:
        reason = " ".join(str(e).split()) or type(e).__name__
        return (f"the map is complete, but {place.name} is not drawn: {reason}",)
    return ()
