"""A COLMAP model as a kapture dataset: poses, points, observations, keypoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt
import pycolmap
from kapture.io.csv import get_feature_csv_fullpath
from kapture.io.features import get_keypoints_fullpath

from r2d2_kapture.coordinates import PixelOrigin
from r2d2_kapture.io.colmap.cameras import (
    UNKNOWN_CAMERA,
    camera_sensors,
    colmap_camera,
    kapture_camera,
)
from r2d2_kapture.io.kapture.gnss import GNSS_FILE, Position, add_gnss
from r2d2_kapture.io.kapture.pixel_origins import ORIGIN_NAME, write_origin
from r2d2_kapture.io.kapture.poses import kapture_from_rigid3d
from r2d2_kapture.io.kapture.rigs import RigCameras, rig_cameras
from r2d2_kapture.io.kapture.tables import CameraRecord, image_records

OBSERVATIONS_NAME = kcsv.CSV_FILENAMES[kapture.Observations]
OBSERVATIONS_HEADER = "# point3d_id, keypoints_type, [image_path, feature_id]*"
MAP_DATASET_FILES = (
    *("sensors.txt", "rigs.txt", "records_camera.txt", "trajectories.txt"),
    *(
        GNSS_FILE,
        "points3d.txt",
        "observations.txt",
        "keypoints.txt",
        "*.kpt",
        ORIGIN_NAME,
    ),
)
"""Names of the files of the dataset of a map."""


@dataclass(frozen=True, kw_only=True)
class MapKeypoints:
    """The keypoints that observations count.

    Attributes:
        type_name: of the keypoints.
        dsize: values of a row.
        read: gives the (N, dsize) rows of an image.
        origin: that these rows count from.
        folders: of their files.
    """

    type_name: str
    dsize: int
    read: Callable[[str], npt.NDArray[Any]]
    origin: PixelOrigin = "center"
    folders: tuple[Path, ...] = ()


def write_map_dataset(
    root: Path,
    model: pycolmap.Reconstruction,
    dataset: kapture.Kapture,
    *,
    origin: PixelOrigin,
    keypoints: MapKeypoints,
    known_poses: Mapping[str, pycolmap.Rigid3d],
    positions: Mapping[str, Position],
) -> None:
    """Write the registered images of a model, and what they observe.

    Sensors keep what the model did not change, to the digit. Poses that were known are
    those of the dataset; others are written of rigs, or of cameras outside them.

    Args:
        root: folder to write in.
        model: its images are in the dataset.
        dataset: where sensors, rigs, records and known poses are taken from.
        origin: that the dataset's principal points are counted from.
        keypoints: of the images.
        known_poses: cam_from_world that the dataset has and the model kept.
        positions: of images, by GNSS.
    """
    images = {image.name: image for image in model.images.values() if image.has_pose}
    sensors = camera_sensors(dataset)
    records = [r for r in image_records(dataset).values() if r.name in images]
    cameras = {r.sensor_id: images[r.name].camera for r in records}
    rigs = rig_cameras(dataset, sensors)
    changed = _changed_rigs(model, rigs, cameras)
    world = kapture.Kapture(
        sensors=_sensors(dataset, cameras, origin),
        rigs=_kapture_rigs(changed) if changed != rigs else dataset.rigs,
        records_camera=_records(records),
        trajectories=_trajectories(dataset, records, images, changed, known_poses),
        keypoints={
            keypoints.type_name: kapture.Keypoints(
                keypoints.type_name, np.float32, keypoints.dsize, sorted(images)
            )
        },
        points3d=_points(model),
    )
    add_gnss(world, {name: positions[name] for name in positions.keys() & images})
    kcsv.kapture_to_dir(str(root), world)
    _write_observations(root / OBSERVATIONS_NAME, model, keypoints.type_name)
    write_origin(root / "sensors", origin)
    described = get_feature_csv_fullpath(
        kapture.Keypoints, keypoints.type_name, str(root)
    )
    write_origin(Path(described).parent, keypoints.origin)
    for name in images:
        path = Path(get_keypoints_fullpath(keypoints.type_name, str(root), name))
        path.parent.mkdir(parents=True, exist_ok=True)
        keypoints.read(name).astype("<f4").tofile(path)


def _records(records: list[CameraRecord]) -> kapture.RecordsCamera:
    made = kapture.RecordsCamera()
    for record in records:
        made[record.timestamp, record.sensor_id] = record.name
    return made


def _sensors(
    dataset: kapture.Kapture,
    cameras: Mapping[str, pycolmap.Camera],
    origin: PixelOrigin,
) -> kapture.Sensors:
    """The sensors, with the parameters that bundle adjustment changed or guessed."""
    made = kapture.Sensors()
    for sensor_id, sensor in dataset.sensors.items():
        made[sensor_id] = sensor
        if sensor_id in cameras:
            camera = cameras[sensor_id]
            before = colmap_camera(sensor, camera.camera_id, origin)
            guessed = sensor.camera_type.name == UNKNOWN_CAMERA
            if guessed or not np.array_equal(before.params, camera.params):
                made[sensor_id] = kapture_camera(camera, origin, sensor.name)
    return made


def _changed_rigs(
    model: pycolmap.Reconstruction,
    rigs: RigCameras,
    cameras: Mapping[str, pycolmap.Camera],
) -> RigCameras:
    """The rigs with the cam_from_rig of the model, relative to the same origins."""
    changed: RigCameras = {}
    for rig_id, members in rigs.items():
        changed[rig_id] = dict(members)
        seen = {cameras[s].camera_id: s for s in members if s in cameras}
        for rig in model.rigs.values():
            reference = seen.get(rig.ref_sensor_id.id)
            if reference is None:
                continue
            for sensor, sensor_from_reference in rig.non_ref_sensors.items():
                sensor_id = seen.get(sensor.id)
                if sensor_id is None or sensor_from_reference is None:
                    continue
                cam_from_rig = sensor_from_reference * members[reference]
                if not _close(cam_from_rig, members[sensor_id]):
                    changed[rig_id][sensor_id] = cam_from_rig
    return changed


def _close(one: pycolmap.Rigid3d, other: pycolmap.Rigid3d) -> bool:
    return np.allclose(one.matrix(), other.matrix(), rtol=1e-9, atol=1e-9)


def _kapture_rigs(rigs: RigCameras) -> kapture.Rigs:
    made = kapture.Rigs()
    for rig_id, members in rigs.items():
        for sensor_id, cam_from_rig in members.items():
            made[rig_id, sensor_id] = kapture_from_rigid3d(cam_from_rig)
    return made


def _trajectories(
    dataset: kapture.Kapture,
    records: list[CameraRecord],
    images: Mapping[str, pycolmap.Image],
    rigs: RigCameras,
    known_poses: Mapping[str, pycolmap.Rigid3d],
) -> kapture.Trajectories:
    made = kapture.Trajectories()
    for record in records:
        devices = (dataset.trajectories or {}).get(record.timestamp, {})
        if record.name in known_poses:
            taken = dataset.records_camera[record.timestamp]
            for device_id, pose in devices.items():
                # a camera whose image the map lacks has no pose in it
                if device_id not in taken or taken[device_id] in images:
                    made[record.timestamp, device_id] = pose
    rig_of_camera = {
        sensor_id: (rig_id, cam_from_rig)
        for rig_id, members in rigs.items()
        for sensor_id, cam_from_rig in members.items()
    }
    for record in records:
        if record.name in known_poses:
            continue
        device_id, pose = record.sensor_id, images[record.name].cam_from_world()
        if not known_poses and device_id in rig_of_camera:
            device_id, cam_from_rig = rig_of_camera[device_id]
            pose = cam_from_rig.inverse() * pose
        if device_id not in made.get(record.timestamp, {}):
            made[record.timestamp, device_id] = kapture_from_rigid3d(pose)
    return made


def _points(model: pycolmap.Reconstruction) -> kapture.Points3d:
    """(P, 6) position and colour, in order of COLMAP's ids."""
    rows = np.zeros((model.num_points3D(), 6))
    for row, point_id in zip(rows, sorted(model.points3D)):
        point = model.point3D(point_id)
        row[:3], row[3:] = point.xyz, point.color
    return kapture.Points3d(rows)


def _write_observations(
    path: Path, model: pycolmap.Reconstruction, keypoints_type: str
) -> None:
    """Write kapture's table of observations, a point at a time."""
    names = {image_id: image.name for image_id, image in model.images.items()}
    with path.open("w", encoding="utf-8", errors="surrogateescape") as table:
        table.write(f"{kcsv.KAPTURE_FORMAT_1}\n{OBSERVATIONS_HEADER}\n")
        for row, point_id in enumerate(sorted(model.points3D)):
            seen = sorted(
                (names[element.image_id], element.point2D_idx)
                for element in model.point3D(point_id).track.elements
            )
            fields = ", ".join(f"{name}, {keypoint}" for name, keypoint in seen)
            table.write(f"{row}, {keypoints_type}, {fields}\n")
