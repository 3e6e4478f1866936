"""Rigs and frames of a COLMAP 4 database: checked, and trivial ones added."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import numpy as np
import pycolmap

from r2d2_kapture.io.colmap.content import (
    Content,
    float64_values,
    half_written,
    wrong_row,
)

CAMERA = int(pycolmap.SensorType.CAMERA.value)
SENSORS = (CAMERA, int(pycolmap.SensorType.IMU.value))
RIG_POSE_VALUES = 7


def check_frames(connection: sqlite3.Connection, content: Content) -> tuple[str, ...]:
    """Refuse rigs and frames of what is not there, or that contradict each other.

    Args:
        connection: to the database.
        content: its cameras and images.

    Returns:
        Images that lack a frame which ``add_frames`` makes, by name.

    Raises:
        BrokenContent: naming the row, what was found and what is expected.
    """
    rigs = _check_rigs(connection, content)
    frames: dict[int, int] = {}
    for frame_id, rig_id in connection.execute("SELECT frame_id, rig_id FROM frames"):
        if rig_id not in rigs:
            raise wrong_row(
                f"frame {frame_id}: found rig_id {rig_id}, which is not in rigs"
            )
        frames[frame_id] = rig_id
    frame_of: dict[int, int] = {}
    taken: dict[tuple[int, int], str] = {}
    for frame_id, image_id, sensor_id in connection.execute(
        "SELECT frame_id, data_id, sensor_id FROM frame_data WHERE sensor_type = ?",
        (CAMERA,),
    ):
        what = f"frame {frame_id}"
        if frame_id not in frames:
            raise wrong_row(f"frame_data: found {what}, which is not in frames")
        if image_id not in content.names:
            raise half_written(f"found {what} of image {image_id}, not in images")
        name = content.names[image_id]
        if sensor_id != content.camera_of[image_id]:
            raise wrong_row(
                f"{what}: found '{name}' of camera {sensor_id}, which images says is "
                f"of camera {content.camera_of[image_id]}"
            )
        if sensor_id not in rigs[frames[frame_id]]:
            raise wrong_row(
                f"{what}: found '{name}' of camera {sensor_id}, which is not in its "
                f"rig {frames[frame_id]}"
            )
        if frame_of.setdefault(image_id, frame_id) != frame_id:
            raise wrong_row(
                f"image '{name}': found it in frames {frame_of[image_id]} and "
                f"{frame_id}, expected one"
            )
        other = taken.setdefault((frame_id, sensor_id), name)
        if other != name:
            raise wrong_row(
                f"{what}: found '{other}' and '{name}' of camera {sensor_id}, expected "
                "one image of a camera"
            )
    return _frameless(content, rigs, frame_of)


def _check_rigs(
    connection: sqlite3.Connection, content: Content
) -> dict[int, set[int]]:
    """The cameras of each rig, checked."""
    rigs: dict[int, set[int]] = {}
    rig_of: dict[tuple[int, int], int] = {}
    sensors = [
        (rig_id, sensor_id, kind, None)
        for rig_id, sensor_id, kind in connection.execute(
            "SELECT rig_id, ref_sensor_id, ref_sensor_type FROM rigs"
        )
    ]
    rigs = {rig_id: set() for rig_id, *_ in sensors}
    sensors += connection.execute(
        "SELECT rig_id, sensor_id, sensor_type, sensor_from_rig FROM rig_sensors"
    )
    for rig_id, sensor_id, kind, pose in sensors:
        what = f"rig {rig_id}"
        if rig_id not in rigs:
            raise wrong_row(f"rig_sensors: found {what}, which is not in rigs")
        if kind not in SENSORS:
            raise wrong_row(
                f"{what}: found sensor {sensor_id} of type {kind}, expected a camera"
            )
        if kind == CAMERA and sensor_id not in content.camera_ids:
            raise wrong_row(
                f"{what}: found camera {sensor_id}, which is not in cameras"
            )
        first = rig_of.setdefault((kind, sensor_id), rig_id)
        if first != rig_id or (kind == CAMERA and sensor_id in rigs[rig_id]):
            raise wrong_row(
                f"{what}: found camera {sensor_id} again, first in rig {first}, "
                "expected each camera in one rig"
            )
        values = float64_values(pose)
        if pose is not None and (
            values is None
            or len(values) != RIG_POSE_VALUES
            or not np.isfinite(values).all()
            or not values[:4].any()
        ):
            raise wrong_row(
                f"{what}: found a sensor_from_rig of camera {sensor_id} that is no "
                "quaternion and translation of 7 finite numbers"
            )
        if kind == CAMERA:
            rigs[rig_id].add(sensor_id)
    return rigs


def _frameless(
    content: Content, rigs: Mapping[int, set[int]], frame_of: Mapping[int, int]
) -> tuple[str, ...]:
    """Images without frame, none of which others of their rig may have come with."""
    if not rigs:  # COLMAP makes trivial ones as it loads a database
        return ()
    shared = {
        camera_id: rig_id
        for rig_id, cameras in rigs.items()
        for camera_id in cameras
        if len(cameras) > 1
    }
    without = [image_id for image_id in content.names if image_id not in frame_of]
    for image_id in without:
        name = content.names[image_id]
        rig_id = shared.get(content.camera_of[image_id])
        if rig_id is not None:
            raise wrong_row(
                f"image '{name}': found no frame, expected one of rig {rig_id}, to "
                f"which its camera {content.camera_of[image_id]} belongs with "
                f"{len(rigs[rig_id]) - 1} more"
            )
    return tuple(sorted(content.names[image_id] for image_id in without))


def add_frames(connection: sqlite3.Connection) -> None:
    """Give each image without frame one of its own, and its camera a rig if need be.

    Without any rig nothing is added: COLMAP does it as it loads a database.
    """
    if connection.execute("SELECT rig_id FROM rigs").fetchone() is None:
        return
    connection.execute(
        "INSERT INTO rigs (ref_sensor_id, ref_sensor_type) "
        "SELECT DISTINCT camera_id, :camera FROM images WHERE camera_id NOT IN ("
        "SELECT ref_sensor_id FROM rigs WHERE ref_sensor_type = :camera UNION "
        "SELECT sensor_id FROM rig_sensors WHERE sensor_type = :camera)",
        {"camera": CAMERA},
    )
    without = connection.execute(
        "SELECT image_id, camera_id, rig_id FROM images "
        "JOIN rigs ON ref_sensor_id = camera_id AND ref_sensor_type = :camera "
        "WHERE image_id NOT IN "
        "(SELECT data_id FROM frame_data WHERE sensor_type = :camera)",
        {"camera": CAMERA},
    ).fetchall()
    for image_id, camera_id, rig_id in without:
        frame_id = connection.execute(
            "INSERT INTO frames (rig_id) VALUES (?)", (rig_id,)
        ).lastrowid
        connection.execute(
            "INSERT INTO frame_data (frame_id, data_id, sensor_id, sensor_type) "
            "VALUES (?, ?, ?, ?)",
            (frame_id, image_id, camera_id, CAMERA),
        )
    connection.commit()
