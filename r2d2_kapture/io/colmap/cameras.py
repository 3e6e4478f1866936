"""Cameras of kapture as COLMAP's, and back.

COLMAP counts pixels from the corner of the first one, so a principal point that was
counted from its centre moves with the keypoints (see coordinates.py).
"""

from __future__ import annotations

from pathlib import Path

import kapture
import numpy as np
import pycolmap

from r2d2_kapture.config.cameras import MODEL_PARAMETERS
from r2d2_kapture.coordinates import (
    CameraOrigin,
    PixelOrigin,
    principal_point_origin,
    principal_point_shift,
)
from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io.colmap.exif import read_exif
from r2d2_kapture.io.images.decoding import image_size
from r2d2_kapture.io.kapture.tables import image_records

UNKNOWN_CAMERA = "UNKNOWN_CAMERA"
GUESSED_MODEL = "SIMPLE_RADIAL"
"""Of an unknown camera, unless its name is that of a model."""
UNKNOWN_FOCAL_FACTOR = 1.2
"""Focal length of an unknown camera in units of its longest side, as in COLMAP."""
EQUAL_MODELS = {
    "SIMPLE_FISHEYE": ("SIMPLE_RADIAL_FISHEYE", 1),
    "FISHEYE": ("OPENCV_FISHEYE", 4),
}
"""kapture's model that is one of COLMAP's if its last parameters are 0: how many."""


def camera_sensors(dataset: kapture.Kapture) -> dict[str, kapture.Camera]:
    """The colour cameras in order of sensor id; depth maps are sensors of their own."""
    return {
        sensor_id: sensor
        for sensor_id, sensor in sorted(dataset.cameras.items())
        if sensor.sensor_type == "camera"
    }


def image_cameras(
    dataset: kapture.Kapture, origin: PixelOrigin
) -> dict[str, pycolmap.Camera]:
    """The camera of each image, in COLMAP's pixel origin; ids count from 1.

    Args:
        dataset: its sensors and records are used.
        origin: where principal points are counted from.

    Raises:
        DatasetError: see ``colmap_camera``, and records that contradict themselves.
    """
    cameras = {
        sensor_id: colmap_camera(sensor, number, origin)
        for number, (sensor_id, sensor) in enumerate(camera_sensors(dataset).items(), 1)
    }
    return {
        name: cameras[record.sensor_id]
        for name, record in image_records(dataset).items()
    }


def resolve_camera_origin(
    dataset: kapture.Kapture, camera_origin: CameraOrigin
) -> PixelOrigin:
    """Decide where the principal points of a dataset are counted from.

    ``auto`` tests each camera by coordinates.principal_point_origin: ``corner`` if any
    says so, else ``center``, kapture's own convention.
    """
    if camera_origin != "auto":
        return camera_origin
    return "corner" if "corner" in principal_point_origins(dataset) else "center"


def principal_point_origins(dataset: kapture.Kapture) -> set[PixelOrigin]:
    """The origins that principal points in the middle of their images speak for."""
    cameras = [
        colmap_camera(sensor, 0, "corner")  # as it stands, not shifted
        for sensor in camera_sensors(dataset).values()
        if sensor.camera_type.name != UNKNOWN_CAMERA
    ]
    origins = [
        principal_point_origin(
            (camera.principal_point_x, camera.principal_point_y),
            (camera.width, camera.height),
        )
        for camera in cameras
    ]
    return {origin for origin in origins if origin is not None}


def colmap_camera(
    sensor: kapture.Camera, camera_id: int, origin: PixelOrigin
) -> pycolmap.Camera:
    """Make COLMAP's camera of kapture's, its principal point in COLMAP's origin.

    A camera of unknown parameters becomes SIMPLE_RADIAL, or the model that its name
    says, with a focal length of 1.2 times its longest side, as in COLMAP, and is marked
    as a guess.

    Args:
        sensor: kapture's camera.
        camera_id: its id in the database or reconstruction.
        origin: where its principal point is counted from.

    Raises:
        DatasetError: no size, parameters that are not finite, or no focal length.
    """
    width, height, *params = sensor.camera_params
    model = sensor.camera_type.name
    if not (np.isfinite([width, height, *params]).all() and min(width, height) >= 1):
        raise DatasetError(
            f"{_line(sensor)}, expected a size of 1 pixel or more and finite "
            "parameters; correct it"
        )
    if model == UNKNOWN_CAMERA:  # COLMAP's principal point is the middle, in its origin
        return pycolmap.Camera.create_from_model_name(
            camera_id,
            sensor.name if sensor.name in MODEL_PARAMETERS else GUESSED_MODEL,
            UNKNOWN_FOCAL_FACTOR * max(width, height),
            int(width),
            int(height),
        )
    camera = pycolmap.Camera(
        camera_id=camera_id,
        model=model,
        width=int(width),
        height=int(height),
        params=params,
        has_prior_focal_length=True,
    )
    if min(camera.params[list(camera.focal_length_idxs())]) <= 0:
        raise DatasetError(
            f"{_line(sensor)}, expected a focal length above 0 pixels; correct it, or "
            "write UNKNOWN_CAMERA with width and height only"
        )
    camera.principal_point_x += principal_point_shift(origin)
    camera.principal_point_y += principal_point_shift(origin)
    return camera


def photograph_camera(path: Path, size: tuple[int, int]) -> pycolmap.Camera | None:
    """The camera of a photograph by its EXIF data, in COLMAP's pixel origin.

    Args:
        path: of the file.
        size: (W, H) in pixels that the camera is for.

    Returns:
        One as COLMAP guesses it; None where the file is absent, unreadable or of
        another size, or its EXIF data give no focal length.
    """
    try:
        # pycolmap's own checks would say less, and on the terminal
        if image_size(path) != size:
            return None
    except ImageError:
        return None
    focal_length, _ = read_exif(path, size)
    if focal_length is None:
        return None
    camera = pycolmap.Camera.create_from_model_name(
        0, GUESSED_MODEL, focal_length, *size
    )
    camera.has_prior_focal_length = True
    return camera


def _line(sensor: kapture.Camera) -> str:
    """The end of a camera's line, by which it is found."""
    return f"sensors.txt: found the camera '{', '.join(sensor.sensor_params)}'"


def parameter_count(model: int) -> int | None:
    """How many parameters COLMAP's model of an id has; None where there is no such."""
    try:
        model_id = pycolmap.CameraModelId(model)
        camera = pycolmap.Camera.create_from_model_id(0, model_id, 1.0, 1, 1)
    except ValueError:
        return None
    return len(camera.params)


def kapture_camera(
    camera: pycolmap.Camera, origin: PixelOrigin, name: str | None = None
) -> kapture.Camera:
    """Make kapture's camera of COLMAP's, its principal point in the given origin.

    Args:
        camera: in COLMAP's origin.
        origin: that the principal point is to be counted from.
        name: of the sensor.

    Raises:
        DatasetError: a camera model that kapture does not have.
    """
    model, params = camera.model_name, camera.params.copy()
    if model not in kapture.CameraType.__members__ and model not in EQUAL_MODELS:
        raise DatasetError(
            f"camera {camera.camera_id}: found COLMAP's model {model}, which kapture "
            "does not have; undistort the images with COLMAP, or calibrate another "
            "camera model"
        )
    params[list(camera.principal_point_idxs())] -= principal_point_shift(origin)
    model, zeros = EQUAL_MODELS.get(model, (model, 0))
    params = np.append(params, np.zeros(zeros))
    return kapture.Camera(
        model, [camera.width, camera.height, *params.tolist()], name=name
    )
