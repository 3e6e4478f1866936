"""Rigs and frames of kapture as COLMAP's.

COLMAP's rigs have a reference sensor and kapture's have none, so a kapture rig is
re-based on its first camera; each camera outside rigs is a rig of its own. A frame is
what a rig took at one timestamp.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import pycolmap

from r2d2_kapture.io.kapture.rigs import RigCameras
from r2d2_kapture.io.kapture.tables import CameraRecord


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
    records: Iterable[CameraRecord],
    rigs: Iterable[pycolmap.Rig],
    camera_ids: Mapping[str, int],
    image_ids: Mapping[str, int],
) -> list[pycolmap.Frame]:
    """The images that a rig took at one time; a single camera takes one at a time.

    A frame has the id of its first image, as the trivial frames that pycolmap makes.
    """
    rig_ids = {sensor.id: rig.rig_id for rig in rigs for sensor in rig.sensor_ids()}
    groups: defaultdict[tuple[int, int], list[CameraRecord]] = defaultdict(list)
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
