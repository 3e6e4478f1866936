"""Depth maps of a kapture dataset, and the images that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import kapture
import numpy as np
import pycolmap
from kapture.io.records import get_depth_map_fullpath

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import Dataset, check_relative_name
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.io.kapture.trajectories import recorded_poses, through_rigs
from r2d2_kapture.types import FloatArray

RECORDS_NAME = "records_depth.txt"
ReadDepth = Callable[[], FloatArray]
"""Reads the depth map of an image, see ``read_depth_map``."""


def read_depth_map(path: Path, size: tuple[int, int]) -> FloatArray:
    """Read a depth map of kapture.

    Args:
        path: of the file.
        size: (W, H) in pixels.

    Returns:
        (H, W) float32 along the camera's z axis in units of the world (metres), 0 where
        unknown.

    Raises:
        DatasetError: missing, or of another size.
    """
    try:
        depth = np.fromfile(path, dtype=np.float32)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    width, height = size
    if depth.size != width * height:
        raise DatasetError(
            f"{path}: found {depth.size} depths, expected {width} x {height}"
        )
    return depth.reshape(height, width)


def depth_map_files(dataset: Dataset) -> dict[str, Path]:
    """The file of the depth map of each image that has one, by name.

    A depth map belongs to the image with the same timestamp, camera parameters and
    pose.

    Raises:
        DatasetError: a name leaves the dataset's folder.
    """
    data = dataset.data
    pose_of = through_rigs(dataset, recorded_poses(dataset))
    source = dataset.root / "sensors" / RECORDS_NAME
    found: dict[str, Path] = {}
    for timestamp, camera_id, name in image_records(data).values():
        at_time = (data.records_depth or {}).get(timestamp, {})
        for depth_id, depth_name in sorted(at_time.items()):
            check_relative_name(depth_name, source)
            if _same_camera(data, camera_id, depth_id) and _same_pose(
                pose_of(timestamp, camera_id), pose_of(timestamp, depth_id)
            ):
                path = get_depth_map_fullpath(str(dataset.root), depth_name)
                found[name] = Path(path)
    return found


def depth_maps(dataset: Dataset) -> dict[str, ReadDepth]:
    """Reads the depth map of each image that has one, see ``depth_map_files``."""
    records = image_records(dataset.data)
    found: dict[str, ReadDepth] = {}
    for name, path in depth_map_files(dataset).items():
        sensor = dataset.data.sensors[records[name].sensor_id]
        width, height = map(int, sensor.camera_params[:2])
        found[name] = partial(read_depth_map, path, (width, height))
    return found


def state_of_depth_maps(dataset: Dataset) -> bytes:
    """Of the records of depth, and size and time of change of the files."""
    records = dataset.root / "sensors" / RECORDS_NAME
    stats = [
        (str(path), path.stat().st_size, path.stat().st_mtime_ns)
        for path in depth_map_files(dataset).values()
        if path.is_file()
    ]
    return (records.read_bytes() if records.is_file() else b"-") + str(stats).encode()


def _same_camera(data: kapture.Kapture, camera_id: str, depth_id: str) -> bool:
    camera, depth = data.sensors[camera_id], data.sensors[depth_id]
    return bool(
        camera.camera_type == depth.camera_type
        and camera.camera_params == depth.camera_params
    )


def _same_pose(camera: pycolmap.Rigid3d | None, depth: pycolmap.Rigid3d | None) -> bool:
    """Whether poses agree; a sensor without a pose shares the camera's."""
    if camera is None or depth is None:
        return True
    return np.allclose(camera.matrix(), depth.matrix(), atol=1e-6)
