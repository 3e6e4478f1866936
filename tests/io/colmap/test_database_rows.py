"""Rows that are written without pycolmap are those that pycolmap writes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.io.colmap.database_rows import adding_rows
from r2d2_kapture.io.kapture.tables import CameraRecord

IMAGES = {1: "a b.jpg", 2: "über/c.jpg", 3: "d.jpg"}
KEYPOINTS = {
    1: np.arange(8, dtype=np.float32).reshape(4, 2)[::2],  # not contiguous
    2: np.zeros((0, 2), np.float32),
    3: np.arange(18, dtype=np.float32).reshape(3, 6),
}


def geometries() -> dict[tuple[int, int], pycolmap.TwoViewGeometry]:
    empty = pycolmap.TwoViewGeometry()
    empty.config = 1
    known = pycolmap.TwoViewGeometry()
    known.config = 2
    known.E = np.arange(9.0).reshape(3, 3)
    known.cam2_from_cam1 = pycolmap.Rigid3d(
        pycolmap.Rotation3d(np.array([0.1, 0.2, 0.3, 0.9])), np.array([1.0, 2, 3])
    )
    known.inlier_matches = np.array([[1, 2], [0, 1]], np.uint32)
    planar = pycolmap.TwoViewGeometry()
    planar.config = 4
    planar.F, planar.H = np.eye(3) * 2, np.arange(9.0).reshape(3, 3).T
    planar.inlier_matches = np.array([[0, 2]], np.uint32)
    return {(1, 2): empty, (1, 3): known, (2, 3): planar}


def frames() -> list[pycolmap.Frame]:
    """Of a rig of two cameras, and of one."""
    made = []
    for frame_id, images in {1: (1, 2), 3: (3,)}.items():
        frame = pycolmap.Frame(frame_id=frame_id, rig_id=1)
        for place, image_id in enumerate(images, start=1):
            sensor = pycolmap.sensor_t(pycolmap.SensorType.CAMERA, place)
            frame.add_data_id(pycolmap.data_t(sensor, image_id))
        made.append(frame)
    return made


def begin(path: Path) -> pycolmap.Database:
    database = pycolmap.Database.open(str(path))
    rig = pycolmap.Rig(rig_id=1)
    for camera_id in (1, 2):
        camera = pycolmap.Camera(
            camera_id=camera_id,
            model="SIMPLE_PINHOLE",
            width=64,
            height=48,
            params=[60.0, 32, 24],
        )
        database.write_camera(camera, use_camera_id=True)
        sensor = pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera_id)
        if camera_id == 1:
            rig.add_ref_sensor(sensor)
        else:
            rig.add_sensor(sensor, pycolmap.Rigid3d())
    database.write_rig(rig, use_rig_id=True)
    return database


def write_by_pycolmap(path: Path) -> None:
    with closing(begin(path)) as database:
        for image_id, name in IMAGES.items():
            image = pycolmap.Image(name=name, camera_id=1, image_id=image_id)
            database.write_image(image, use_image_id=True)
        for frame in frames():
            database.write_frame(frame, use_frame_id=True)
        for image_id, keypoints in KEYPOINTS.items():
            database.write_keypoints(image_id, keypoints)
        for pair, geometry in geometries().items():
            database.write_matches(*pair, geometry.inlier_matches)
            database.write_two_view_geometry(*pair, geometry)


def write_by_rows(path: Path, chunk: int) -> None:
    begin(path).close()
    with adding_rows(path, chunk) as rows:
        for image_id, name in IMAGES.items():
            record = CameraRecord(timestamp=0, sensor_id="cam", name=name)
            rows.image(image_id, record, 1)
        for frame in frames():
            rows.frame(frame)
        for image_id, keypoints in KEYPOINTS.items():
            rows.keypoints(image_id, keypoints)
        for pair, geometry in geometries().items():
            pair_id = pycolmap.image_pair_to_pair_id(*pair)
            rows.matches(pair_id, geometry.inlier_matches)
            rows.geometry(pair_id, geometry)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize("chunk", [1, 4, 10_000])
def test_rows_are_those_of_pycolmap_in_chunks_of_any_size(
    tmp_path: Path, chunk: int
) -> None:
    write_by_pycolmap(tmp_path / "theirs.db")
    write_by_rows(tmp_path / "ours.db", chunk)
    assert dump(tmp_path / "ours.db")[-1] == "COMMIT;"
    assert sorted(dump(tmp_path / "ours.db")) == sorted(dump(tmp_path / "theirs.db"))


def test_pycolmap_reads_the_rows(tmp_path: Path) -> None:
    write_by_rows(tmp_path / "a.db", 2)
    with closing(pycolmap.Database.open(str(tmp_path / "a.db"))) as database:
        assert {i.image_id: i.name for i in database.read_all_images()} == IMAGES
        assert [f.frame_id for f in database.read_all_frames()] == [1, 3]
        known = database.read_two_view_geometry(1, 3)
        np.testing.assert_array_equal(database.read_keypoints(3), KEYPOINTS[3])
    expected = geometries()[1, 3]
    np.testing.assert_array_equal(known.E, expected.E)
    np.testing.assert_array_equal(
        known.cam2_from_cam1.matrix(), expected.cam2_from_cam1.matrix()
    )
    np.testing.assert_array_equal(known.inlier_matches, expected.inlier_matches)
