"""Databases of scripts: what is wrong is named before pycolmap meets it."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.check import check_database, copy_database
from r2d2_kapture.io.colmap.model import known_pose_model, read_database

PARAMS = "X'" + struct.pack("<4d", 340, 32, 24, 0).hex() + "'"
NO_FOCAL = "X'" + struct.pack("<4d", 0, 32, 24, 0).hex() + "'"
NAN = "X'" + np.full(8, np.nan, "<f4").tobytes().hex() + "'"
SECOND_CAMERA = f"INSERT INTO cameras VALUES (2, 2, 64, 48, {PARAMS}, 0)"
LOOSE_IMAGES = (
    "ALTER TABLE images RENAME TO strict",
    "CREATE TABLE images (image_id INTEGER PRIMARY KEY, name TEXT, camera_id INTEGER)",
    "INSERT INTO images SELECT * FROM strict",
)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of one camera, 4 keypoints each, and one verified pair."""
    path = tmp_path_factory.mktemp("database") / "script.db"
    matches = np.array([[0, 1], [3, 3]], np.uint32)
    geometry = pycolmap.TwoViewGeometry(config=2, inlier_matches=matches)
    with closing(pycolmap.Database.open(str(path))) as database:
        camera = pycolmap.Camera.create_from_model_name(0, "SIMPLE_RADIAL", 340, 64, 48)
        sensor = pycolmap.sensor_t(
            pycolmap.SensorType.CAMERA, database.write_camera(camera)
        )
        rig = pycolmap.Rig()
        rig.add_ref_sensor(sensor)
        rig_id = database.write_rig(rig)
        for name in ("0.jpg", "1.jpg", "2.jpg"):
            image = pycolmap.Image(name=name, camera_id=sensor.id)
            image_id = database.write_image(image)
            frame = pycolmap.Frame(rig_id=rig_id)
            frame.add_data_id(pycolmap.data_t(sensor, image_id))
            database.write_frame(frame)
            database.write_keypoints(image_id, np.ones((4, 2), np.float32))
        database.write_matches(1, 2, matches)
        database.write_two_view_geometry(1, 2, geometry)
        prior = pycolmap.PosePrior(corr_data_id=pycolmap.data_t(sensor, 1))
        database.write_pose_prior(prior)
    return path


