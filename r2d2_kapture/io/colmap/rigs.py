"""Rigs and frames of kapture as COLMAP's.

COLMAP's rigs have a reference sensor and kapture's have none, so a kapture rig is
re-based on its first camera; each camera outside rigs is a rig of its own. A frame is
what a rig took at one timestamp.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import kapture
import pycolmap

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.poses import rigid3d_from_kapture
from r2d2_kapture.io.kapture.tables import check_records

RigCameras = dict[str, dict[str, pycolmap.Rigid3d]]
"""For each outermost rig its cameras, with cam_from_rig."""


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One image: its name, and which camera took it when."""

    name: str
    timestamp: int
    sensor_id: str


def image_records(
    dataset: kapture.Kapture, sensors: Mapping[str, kapture.Camera]
) -> list[ImageRecord]:
    """The images in order of name, each taken once by a known camera.

    Raises:
        DatasetError: an unknown camera, or an image that is recorded twice.
    """
    found = check_records(
        "records_camera.txt", kapture.flatten(dataset.records_camera or {})
    )
    for _, sensor_id, name in found:
        if sensor_id not in sensors:
            raise DatasetError(
                f"image '{name}': camera '{sensor_id}' is not among the cameras of "
                "sensors.txt; add it there"
            )
    records = (
        ImageRecord(name=name, timestamp=timestamp, sensor_id=sensor_id)
        for timestamp, sensor_id, name in found
    )
    return sorted(records, key=lambda record: record.name)


def rig_cameras(dataset: kapture.Kapture, sensor_ids: Iterable[str]) -> RigCameras:
    """The cameras of each outermost rig, those of nested rigs included.

    Args:
        dataset: its rigs are used.
        sensor_ids: cameras of the dataset; lidars and absent sensors are left out.

    Raises:
        DatasetError: a camera in two rigs or twice in one, a rig inside itself, or an
            incomplete pose.
    """
    poses = dataset.rigs or {}
    known = frozenset(sensor_ids)
    nested = {device for devices in poses.values() for device in devices}
    rig_of_camera: dict[str, str] = {}
    rigs: RigCameras = {}
    for rig_id in sorted(poses):
        cameras = _cameras_of_rig(poses, rig_id, known, above=())
        if rig_id in nested or not cameras:
            continue
        for sensor_id in cameras:
            other = rig_of_camera.setdefault(sensor_id, rig_id)
            if other != rig_id:
                raise DatasetError(
                    f"camera '{sensor_id}': found in rigs '{other}' and '{rig_id}', "
                    "COLMAP allows one; name the camera apart or correct rigs.txt"
                )
        rigs[rig_id] = dict(sorted(cameras.items()))
    return rigs


def colmap_rigs(rigs: RigCameras, camera_ids: Mapping[str, int]) -> list[pycolmap.Rig]:
    """COLMAP's rigs, such that each camera is in one of them.

    A rig has the id of its reference camera, as the trivial rigs that pycolmap makes.

    Args:
        rigs: of ``rig_cameras``.
        camera_ids: COLMAP's id of each camera of the dataset.
    """
    in_rigs = {sensor_id for cameras in rigs.values() for sensor_id in cameras}
    made = [_colmap_rig(cameras, camera_ids) for cameras in rigs.values()]
    alone = (sensor_id for sensor_id in camera_ids if sensor_id not in in_rigs)
    made += [_colmap_rig({name: pycolmap.Rigid3d()}, camera_ids) for name in alone]
    return made


def colmap_frames(
    records: Iterable[ImageRecord],
    rigs: Iterable[pycolmap.Rig],
    camera_ids: Mapping[str, int],
    image_ids: Mapping[str, int],
) -> list[pycolmap.Frame]:
    """The images that a rig took at one time; a single camera takes one at a time.

    A frame has the id of its first image, as the trivial frames that pycolmap makes.
    """
    rig_ids = {sensor.id: rig.rig_id for rig in rigs for sensor in rig.sensor_ids()}
    groups: defaultdict[tuple[int, int], list[ImageRecord]] = defaultdict(list)
    for record in records:
        rig_id = rig_ids[camera_ids[record.sensor_id]]
        groups[rig_id, record.timestamp].append(record)
    frames = []
    for (rig_id, _), group in groups.items():
        frame = pycolmap.Frame(frame_id=image_ids[group[0].name], rig_id=rig_id)
        for record in group:
            sensor = camera_sensor(camera_ids[record.sensor_id])
            frame.add_data_id(pycolmap.data_t(sensor, image_ids[record.name]))
        frames.append(frame)
    return frames


def camera_sensor(camera_id: int) -> pycolmap.sensor_t:
    """COLMAP's name of a camera among the sensors of rigs."""
    return pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera_id)


def _colmap_rig(
    cameras: Mapping[str, pycolmap.Rigid3d], camera_ids: Mapping[str, int]
) -> pycolmap.Rig:
    """A rig whose origin is its first camera, given each cam_from_rig of kapture."""
    reference, *others = sorted(cameras)
    rig = pycolmap.Rig(rig_id=camera_ids[reference])
    rig.add_ref_sensor(camera_sensor(camera_ids[reference]))
    rig_from_reference = cameras[reference].inverse()
    for sensor_id in others:
        rig.add_sensor(
            camera_sensor(camera_ids[sensor_id]),
            cameras[sensor_id] * rig_from_reference,
        )
    return rig


def _cameras_of_rig(
    rigs: kapture.Rigs, rig_id: str, known: frozenset[str], above: tuple[str, ...]
) -> dict[str, pycolmap.Rigid3d]:
    """The cam_from_rig of the cameras of a rig, and of the rigs nested in it."""
    if rig_id in above:
        raise DatasetError(f"rig '{rig_id}': found inside itself; correct rigs.txt")
    cameras: dict[str, pycolmap.Rigid3d] = {}
    for device_id, pose in rigs[rig_id].items():
        if device_id in rigs:
            inner = _cameras_of_rig(rigs, device_id, known, (*above, rig_id))
        elif device_id in known:
            inner = {device_id: pycolmap.Rigid3d()}
        else:  # a lidar, or a camera that this part of the dataset lacks
            continue
        twice = cameras.keys() & inner.keys()
        if twice:
            raise DatasetError(
                f"rig '{rig_id}': holds camera '{min(twice)}' twice, COLMAP allows "
                "one; correct rigs.txt"
            )
        owner = f"rig '{rig_id}', sensor '{device_id}'"
        device_from_rig = rigid3d_from_kapture(pose, owner)
        if device_from_rig is None:
            raise DatasetError(
                f"{owner}: the pose is incomplete, expected a rotation and a "
                "translation; correct rigs.txt"
            )
        for sensor_id, camera_from_device in inner.items():
            cameras[sensor_id] = camera_from_device * device_from_rig
    return cameras
