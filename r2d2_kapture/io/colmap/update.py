"""Features for the images of a COLMAP database that may already hold others.

Images are found by name. Their cameras, rigs and frames stay, as does everything of
other images. Images that are not there are added with cameras of their own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from pathlib import Path

import kapture
import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.io.colmap.cameras import camera_sensors, colmap_camera
from r2d2_kapture.io.colmap.content import PAIR_BASE
from r2d2_kapture.io.colmap.rigs import camera_sensor
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.types import FloatArray

Pair = tuple[str, str]
BoolArray = npt.NDArray[np.bool_]


def add_images(database: pycolmap.Database, dataset: kapture.Kapture) -> dict[str, int]:
    """Add the images that a database lacks; give the ids of all of a dataset.

    Args:
        database: open for writing.
        dataset: its principal points count from the centre of the first pixel.

    Returns:
        Image ids by name.
    """
    # without any rig COLMAP makes trivial ones of all cameras as it loads a database
    with_rigs = database.num_rigs() > 0 or database.num_images() == 0
    ids = {image.name: image.image_id for image in database.read_all_images()}
    sensors = camera_sensors(dataset)
    records = image_records(dataset)
    cameras: dict[str, tuple[int, int]] = {}
    for record in records.values():
        if record.name in ids:
            continue
        if record.sensor_id not in cameras:
            camera = colmap_camera(sensors[record.sensor_id], 0, "center")
            camera_id = database.write_camera(camera)
            rig_id = write_trivial_rig(database, camera_id) if with_rigs else 0
            cameras[record.sensor_id] = camera_id, rig_id
        camera_id, rig_id = cameras[record.sensor_id]
        image = pycolmap.Image(name=record.name, camera_id=camera_id)
        image_id = ids[record.name] = database.write_image(image)
        if with_rigs:
            frame = pycolmap.Frame(rig_id=rig_id)
            frame.add_data_id(pycolmap.data_t(camera_sensor(camera_id), image_id))
            database.write_frame(frame)
    return {name: ids[name] for name in records}


def write_trivial_rig(database: pycolmap.Database, camera_id: int) -> int:
    """Write a rig of one camera; give its id."""
    rig = pycolmap.Rig()
    rig.add_ref_sensor(camera_sensor(camera_id))
    return int(database.write_rig(rig))


def cameras_by_image(
    database: pycolmap.Database, ids: Mapping[str, int]
) -> dict[str, pycolmap.Camera]:
    """The camera of each image, by name."""
    cameras = {camera.camera_id: camera for camera in database.read_all_cameras()}
    return {
        name: cameras[database.read_image(image_id).camera_id]
        for name, image_id in ids.items()
    }


def images_with_features(
    database: pycolmap.Database, keypoints: Mapping[str, FloatArray | None]
) -> list[str]:
    """Images whose features in a database are others than ours.

    Args:
        database: open.
        keypoints: ours by image name, (N, 2) in COLMAP's pixel origin; None counts
            any that are there.
    """
    ids = {image.name: image.image_id for image in database.read_all_images()}
    others = []
    for name in sorted(keypoints.keys() & ids.keys()):
        if database.num_keypoints_for_image(ids[name]) == 0:
            continue
        ours = keypoints[name]
        theirs = database.read_keypoints(ids[name])
        described = database.num_descriptors_for_image(ids[name]) > 0
        if described or ours is None or not np.array_equal(ours, theirs):
            others.append(name)
    return others


def remove_features(path: Path, image_ids: Iterable[int]) -> None:
    """Remove keypoints, descriptors, matches and geometries of images.

    pycolmap removes no keypoints. Matches with other images go too: they count
    keypoints that are gone.

    Args:
        path: database that no process has open.
        image_ids: of the images.
    """
    wanted = set(image_ids)
    with closing(sqlite3.connect(path)) as connection:
        for table in ("keypoints", "descriptors"):
            connection.executemany(
                f"DELETE FROM {table} WHERE image_id = ?",
                [(image_id,) for image_id in sorted(wanted)],
            )
        for table in ("matches", "two_view_geometries"):
            rows = connection.execute(f"SELECT pair_id FROM {table}").fetchall()
            connection.executemany(
                f"DELETE FROM {table} WHERE pair_id = ?",
                [row for row in rows if wanted & set(divmod(row[0], PAIR_BASE))],
            )
        connection.commit()


def remove_features_of(path: Path, names: Collection[str]) -> None:
    """Remove the features of images by name; those that are not there are none.

    Args:
        path: database that no process has open.
        names: of the images.
    """
    if names:
        with closing(pycolmap.Database.open(str(path))) as database:
            images = database.read_all_images()
        remove_features(path, (i.image_id for i in images if i.name in names))


def replace_pair(
    database: pycolmap.Database,
    ids: tuple[int, int],
    matches: np.ndarray[tuple[int, int], np.dtype[np.uint32]],
    geometry: pycolmap.TwoViewGeometry | None,
) -> None:
    """Write the matches and the geometry of a pair in place of those that are there."""
    if database.exists_matches(*ids):
        database.delete_matches(*ids)
    database.write_matches(*ids, matches)
    if database.exists_two_view_geometry(*ids):
        database.delete_two_view_geometry(*ids)
    if geometry is not None:
        database.write_two_view_geometry(*ids, geometry)


def move_keypoints(
    path: Path, moved: Callable[[str], tuple[FloatArray, BoolArray]]
) -> None:
    """Write new places of keypoints, which keep their numbers.

    Args:
        path: database that no process has open.
        moved: gives the (N, 2) keypoints of an image, in COLMAP's pixel origin, and
            (N,) which of them moved; the others stay as they are.
    """
    with closing(sqlite3.connect(path)) as connection:
        names = dict(connection.execute("SELECT image_id, name FROM images"))
        stored = connection.execute(
            "SELECT image_id, rows, cols FROM keypoints WHERE rows > 0 "
            "ORDER BY image_id"
        )
        for image_id, rows, columns in stored.fetchall():
            if image_id not in names:
                continue
            xy, is_moved = moved(names[image_id])
            if not is_moved.any():
                continue
            where = "FROM keypoints WHERE image_id = ?"
            (data,) = connection.execute(f"SELECT data {where}", [image_id]).fetchone()
            values = np.frombuffer(data, "<f4").reshape(rows, columns).copy()
            values[is_moved, :2] = xy[is_moved]
            connection.execute(
                "UPDATE keypoints SET data = ? WHERE image_id = ?",
                (values.tobytes(), image_id),
            )
        connection.commit()
