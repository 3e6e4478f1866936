"""Cameras of a COLMAP database that follow pictures which were replaced."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import kapture
import numpy as np
import pycolmap

from r2d2_kapture.io.colmap.cameras import camera_sensors, colmap_camera
from r2d2_kapture.io.colmap.rigs import camera_sensor
from r2d2_kapture.io.colmap.update import write_trivial_rig
from r2d2_kapture.io.kapture.tables import image_records

CAMERA_SENSOR = 0
"""COLMAP's number of the sensors that are cameras."""


def follow_cameras(
    path: Path, dataset: kapture.Kapture, names: Collection[str]
) -> None:
    """Give images the cameras that a dataset describes now.

    A camera of such images alone changes where it stands. Images of a camera that
    others keep get a new one, with a rig of its own.

    Args:
        path: database that no process has open; its other images keep their cameras.
        dataset: its principal points count from the centre of the first pixel.
        names: of images of the dataset, in the database or not.
    """
    sensors = camera_sensors(dataset)
    moved: list[tuple[int, int, int]] = []
    with closing(pycolmap.Database.open(str(path))) as database:
        stored = {image.name: image for image in database.read_all_images()}
        of_sensor: dict[str, list[pycolmap.Image]] = defaultdict(list)
        for record in image_records(dataset).values():
            if record.name in stored and record.name in names:
                of_sensor[record.sensor_id].append(stored[record.name])
        users: dict[int, set[str]] = defaultdict(set)
        for image in stored.values():
            users[image.camera_id].add(image.name)
        for sensor_id, images in of_sensor.items():
            camera = colmap_camera(sensors[sensor_id], 0, "center")
            if all(_same(database.read_camera(i.camera_id), camera) for i in images):
                continue
            own = {image.name for image in images}
            alone = [i.camera_id for i in images if users[i.camera_id] <= own]
            if alone:
                camera.camera_id = min(alone)
                database.update_camera(camera)
            else:
                camera.camera_id = database.write_camera(camera)
            rest = [i.image_id for i in images if i.camera_id != camera.camera_id]
            rig_id = _rig_of(database, camera.camera_id) if rest else 0
            moved += [(image_id, camera.camera_id, rig_id) for image_id in rest]
    with closing(sqlite3.connect(path)) as connection:
        for image_id, camera_id, rig_id in moved:
            _move(connection, image_id, camera_id, rig_id)
        connection.commit()


def _same(one: pycolmap.Camera, other: pycolmap.Camera) -> bool:
    return (
        (one.model, one.width, one.height) == (other.model, other.width, other.height)
        and np.array_equal(one.params, other.params)
        and one.has_prior_focal_length == other.has_prior_focal_length
    )


def _rig_of(database: pycolmap.Database, camera_id: int) -> int:
    """The rig of a camera, made where it has none; 0 in a database without rigs."""
    if not database.num_rigs():
        return 0
    rig = database.read_rig_with_sensor(camera_sensor(camera_id))
    return int(rig.rig_id) if rig else write_trivial_rig(database, camera_id)


def _move(
    connection: sqlite3.Connection, image_id: int, camera_id: int, rig_id: int
) -> None:
    """Give an image another camera, and a frame of that camera's rig.

    COLMAP's own functions refuse each of the steps without the others.
    """
    before = connection.execute(
        "SELECT camera_id FROM images WHERE image_id = ?", (image_id,)
    ).fetchone()
    connection.execute(
        "UPDATE images SET camera_id = ? WHERE image_id = ?", (camera_id, image_id)
    )
    connection.execute(
        "UPDATE pose_priors SET corr_sensor_id = ? "
        "WHERE corr_data_id = ? AND corr_sensor_type = ?",
        (camera_id, image_id, CAMERA_SENSOR),
    )
    frames = connection.execute(
        "SELECT frame_id FROM frame_data WHERE data_id = ? AND sensor_type = ?",
        (image_id, CAMERA_SENSOR),
    ).fetchall()
    if frames:
        frame_id = connection.execute(
            "INSERT INTO frames (rig_id) VALUES (?)", (rig_id,)
        ).lastrowid
        connection.execute(
            "UPDATE frame_data SET frame_id = ?, sensor_id = ? "
            "WHERE data_id = ? AND sensor_type = ?",
            (frame_id, camera_id, image_id, CAMERA_SENSOR),
        )
        connection.executemany(
            "DELETE FROM frames WHERE frame_id = ? "
            "AND frame_id NOT IN (SELECT frame_id FROM frame_data)",
            frames,
        )
    _remove_unused(connection, *before)


def _remove_unused(connection: sqlite3.Connection, camera_id: int) -> None:
    """Remove a camera that no image has, with a rig that was its alone."""
    connection.execute(
        "DELETE FROM rigs WHERE ref_sensor_id = ? AND ref_sensor_type = ? "
        "AND rig_id NOT IN (SELECT rig_id FROM frames) "
        "AND rig_id NOT IN (SELECT rig_id FROM rig_sensors)",
        (camera_id, CAMERA_SENSOR),
    )
    connection.execute(
        "DELETE FROM cameras WHERE camera_id = ? "
        "AND camera_id NOT IN (SELECT camera_id FROM images) "
        "AND camera_id NOT IN (SELECT ref_sensor_id FROM rigs) "
        "AND camera_id NOT IN (SELECT sensor_id FROM rig_sensors)",
        (camera_id,),
    )