@pytest.fixture
def path(tmp_path: Path, complete: Path) -> Path:
    return Path(shutil.copy(complete, tmp_path / complete.name))


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (
            ["UPDATE cameras SET params = NULL"],
            "camera 1: found 0 parameters, expected 4 numbers of SIMPLE_RADIAL "
            "(f, cx, cy, k)",
        ),
        (["UPDATE cameras SET params = substr(params, 1, 16)"], "found 2 parameters"),
        (
            ["UPDATE cameras SET params = '340,32'"],
            "camera 1: found params '340,32', expected 4 numbers",
        ),
        ([f"UPDATE cameras SET params = {NO_FOCAL}"], "[0.0, 32.0, 24.0, 0.0]"),
        (["UPDATE cameras SET model = 99"], "camera 1: found camera model 99"),
        (["UPDATE cameras SET model = -1"], "camera 1: found camera model -1"),
        (["UPDATE cameras SET width = 0"], "camera 1: found a size of 0 x 48"),
        (
            ["UPDATE images SET camera_id = 7 WHERE image_id = 1"],
            "image '0.jpg': found camera_id 7, which is not in cameras",
        ),
        (
            [*LOOSE_IMAGES, "UPDATE images SET name = NULL WHERE image_id = 2"],
            "image 2: found the name None",
        ),
        (["UPDATE images SET name = X'FF' WHERE image_id = 2"], "name b'\\xff'"),
        (
            [*LOOSE_IMAGES, "UPDATE images SET name = '0.jpg' WHERE image_id = 2"],
            "image '0.jpg': found ids 1 and 2, expected each name once",
        ),
        (
            [*LOOSE_IMAGES, "UPDATE images SET image_id = 2147483647 WHERE image_id=3"],
            "image '2.jpg': found image_id 2147483647",
        ),
        (
            ["ALTER TABLE frame_data DROP COLUMN sensor_id"],
            "table frame_data: found no column sensor_id",
        ),
        (
            ["UPDATE frames SET rig_id = 5 WHERE frame_id = 2"],
            "frame 2: found rig_id 5",
        ),
        (
            ["UPDATE frame_data SET frame_id = 9 WHERE data_id = 3"],
            "found frame 9, which is not in frames",
        ),
        (
            ["UPDATE frame_data SET data_id = 9 WHERE data_id = 3"],
            "frame 3 of image 9, not in images",
        ),
        (
            ["UPDATE frame_data SET sensor_id = 9 WHERE data_id = 3"],
            "found '2.jpg' of camera 9, which images says is of camera 1",
        ),
        (
            [SECOND_CAMERA, "UPDATE rigs SET ref_sensor_id = 2"],
            "found '0.jpg' of camera 1, which is not in its rig 1",
        ),
        (
            ["UPDATE frame_data SET frame_id = 1 WHERE data_id = 2"],
            "frame 1: found '0.jpg' and '1.jpg' of camera 1",
        ),
        (
            ["UPDATE rigs SET ref_sensor_id = 4294967295, ref_sensor_type = -1"],
            "rig 1: found sensor 4294967295 of type -1, expected a camera",
        ),
        (
            ["INSERT INTO rigs VALUES (2, 7, 0)"],
            "rig 2: found camera 7, which is not in cameras",
        ),
        (
            ["INSERT INTO rig_sensors VALUES (1, 1, 0, NULL)"],
            "rig 1: found camera 1 again, first in rig 1",
        ),
        (
            ["INSERT INTO rig_sensors VALUES (8, 1, 0, NULL)"],
            "found rig 8, which is not in rigs",
        ),
        (
            [SECOND_CAMERA, "INSERT INTO rig_sensors VALUES (1, 2, 0, X'00')"],
            "sensor_from_rig of camera 2 that is no quaternion",
        ),
        (
            [
                SECOND_CAMERA,
                "INSERT INTO rig_sensors VALUES (1, 2, 0, NULL)",
                "DELETE FROM frame_data WHERE data_id = 1",
            ],
            "image '0.jpg': found no frame, expected one of rig 1, to which its camera "
            "1 belongs with 1 more",
        ),
        (
            ["UPDATE keypoints SET data = substr(data, 1, 8) WHERE image_id = 2"],
            "keypoints of '1.jpg' is too short: found 8 bytes, expected 32 for 4 x 2",
        ),
        (["UPDATE keypoints SET data = NULL"], "found 0 bytes, expected 32"),
        (["UPDATE keypoints SET rows = -1"], "found -1 rows"),
        ([f"UPDATE keypoints SET data = {NAN}"], "found NaN or infinity"),
        (["UPDATE matches SET data = NULL"], "matches: a row of pair (1, 2) is too"),
        (["UPDATE matches SET cols = 3"], "found 3 columns, expected 2"),
        (
            ["UPDATE matches SET pair_id = 2147483647 * 2 + 1"],
            "pair (2, 1): found no two ids, expected the smaller first",
        ),
        (["UPDATE matches SET pair_id = 2147483647 * 2 + 2"], "pair (2, 2): found no"),
        (["UPDATE matches SET pair_id = -5"], "image -1, not in images"),
        (["UPDATE two_view_geometries SET config = 99"], "found config 99"),
        (["UPDATE two_view_geometries SET F = X'00'"], "found no 9 numbers in F"),
        (
            ["UPDATE two_view_geometries SET camera2 = X'00'"],
            "pair (1, 2): found no camera in camera2",
        ),
        (
            ["UPDATE pose_priors SET position = X'00'"],
            "pose_priors: row 1: found no 3 numbers in position",
        ),
    ],
)
def test_what_is_wrong_is_named_in_one_line(
    path: Path, statements: list[str], words: str
) -> None:
    execute(path, *statements)
    before = path.read_bytes()
    with pytest.raises(DatasetError) as caught:
        check_database(path, to_replace=True)
    message = str(caught.value)
    assert words in message
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statements",
    [
        ["DELETE FROM frame_data", "DELETE FROM frames", "DELETE FROM rigs"],
        ["INSERT INTO frames VALUES (9, 1)"],
        ["UPDATE two_view_geometries SET F = NULL, E = X'', qvec = NULL"],
        ["UPDATE pose_priors SET position = NULL, position_covariance = NULL"],
        ["INSERT INTO keypoints VALUES (88, 1, 2, NULL)"],
        ["INSERT INTO descriptors VALUES (1, 77, 4, 1, X'00000000')"],
        ["INSERT INTO matches VALUES (2147483647 * 8 + 9, 0, 2, NULL)"],
        ["ALTER TABLE images ADD COLUMN prior_qw REAL"],
        ["DROP TABLE pose_priors", "DROP TABLE descriptors"],
        ["PRAGMA user_version = 5000000"],
        [SECOND_CAMERA],
    ],
)
def test_what_does_no_harm_passes(
    path: Path, tmp_path: Path, statements: list[str]
) -> None:
    execute(path, *statements)
    assert check_database(path) == ()
    copy_database(path, tmp_path / "copy.db")
    content = read_database(tmp_path / "copy.db")
    poses = {image.name: pycolmap.Rigid3d() for image in content.images}
    assert known_pose_model(content, poses).num_reg_images() == 3


def test_copies_get_the_frames_that_are_missing(path: Path, tmp_path: Path) -> None:
    execute(
        path,
        SECOND_CAMERA,
        "UPDATE images SET camera_id = 2 WHERE image_id = 3",
        "DELETE FROM frame_data WHERE data_id > 1",
        "DELETE FROM frames WHERE frame_id > 1",
    )
    before = path.read_bytes()
    (sentence,) = check_database(path)
    assert "2 images had no frame, such as '1.jpg'" in sentence
    copy_database(path, tmp_path / "copy.db")
    assert path.read_bytes() == before
    assert check_database(tmp_path / "copy.db") == ()
    content = read_database(tmp_path / "copy.db")
    assert len(content.rigs) == 2
    frames = {image.name: image.frame_id for image in content.images}
    assert len(set(frames.values())) == 3
    poses = {image.name: pycolmap.Rigid3d() for image in content.images}
    assert known_pose_model(content, poses).num_reg_images() == 3
