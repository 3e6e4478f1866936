"""The cameras of a map: those of its database and of its dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pycolmap

from r2d2_kapture.coordinates import PixelOrigin
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.cameras import UNKNOWN_CAMERA, camera_sensors, colmap_camera
from r2d2_kapture.io.colmap.image_folder import approximate_sensors
from r2d2_kapture.io.colmap.model import DatabaseContent
from r2d2_kapture.io.kapture.dataset import Dataset
from r2d2_kapture.io.kapture.pixel_origins import find_camera_origin
from r2d2_kapture.io.kapture.tables import image_records

TOLERANCE = 1e-3
"""Pixels by which a principal point may differ between a database and a dataset."""


def cameras_of_sensors(
    content: DatabaseContent, dataset: Dataset, database: Path
) -> dict[str, pycolmap.Camera]:
    """The database's camera of each sensor of its images.

    Raises:
        DatasetError: the database has images that the dataset lacks, several cameras
            for one sensor, or another image size.
    """
    sensors = camera_sensors(dataset.data)
    records = image_records(dataset.data)
    cameras: dict[str, pycolmap.Camera] = {}
    for image in content.images:
        if image.name not in records:
            raise DatasetError(
                f"{database}: image '{image.name}' is not in {dataset.root}; give the "
                "dataset that the database was made from"
            )
        sensor_id = records[image.name].sensor_id
        camera = content.cameras[image.camera_id]
        first = cameras.setdefault(sensor_id, camera)
        if first.camera_id != camera.camera_id:
            raise DatasetError(
                f"{database}: images of camera '{sensor_id}' have cameras "
                f"{first.camera_id} and {camera.camera_id}, expected one; create the "
                f"database of {dataset.root} with kapture_r2d2_verify"
            )
        size = sensors[sensor_id].camera_params[:2]
        if [camera.width, camera.height] != [int(value) for value in size]:
            raise DatasetError(
                f"{database}: camera '{sensor_id}' has {camera.width} x {camera.height}"
                f" pixels, in {dataset.root} it has {size[0]:.0f} x {size[1]:.0f}; "
                "give the dataset that the database was made from"
            )
    return cameras


def origin_of_cameras(
    dataset: Dataset, cameras: Mapping[str, pycolmap.Camera]
) -> PixelOrigin:
    """The pixel origin of principal points, inferred from another tool's database."""
    origins: tuple[PixelOrigin, ...] = ("center", "corner")
    for sensor_id, camera in cameras.items():
        sensor = dataset.data.sensors[sensor_id]
        for origin in origins:
            converted = colmap_camera(sensor, camera.camera_id, origin)
            known = sensor.camera_type.name != UNKNOWN_CAMERA
            if known and np.allclose(
                (converted.principal_point_x, converted.principal_point_y),
                (camera.principal_point_x, camera.principal_point_y),
                rtol=0,
                atol=TOLERANCE,
            ):
                return origin
    return find_camera_origin(dataset, "auto").origin


def known_cameras(
    dataset: Dataset, cameras: Mapping[str, pycolmap.Camera]
) -> frozenset[int]:
    """Ids of the cameras whose intrinsics are known in the dataset, not guessed."""
    approximate = approximate_sensors(dataset.root)
    return frozenset(
        camera.camera_id
        for sensor_id, camera in cameras.items()
        if sensor_id not in approximate
        and dataset.data.sensors[sensor_id].camera_type.name != UNKNOWN_CAMERA
    )
