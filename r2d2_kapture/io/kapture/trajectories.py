"""Camera poses of kapture datasets: one cam_from_world per image, rigs resolved."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import pycolmap

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.dataset import Dataset, read_lines
from r2d2_kapture.io.kapture.poses import kapture_from_rigid3d, rigid3d_from_kapture
from r2d2_kapture.io.kapture.rigs import RIGS_NAME, compose, rigs_above
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.io.outputs.atomic import output_error, write_text_atomic

POSE_FIELDS = "qw, qx, qy, qz, tx, ty, tz"

FindPose = Callable[[int, str], pycolmap.Rigid3d | None]
"""Gives the device_from_world of a timestamp and a device id, if it is known."""


@dataclass(frozen=True, kw_only=True)
class CameraPoses:
    """Poses of the images of a dataset.

    Attributes:
        cam_from_world: by image name, in order of names; units of the dataset.
        without_pose: names of the other images, in order.
    """

    cam_from_world: dict[str, pycolmap.Rigid3d]
    without_pose: tuple[str, ...]


def read_camera_poses(dataset: Dataset) -> CameraPoses:
    """Read the pose of every image, composed through rigs where need be.

    A camera's own pose in trajectories.txt goes before one through its rig; of
    several rigs the nearest takes precedence. An image is without pose where nothing is
    recorded at its timestamp, or where a pose on the way is partial.

    Raises:
        DatasetError: numbers that are not finite, a rig inside itself, or poses of
            which none is of a sensor or rig of the dataset.
    """
    return resolve_camera_poses(dataset, recorded_poses(dataset))


def recorded_poses(dataset: Dataset) -> FindPose:
    """The poses of trajectories.txt.

    Raises:
        DatasetError: see ``read_camera_poses``.
    """
    source = dataset.root / "sensors" / "trajectories.txt"
    trajectories = dataset.data.trajectories or {}
    _refuse_unknown_devices(dataset, source)

    def find(timestamp: int, device_id: str) -> pycolmap.Rigid3d | None:
        pose = trajectories.get(timestamp, {}).get(device_id)
        owner = f"{source}: '{device_id}' at {timestamp}"
        return None if pose is None else rigid3d_from_kapture(pose, owner)

    return find


def through_rigs(dataset: Dataset, find: FindPose) -> FindPose:
    """Poses of cameras and rigs, also those that follow from a rig above.

    Args:
        dataset: its rigs are used.
        find: gives the known poses of cameras and rigs.

    Raises:
        DatasetError: see ``read_camera_poses``.
    """
    above = rigs_above(dataset.data, dataset.root / "sensors" / RIGS_NAME)

    def find_through(timestamp: int, device_id: str) -> pycolmap.Rigid3d | None:
        of_rigs = (
            compose(device_from_rig, find(timestamp, rig_id))
            for rig_id, device_from_rig in above.get(device_id, {}).items()
        )
        candidates = itertools.chain([find(timestamp, device_id)], of_rigs)
        return next((pose for pose in candidates if pose is not None), None)

    return find_through


def resolve_camera_poses(dataset: Dataset, find: FindPose) -> CameraPoses:
    """Compose the poses of images from those of cameras and rigs.

    Args:
        dataset: its records and rigs are used.
        find: gives the known poses of cameras and rigs.

    Raises:
        DatasetError: see ``read_camera_poses``.
    """
    pose_of = through_rigs(dataset, find)
    poses = {}
    without = []
    for name, record in image_records(dataset.data).items():
        pose = pose_of(record.timestamp, record.sensor_id)
        if pose is None:
            without.append(name)
        else:
            poses[name] = pose
    return CameraPoses(cam_from_world=poses, without_pose=tuple(without))


def _refuse_unknown_devices(dataset: Dataset, source: Path) -> None:
    """Refuse poses that are all of unknown devices, which kapture leaves out."""
    if dataset.data.trajectories or not source.is_file():
        return
    rows = [row for row in read_lines(source) if row.strip() and row[0] != "#"]
    if rows:
        raise DatasetError(
            f"{source}: found poses of no sensor of sensors.txt and no rig of "
            f"rigs.txt, such as '{rows[0][:80]}'; correct the ids, or delete the file"
        )


def write_camera_poses(
    root: Path, dataset: Dataset, cam_from_world: Mapping[str, pycolmap.Rigid3d]
) -> None:
    """Write a kapture dataset of poses: sensors, rigs, records, trajectories.

    All images of ``dataset`` are recorded; those without pose have no line in
    trajectories.txt. Poses are of cameras, not of rigs. Each file is whole or absent,
    trajectories.txt is written last; one that belonged to other sensors or records is
    removed first: an interrupted run leaves a dataset without poses, never with wrong
    ones. Images and features of the dataset are neither copied nor touched.

    Args:
        root: folder to write ``sensors/*.txt`` in; made where it is missing.
        dataset: where sensors, rigs and records are taken from.
        cam_from_world: by image name.

    Raises:
        DatasetError: a pose of an image that ``dataset`` does not record.
        OutputError: the file system refused.
    """
    records = image_records(dataset.data)
    unknown = cam_from_world.keys() - records.keys()
    if unknown:
        raise DatasetError(
            f"{root}: cannot write the pose of '{min(unknown)}', not an image of "
            f"{dataset.root}"
        )
    folder = root / "sensors"
    trajectories = folder / "trajectories.txt"
    texts = _description(dataset.data)
    try:
        if any(_text_at(folder / name) != text for name, text in texts.items()):
            trajectories.unlink(missing_ok=True)
        if "rigs.txt" not in texts:
            (folder / "rigs.txt").unlink(missing_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    for name, text in texts.items():
        write_text_atomic(folder / name, text)
    table = [
        [timestamp, camera, *kcsv.pose_to_list(kapture_from_rigid3d(pose))]
        for timestamp, camera, name in sorted(map(records.__getitem__, cam_from_world))
        if (pose := cam_from_world[name])
    ]
    write_text_atomic(
        trajectories, _table(f"timestamp, device_id, {POSE_FIELDS}", table)
    )


def _description(data: kapture.Kapture) -> dict[str, str]:
    """The files that say what the sensors are and what they took."""
    texts = {
        "sensors.txt": _table(
            "sensor_id, name, sensor_type, [sensor_params]+",
            (
                [sensor_id, *kcsv.sensor_to_list(sensor)]
                for sensor_id, sensor in sorted(data.sensors.items())
            ),
        ),
        "records_camera.txt": _table(
            "timestamp, device_id, image_path",
            sorted(kapture.flatten(data.records_camera or {})),
        ),
    }
    if data.rigs:
        texts["rigs.txt"] = _table(
            f"rig_id, sensor_id, {POSE_FIELDS}",
            (
                [rig_id, device_id, *kcsv.pose_to_list(pose)]
                for rig_id, devices in sorted(data.rigs.items())
                for device_id, pose in sorted(devices.items())
            ),
        )
    return texts


def _table(header: str, rows: Iterable[Iterable[object]]) -> str:
    """A kapture table as text, by kapture's own writer."""
    file = io.StringIO()
    kcsv.table_to_file(file, rows, header=f"# {header}")
    return file.getvalue()


def _text_at(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
