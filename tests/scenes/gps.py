"""Where a scene is on Earth, and EXIF data that say so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from r2d2_kapture.io.geodesy import EnuFrame
from r2d2_kapture.types import FloatArray
from tests.scenes.world import Scene

SITE = EnuFrame(latitude=-33.8568, longitude=151.2153, altitude=12.0)
METRES = 10.0
"""Of a unit of a scene."""
TURN = Rotation.from_euler("xyz", [-80, 10, 35], degrees=True)
"""From the scene to east, north, up."""


def places(scene: Scene) -> dict[str, FloatArray]:
    """Where each image was taken, in metres: east, north, up of the site."""
    return {
        name: METRES * TURN.apply(pose.inverse().t_raw) + [30, -20, 5]
        for name, pose in scene.poses.items()
    }


def errors(found: Mapping[str, FloatArray], scene: Scene) -> FloatArray:
    """(N,) metres between latitudes, longitudes, altitudes and the true places."""
    true = places(scene)
    enu = SITE.enu_from_wgs84(np.array(list(found.values())))
    return np.linalg.norm(enu - [true[name] for name in found], axis=1)


def tag(path: Path, enu: FloatArray) -> None:
    """Say in the EXIF data of a photograph where it was taken, as cameras do."""
    latitude, longitude, altitude = SITE.wgs84_from_enu(np.asarray(enu)[None])[0]
    with Image.open(path) as image:
        exif = image.getexif()
        exif.get_ifd(0x8825).update(
            {
                1: "N" if latitude >= 0 else "S",
                2: _dms(abs(latitude)),
                3: "E" if longitude >= 0 else "W",
                4: _dms(abs(longitude)),
                5: b"\0" if altitude >= 0 else b"\1",
                6: round(abs(float(altitude)), 3),
            }
        )
        image.save(path, exif=exif)


def _dms(degrees: float) -> tuple[float, float, float]:
    whole, rest = divmod(float(degrees) * 60, 1)
    return whole // 60, whole % 60, round(60 * rest, 6)
