"""What databases and models of all kinds become, and what is refused."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from kapture.converter.colmap.database import COLMAPDatabase

from r2d2_kapture.cli.imports import main
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.cameras import colmap_camera
from r2d2_kapture.io.colmap.geometry_log import LOG_NAME, read_geometries
from r2d2_kapture.io.kapture.dataset import Dataset, open_dataset
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.kapture.gnss import GnssPosition, LocalPosition, read_gnss
from r2d2_kapture.io.kapture.match_store import find_matches
from r2d2_kapture.io.kapture.rigs import rig_cameras
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.stages.imports import run
from tests.commands import one_error_line
from tests.scenes.reconstruction import Made, synthesize

QUIET = RunOptions(progress=False)
IDENTITY = [1.0, 0, 0, 0]
Change = Callable[[pycolmap.Reconstruction], None]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return synthesize(tmp_path)


def imported(
    output: Path, *, database: Path | None = None, model: Path | None = None
) -> Dataset:
    run(database=database, model=model, output=output, options=QUIET)
    return open_dataset(output)


def changed(made: Made, change: Change, *, text: bool = False) -> Path:
    """Another model in its place."""
    shutil.rmtree(made.sparse)
    made.sparse.mkdir()
    change(made.model)
    write = made.model.write_text if text else made.model.write_binary
    write(str(made.sparse))
    return made.sparse


def database_of(
    path: Path, camera: pycolmap.Camera, names: tuple[str, ...] = ("a.jpg", "b.jpg")
) -> pycolmap.Database:
    database = pycolmap.Database.open(str(path))
    camera_id = database.write_camera(camera)
    for name in names:
        database.write_image(pycolmap.Image(name=name, camera_id=camera_id))
    return database


def pinhole() -> pycolmap.Camera:
    return pycolmap.Camera.create_from_model_name(0, "PINHOLE", 500.0, 640, 480)


def test_databases_of_colmap_3_are_read_and_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "été a.db"
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    descriptors = np.arange(3 * 128, dtype=np.uint8).reshape(3, 128)
    with closing(COLMAPDatabase.connect(str(path))) as old:
        old.create_tables()
        camera = old.add_camera(1, 640, 480, np.array([500.0, 500, 320, 240]), True)
        pose = np.array([0.6, 0, 0.8, 0])
        old.add_image("sub é/a b.jpg", camera, pose, np.array([1.0, 2, 3]), 7)
        old.add_image("c.jpg", camera, np.zeros(4), np.array([46.5, 6.5, 400]), 3)
        old.add_image("d.jpg", camera, image_id=9)
        for image in (7, 3):
            old.add_keypoints(image, rows)
            old.add_descriptors(image, descriptors)
        old.add_matches(7, 3, np.array([[0, 1], [2, 0]]))
        old.add_two_view_geometry(7, 3, np.array([[2, 0]]))
        old.commit()
    before = path.read_bytes()
    dataset = imported(tmp_path / "made", database=path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", path.name]
    assert dataset.image_names == ("c.jpg", "d.jpg", "sub é/a b.jpg")
    poses = read_camera_poses(dataset)
    assert poses.without_pose == ("c.jpg", "d.jpg")
    found = poses.cam_from_world["sub é/a b.jpg"]
    assert found.rotation.quat.tolist() == [0, 0.8, 0, 0.6]
    assert found.translation.tolist() == [1, 2, 3]
    assert read_gnss(dataset) == {
        "c.jpg": GnssPosition(latitude=46.5, longitude=6.5, altitude=400)
    }
    root = tmp_path / "made"
    keypoints = open_feature_table([root], "keypoints", "sift").read_stored("c.jpg")
    assert np.array_equal(keypoints, rows - [0.5, 0.5, 0, 0])
    stored = open_feature_table([root], "descriptors", "sift").read_stored("c.jpg")
    assert np.array_equal(stored, descriptors)
    for folder, expected in ((root, [[1, 0], [0, 2]]), (root / "verified", [[0, 2]])):
        matches = find_matches([folder], "sift").read("c.jpg", "sub é/a b.jpg")
        assert matches is not None and matches.indices.tolist() == expected


@pytest.mark.parametrize(
    ("kind", "dtype", "name"),
    [
        ("SIFT", np.uint8, "sift"),
        ("ALIKED_N32", np.float32, "aliked_n32"),
        ("UNDEFINED", np.float32, "colmap"),
        ("UNDEFINED", np.uint8, "colmap"),
    ],
)
@pytest.mark.parametrize("columns", [2, 4, 6])
def test_features_of_any_type_keep_their_numbers(
    kind: str, dtype: type, name: str, columns: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(1, 640, (5, columns)).astype(np.float32)
    values = rng.normal(0, 1, (5, 128))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    rows = rng.integers(0, 255, (5, 128)) if dtype is np.uint8 else values
    stored: np.ndarray[Any, Any] = np.ascontiguousarray(rows, dtype)
    with database_of(tmp_path / "a.db", pinhole()) as database:
        database.write_keypoints(1, keypoints)
        database.write_descriptors(
            1,
            pycolmap.FeatureDescriptors(
                getattr(pycolmap.FeatureExtractorType, kind), stored.view(np.uint8)
            ),
        )
        database.write_keypoints(2, np.zeros((0, columns), np.float32))
    imported(tmp_path / "made", database=tmp_path / "a.db")
    table = open_feature_table([tmp_path / "made"], "keypoints")
    assert (table.type_name, table.dsize, table.count("b.jpg")) == (name, columns, 0)
    assert (table.read("a.jpg")[:, :2] + 0.5).tolist() == keypoints[:, :2].tolist()
    assert table.read("a.jpg")[:, 2:].tolist() == keypoints[:, 2:].tolist()
    found = open_feature_table([tmp_path / "made"], "descriptors").read_stored("a.jpg")
    assert found.dtype == dtype and np.array_equal(found, stored)


def test_pose_priors_become_gnss_records(tmp_path: Path) -> None:
    systems = pycolmap.PosePriorCoordinateSystem
    for system in (systems.WGS84, systems.CARTESIAN):
        path = tmp_path / f"{int(system)}.db"
        with database_of(path, pinhole()) as database:
            image = database.read_image_with_name("b.jpg")
            database.write_pose_prior(
                pycolmap.PosePrior(
                    corr_data_id=image.data_id,
                    position=np.array([46.5, -6.25, 400.0]),
                    position_covariance=np.diag([4.0, 4, 16]),
                    coordinate_system=system,
                )
            )
        found = read_gnss(imported(tmp_path / path.stem, database=path))
        if system == systems.WGS84:
            expected: object = GnssPosition(
                latitude=46.5, longitude=-6.25, altitude=400, accuracy=2
            )
        else:
            expected = LocalPosition(x=46.5, y=-6.25, z=400, accuracy=2)
        assert found == {"b.jpg": expected}


def test_cameras_that_colmap_made_up_are_unknown_and_come_back(tmp_path: Path) -> None:
    cameras = {}
    for number, factor in enumerate((1.2, 1.3)):
        camera = pycolmap.Camera.create_from_model_name(
            0, "OPENCV", factor * 640, 640, 480
        )
        path = tmp_path / f"{number}.db"
        with closing(database_of(path, camera)):
            pass
        (sensor,) = imported(tmp_path / path.stem, database=path).data.sensors.values()
        back = colmap_camera(sensor, 0, "center")
        assert back.params.tolist() == camera.params.tolist()
        cameras[factor] = sensor.camera_type.name
    assert cameras == {1.2: "UNKNOWN_CAMERA", 1.3: "OPENCV"}


@pytest.mark.parametrize("model", ["SIMPLE_FISHEYE", "FISHEYE"])
def test_fisheyes_without_distortion_see_the_same(model: str, tmp_path: Path) -> None:
    camera = pycolmap.Camera.create_from_model_name(0, model, 300.0, 640, 480)
    with closing(database_of(tmp_path / "a.db", camera)):
        pass
    dataset = imported(tmp_path / "made", database=tmp_path / "a.db")
    back = colmap_camera(dataset.data.sensors["camera_00001"], 0, "center")
    rays = np.random.default_rng(0).normal(0, 1, (20, 3)) + [0, 0, 3]
    assert np.array_equal(back.img_from_cam(rays), camera.img_from_cam(rays))


def test_images_of_the_database_alone_join_the_frames_of_the_model(made: Made) -> None:
    names = sorted(image.name for image in made.model.images.values())
    lost = made.model.find_image_with_name(names[0])
    lost_frame = lost.frame_id

    def deregister(model: pycolmap.Reconstruction) -> None:
        model.deregister_frame(lost_frame)

    changed(made, deregister)
    dataset = imported(made.root / "out", database=made.database, model=made.sparse)
    poses = read_camera_poses(dataset)
    without = {
        made.model.image(d.id).name for d in made.model.frame(lost_frame).data_ids
    }
    assert set(poses.without_pose) == without and len(without) == 2
    assert set(poses.cam_from_world) == set(names) - without
    rigs = rig_cameras(dataset.data, dataset.data.sensors)
    assert sorted(map(sorted, rigs.values())) == [
        ["camera_00001", "camera_00002"],
        ["camera_00003", "camera_00004"],
    ]


def test_a_camera_of_unknown_place_in_its_rig_stands_alone(tmp_path: Path) -> None:
    with database_of(tmp_path / "a.db", pinhole()) as database:
        camera_id = database.write_camera(pinhole())
        database.write_image(pycolmap.Image(name="c.jpg", camera_id=camera_id))
        rig = pycolmap.Rig(rig_id=1)
        sensors = [
            pycolmap.sensor_t(pycolmap.SensorType.CAMERA, number) for number in (1, 2)
        ]
        rig.add_ref_sensor(sensors[0])
        rig.add_sensor(sensors[1], None)
        database.write_rig(rig, use_rig_id=True)
        for images in ((1, 3), (2,)):
            frame = pycolmap.Frame(rig_id=1)
            for image_id in images:
                frame.add_data_id(pycolmap.data_t(sensors[image_id == 3], image_id))
            database.write_frame(frame)
    report = run(database=tmp_path / "a.db", output=tmp_path / "out", options=QUIET)
    dataset = open_dataset(tmp_path / "out")
    assert not dataset.data.rigs
    assert sorted(dataset.data.records_camera[0].values()) == ["a.jpg", "c.jpg"]
    assert any("'camera_00002'" in text for text in report.warnings)


def test_names_with_spaces_accents_and_folders_come_of_text_models(made: Made) -> None:
    def rename(model: pycolmap.Reconstruction) -> None:
        for image in model.images.values():
            image.name = f"été à/{image.name} b.jpg"

    model = changed(made, rename, text=True)
    dataset = imported(made.root / "out", model=model)
    names = {image.name for image in made.model.images.values()}
    assert set(dataset.image_names) == names
    observations = (
        made.root / "out" / "reconstruction" / "observations.txt"
    ).read_text()
    assert all(f", {name}, " in observations for name in names)


def bend(model: pycolmap.Reconstruction) -> None:
    model.camera(1).model = pycolmap.CameraModelId.DIVISION
    model.camera(1).params = [1280, 1280, 512, 384, 0.1]


def rename_one(name: str) -> Change:
    def change(model: pycolmap.Reconstruction) -> None:
        model.image(1).name = name

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rename_one("a,b.jpg"), "sparse: name 'a,b.jpg' holds a comma"),
        (rename_one("../a.jpg"), "sparse: name '../a.jpg' leaves"),
        (
            bend,
            "sparse: camera 1: found COLMAP's model DIVISION, which kapture does not",
        ),
    ],
)
def test_models_that_kapture_cannot_hold_are_refused(
    change: Change, words: str, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    model = changed(made, change)
    assert main(["--model", str(model), "--output", str(made.root / "out")]) == 2
    assert words in one_error_line(capsys)
    assert not (made.root / "out").exists()


def delete(query: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(query)
            connection.commit()

    return change


def cut(path: Path) -> None:
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut, "database.db: the database is broken or was left half-written"),
        (delete("DROP TABLE images"), "without tables images, expected one of COLMAP"),
        (
            delete("UPDATE keypoints SET data = X'00' WHERE image_id = 1"),
            "keypoints of 'camera000001_frame000000.png' is too short: found 1 bytes",
        ),
        (
            delete("UPDATE descriptors SET rows = 3, data = zeroblob(384)"),
            "found 3, expected 50, one for each keypoint",
        ),
        (
            delete("UPDATE descriptors SET type = 1 WHERE image_id = 2"),
            "found descriptors of 2 types",
        ),
        (
            delete("UPDATE images SET name = 'other.png' WHERE image_id = 2"),
            "found 1 images that are not in",
        ),
        (
            delete("UPDATE keypoints SET rows = 51, data = zeroblob(51 * 24)"),
            "found 50 keypoints of",
        ),
        (delete("DELETE FROM images"), "not in images"),
        (
            delete("UPDATE images SET camera_id = 3 - camera_id WHERE image_id < 3"),
            "of camera",
        ),
    ],
)
def test_databases_that_cannot_be_used_are_one_line(
    change: Callable[[Path], None],
    words: str,
    made: Made,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with closing(sqlite3.connect(made.database)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    change(made.database)
    command = ["--database", str(made.database), "--model", str(made.sparse), "--quiet"]
    assert main([*command, "--output", str(made.root / "out")]) == 2
    assert words in one_error_line(capsys)


def test_what_is_not_given_or_not_there_is_one_line(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = str(made.sparse), str(made.root / "out")
    empty = made.root / "empty"
    empty.mkdir()
    for typed, words in (
        ([], "--database, --model, --video: found none"),
        (["--model", str(empty)], "empty: found no COLMAP model"),
        (["--database", str(empty)], "empty: found a folder, expected a COLMAP"),
        (["--model", model, "--images", str(empty)], "found none of the 12 images"),
        (["--model", model, "--every", "2"], "found no --video"),
        (["--video", str(made.database), "--from", "nvm"], "found --from too"),
        (["--hloc", str(made.database), "--from", "nvm"], "found --from too"),
        (
            ["--video", str(made.database), "--keypoints-type", "sift"],
            "found --keypoints-type too",
        ),
    ):
        assert main([*typed, "--output", out]) == 2
        assert words in one_error_line(capsys)
    assert not (made.root / "out").exists()
    (made.images / "camera000001_frame000000.png").unlink()
    assert main(["--model", model, "--images", str(made.images), "--output", out]) == 0
    assert "warning: 1 of 12 images are not in" in capsys.readouterr().out


def test_a_killed_import_is_no_dataset_and_goes_on(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = made.root / "out"
    with monkeypatch.context() as patch:
        patch.setattr(
            "r2d2_kapture.stages.imports.colmap.import_points", lambda *_: 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            run(database=made.database, model=made.sparse, output=out, options=QUIET)
    with pytest.raises(DatasetError, match="found no sensors/sensors.txt"):
        open_dataset(out)
    (out / "reconstruction/keypoints/sift/camera000001_frame000000.png.kpt").unlink()
    report = run(database=made.database, model=made.sparse, output=out, options=QUIET)
    assert (report.done, report.skipped) == (1, 11)
    assert len(open_dataset(out).image_names) == 12


def test_a_database_that_is_open_is_read_with_what_is_pending(tmp_path: Path) -> None:
    with database_of(tmp_path / "a.db", pinhole()) as database:
        database.write_keypoints(1, np.ones((3, 2), np.float32))
        dataset = imported(tmp_path / "made", database=tmp_path / "a.db")
        assert dataset.image_names == ("a.jpg", "b.jpg")
        table = open_feature_table([tmp_path / "made"], "keypoints")
        assert table.read("a.jpg").tolist() == [[0.5, 0.5]] * 3
        database.write_image(pycolmap.Image(name="c.jpg", camera_id=1))
    again = imported(tmp_path / "made", database=tmp_path / "a.db")
    assert again.image_names == ("a.jpg", "b.jpg", "c.jpg")


def test_inliers_alone_are_the_matches_too(tmp_path: Path) -> None:
    rows = np.array([[0, 2], [1, 0]], np.uint32)
    with database_of(tmp_path / "a.db", pinhole(), ("z.jpg", "a.jpg")) as database:
        for image_id in (1, 2):
            database.write_keypoints(image_id, np.ones((3, 2), np.float32))
        geometry = pycolmap.TwoViewGeometry()
        geometry.config = pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED
        geometry.inlier_matches = rows
        geometry.F = np.arange(9.0).reshape(3, 3)
        database.write_two_view_geometry(1, 2, geometry)
    report = run(database=tmp_path / "a.db", output=tmp_path / "made", options=QUIET)
    assert report.details["pairs"] == report.details["verified_pairs"] == 1
    for root in (tmp_path / "made", tmp_path / "made" / "verified"):
        found = find_matches([root], "colmap").read("a.jpg", "z.jpg")
        assert found is not None and found.indices.tolist() == rows[:, ::-1].tolist()
    (log,) = (tmp_path / "made").rglob(LOG_NAME)
    logged = read_geometries(log)["a.jpg", "z.jpg"]
    assert logged.F == geometry.F.T.tolist()


def test_keypoints_of_several_widths_become_positions(tmp_path: Path) -> None:
    with database_of(tmp_path / "a.db", pinhole()) as database:
        database.write_keypoints(1, np.full((3, 4), 2, np.float32))
        database.write_keypoints(2, np.full((1, 6), 3, np.float32))
    report = run(database=tmp_path / "a.db", output=tmp_path / "made", options=QUIET)
    assert any("4 and 6 columns" in text for text in report.warnings)
    table = open_feature_table([tmp_path / "made"], "keypoints")
    assert table.dsize == 2 and table.read("b.jpg").tolist() == [[2.5, 2.5]]
