"""The pictures of a map; a failure to draw does not affect the map."""

from __future__ import annotations

from pathlib import Path

import pycolmap

from r2d2_kapture.errors import R2D2KaptureError
from r2d2_kapture.io.colmap.binary import check_binary_model
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.georeference import Georeference
from r2d2_kapture.io.map_unit import map_unit
from r2d2_kapture.pictures.maps import MapCloud, draw_map, write_map_ply

PICTURE_NAME = "map.png"
CLOUD_NAME = "map.ply"
FAILURES = (
    R2D2KaptureError,
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)
"""Failures of the disk, of drawing, and of reading a model."""


def draw_model(
    place: Path,
    model: pycolmap.Reconstruction | Path,
    *,
    metric_poses: bool = False,
    georeference: Georeference | None = None,
) -> tuple[str, ...]:
    """Write map.png and map.ply of a map, if they are missing.

    Args:
        place: folder to write in.
        model: the model, or the folder of its files.
        metric_poses: whether the map was made in known poses in metres.
        georeference: says where north and up are, and the unit, if it is known.

    Returns:
        A warning if they cannot be drawn, else empty.
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
            axes = None if georeference is None else georeference.axes
            unit = map_unit(georeference, metric_poses)
            draw_map(cloud, picture, unit=unit, axes=axes)
    except FAILURES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return (f"the map is complete but could not be drawn: {reason}",)
    return ()
