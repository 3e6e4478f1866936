"""Mapping: exact scenes come back, and what cannot be mapped is said in a line."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import kapture.io.features as kfeatures
import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import ReconstructionError
from r2d2_kapture.io.colmap.image_folder import STATE_NAME
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.pixel_origins import read_origin, write_origin
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.io.outputs.atomic import write_json_atomic
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from tests.scenes.world import (
    CENTER_PP,
    CORNER_PP,
    FOCAL,
    HEIGHT,
    UNKNOWN,
    WIDTH,
    Scene,
    pinhole,
    pose,
    write_from_colmap,
)
from tests.stages.map_runs import (
    TYPE,
    load_map,
    model_of,
    prepare,
    remove_poses,
    run,
    verify_scene,
)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def assert_poses(root: Path, scene: Scene, names: list[str]) -> None:
    """The poses of both outputs are those of the scene to 1e-9."""
    by_kapture = read_camera_poses(open_dataset(root / "map" / "kapture"))
    assert sorted(by_kapture.cam_from_world) == sorted(names)
    by_colmap = {image.name: image for image in model_of(root).images.values()}
    for name in names:
        true = scene.poses[name]
        matrix = np.column_stack([_rotation(true.r_raw).matrix(), np.array(true.t_raw)])
        for found in (
            by_kapture.cam_from_world[name],
            by_colmap[name].cam_from_world(),
        ):
            np.testing.assert_allclose(found.matrix(), matrix, rtol=0, atol=1e-9)


def _rotation(wxyz: list[float]) -> pycolmap.Rotation3d:
    w, x, y, z = wxyz
    return pycolmap.Rotation3d(np.array([x, y, z, w]))


def assert_aligned(root: Path, scene: Scene, tolerance: float) -> None:
    """Camera centres after a similarity are those of the scene."""
    model = model_of(root)
    names = [image.name for image in model.images.values()]
    true = [np.array(scene.poses[name].inverse().t_raw) for name in names]
    truth_from_model = pycolmap.align_reconstruction_to_locations(
        model, names, np.array(true), 3, pycolmap.RANSACOptions(max_error=0.1)
    )
    for image in model.images.values():
        centre = truth_from_model * image.projection_center()
        expected = np.array(scene.poses[image.name].inverse().t_raw)
        np.testing.assert_allclose(centre, expected, rtol=0, atol=tolerance)


def assert_observations_reproject(root: Path, tolerance: float) -> int:
    """Points land on the kapture keypoints that see them, by kapture's numbers only.

    Poses, cameras and keypoints must all count pixels from the same origin.
    """
    folder = root / "map" / "kapture"
    data, poses = load_map(root), read_camera_poses(open_dataset(folder))
    sensor_of = {name: s for _, s, name in kapture.flatten(data.records_camera)}
    count = 0
    for point, keypoints_type in data.observations.key_pairs():
        config = data.keypoints[keypoints_type]
        for name, index in data.observations[point, keypoints_type]:
            path = kfeatures.get_keypoints_fullpath(keypoints_type, str(folder), name)
            rows = kfeatures.image_keypoints_from_file(path, config.dtype, config.dsize)
            sensor = data.sensors[sensor_of[name]]
            _, _, *params = sensor.camera_params
            camera = pycolmap.Camera(
                model=sensor.camera_type.name, width=WIDTH, height=HEIGHT, params=params
            )
            ray = poses.cam_from_world[name] * data.points3d[point, :3]
            np.testing.assert_allclose(
                camera.img_from_cam(ray), rows[index, :2], rtol=0, atol=tolerance
            )
            count += 1
    return count


def test_the_table_of_observations_is_the_one_that_kapture_writes(root: Path) -> None:
    run(root)
    name = kcsv.CSV_FILENAMES[kapture.Observations]
    ours, theirs = (root / folder / name for folder in ("map/kapture", "again"))
    kcsv.observations_to_file(str(theirs), load_map(root).observations)
    assert ours.read_bytes() == theirs.read_bytes()


def test_known_poses_stay_and_the_map_is_of_one_pixel_origin(
    root: Path, scene: Scene
) -> None:
    log_level = pycolmap.logging.minloglevel
    report = run(root)
    assert pycolmap.logging.minloglevel == log_level
    details = report.details
    assert details["method"] == "triangulate"
    assert (details["registered_images"], details["points"]) == (12, 120)
    assert details["observations"] == 12 * 120
    assert details["mean_track_length"] == 12
    assert details["mean_reprojection_error"] < 1e-3
    assert_poses(root, scene, scene.names)
    found = np.array([point.xyz for point in model_of(root).points3D.values()])
    distances = np.linalg.norm(found[:, None] - scene.points[None], axis=2)
    assert distances.min(axis=1).max() < 1e-3
    assert sorted(os.listdir(root / "map")) == [
        FINISHED_NAME,
        "kapture",
        "manifest.json",
        "map.ply",
        "map.png",
        "report.json",
        "sparse",
    ]
    drawn = pycolmap.Reconstruction()
    drawn.import_PLY(str(root / "map" / "map.ply"))
    assert len(drawn.points3D) > 120  # cameras follow the points
    first = model_of(root).point3D(min(model_of(root).points3D))
    np.testing.assert_allclose(drawn.point3D(1).xyz, first.xyz, rtol=1e-6)
    data = load_map(root)
    assert len(data.points3d) == 120
    assert data.keypoints[TYPE].dsize == 3
    assert assert_observations_reproject(root, 1e-3) == 12 * 120
    for sensor_id, sensor in data.cameras.items():
        assert sensor.camera_params == scene.dataset.sensors[sensor_id].camera_params
    assert data.rigs.key_pairs() == scene.dataset.rigs.key_pairs()
    for name in scene.names:
        path = kfeatures.get_keypoints_fullpath(TYPE, str(root / "map/kapture"), name)
        rows = kfeatures.image_keypoints_from_file(path, np.float32, 3)
        np.testing.assert_array_equal(rows, scene.keypoints(name))
    model = model_of(root)
    assert (model.num_rigs(), model.num_frames()) == (2, 8)


def test_corner_origin_is_kept(tmp_path: Path) -> None:
    prepare(tmp_path, Scene(times=2).taken_with(pinhole([320.0, 240.0])))
    report = run(tmp_path)
    assert report.details["camera_origin"] == "corner"
    data = load_map(tmp_path)
    assert data.sensors["left"].camera_params[-2:] == CORNER_PP
    assert model_of(tmp_path).cameras[1].principal_point_x == 320


NOTE = "map.db.pixel_origin.json"


@pytest.mark.parametrize("told", ["auto", "center"])
@pytest.mark.parametrize("handed", [True, False])
def test_the_origin_of_keypoints_is_that_of_the_database(
    tmp_path: Path, told: Any, handed: bool
) -> None:
    """As verification hands it, or read off another tool's database."""
    mapping = write_from_colmap(tmp_path / "mapping", Scene(times=2))
    verify_scene(tmp_path, VerifyConfig(keypoint_origin=told))
    if not handed:
        (tmp_path / NOTE).unlink()
    report = run(tmp_path)
    origin = {"auto": "corner", "center": "center"}[told]
    assert report.details["keypoint_origin"] == origin
    assert report.details["camera_origin"] == "corner"
    made = tmp_path / "map" / "kapture"
    assert read_origin(made / "sensors") == "corner"
    folder = Path("reconstruction") / "keypoints" / TYPE
    assert read_origin(made / folder) == origin
    for path in (mapping / folder).rglob("*.kpt"):  # as they were, to the bit
        copy = made / path.relative_to(mapping)
        assert copy.read_bytes() == path.read_bytes()


def test_keypoints_of_two_origins_are_mapped(tmp_path: Path) -> None:
    scene = Scene(times=2)
    mapping, other = write_from_colmap(tmp_path / "mapping", scene), tmp_path / "other"
    folder = Path("reconstruction") / "keypoints" / TYPE
    (other / folder).mkdir(parents=True)
    shutil.copy(mapping / folder / "keypoints.txt", other / folder)
    write_origin(other / folder, "center")
    for path in sorted((mapping / folder).rglob("*.kpt"))[:3]:
        moved = other / path.relative_to(mapping)
        moved.parent.mkdir(parents=True, exist_ok=True)
        (np.fromfile(path, np.float32) - np.float32(0.5)).tofile(moved)
        path.unlink()
    verify_scene(tmp_path, VerifyConfig(), features=[mapping, other])
    report = run(tmp_path, features=[mapping, other])
    assert report.failed == ()
    made = tmp_path / "map/kapture" / folder
    assert read_origin(made) == report.details["keypoint_origin"] == "center"
    for name in scene.names:
        rows = np.fromfile(made / f"{name}.kpt", np.float32).reshape(-1, 2)
        np.testing.assert_allclose(rows, scene.keypoints(name)[:, :2], atol=1e-4)


@pytest.mark.parametrize("note", ["handed", "none", "another's"])
def test_the_origin_of_cameras_is_that_of_the_database(
    tmp_path: Path, note: str
) -> None:
    scene = Scene(times=2).taken_with(pinhole([310.0, 230.0]))
    prepare(tmp_path, scene, VerifyConfig(camera_origin="corner"))
    if note == "none":
        (tmp_path / NOTE).unlink()
    if note == "another's":
        prepare(tmp_path / "other", scene, VerifyConfig(camera_origin="center"))
        shutil.copy(tmp_path / "other" / NOTE, tmp_path)
    assert run(tmp_path).details["camera_origin"] == "corner"


@pytest.mark.parametrize("method", ["incremental", "global"])
def test_unknown_poses_are_found(root: Path, scene: Scene, method: Any) -> None:
    remove_poses(root)
    report = run(root, MapConfig(method="auto" if method == "incremental" else method))
    assert report.details["method"] == method
    assert report.details["registered_images"] == 12
    assert report.details["points"] == 120
    assert_aligned(root, scene, 2e-3)
    data = load_map(root)
    assert {device for _, device in data.trajectories.key_pairs()} == {"rig", "walker"}
    poses = read_camera_poses(open_dataset(root / "map" / "kapture"))
    for image in model_of(root).images.values():
        np.testing.assert_allclose(
            poses.cam_from_world[image.name].matrix(),
            image.cam_from_world().matrix(),
            atol=1e-9,
        )
    assert assert_observations_reproject(root, 0.05) == 12 * 120


def test_poses_may_be_found_again(root: Path, scene: Scene) -> None:
    report = run(root, MapConfig(method="incremental"))
    assert report.details["method"] == "incremental"
    assert_aligned(root, scene, 1e-3)


def with_focal_length(scene: Scene, focal: float) -> Scene:
    params = [WIDTH, HEIGHT, focal, focal, *CENTER_PP]
    return scene.taken_with(kapture.Camera("PINHOLE", params))


@pytest.mark.parametrize("approximate", [False, True])
def test_intrinsics_are_refined_where_asked_or_approximate(
    tmp_path: Path, approximate: bool
) -> None:
    prepare(tmp_path, with_focal_length(Scene(), 1.02 * FOCAL))
    remove_poses(tmp_path)
    if approximate:  # as io.colmap.image_folder marks them
        cameras = {name: "exif" for name in ("left", "right", "walker")}
        write_json_atomic(tmp_path / "mapping" / STATE_NAME, {"cameras": cameras})
        run(tmp_path)
    else:
        run(tmp_path, MapConfig(refine_intrinsics=True))
    for sensor in load_map(tmp_path).cameras.values():
        width, height, fx, fy, cx, cy = sensor.camera_params
        assert (width, height, cx, cy) == (WIDTH, HEIGHT, *CENTER_PP)
        assert fx == pytest.approx(FOCAL, rel=1e-3)
        assert fy == pytest.approx(FOCAL, rel=1e-3)
    assert assert_observations_reproject(tmp_path, 0.05) == 12 * 120


@pytest.mark.parametrize("refine", ["auto", False])
def test_known_intrinsics_stay(root: Path, scene: Scene, refine: Any) -> None:
    remove_poses(root)
    run(root, MapConfig(refine_intrinsics=refine))
    for sensor_id, sensor in load_map(root).cameras.items():
        assert sensor.camera_params == scene.dataset.sensors[sensor_id].camera_params


def test_known_poses_with_refined_intrinsics(tmp_path: Path) -> None:
    scene = with_focal_length(Scene(), 1.002 * FOCAL)
    prepare(tmp_path, scene)
    run(tmp_path, MapConfig(refine_intrinsics=True))
    assert_poses(tmp_path, scene, scene.names)
    for sensor in load_map(tmp_path).cameras.values():
        assert sensor.camera_params[2] == pytest.approx(FOCAL, rel=1e-4)


def test_unknown_cameras_are_written_as_found(tmp_path: Path) -> None:
    prepare(tmp_path, Scene().taken_with(UNKNOWN))
    remove_poses(tmp_path)
    report = run(tmp_path)
    assert report.details["registered_images"] == 12
    for sensor in load_map(tmp_path).cameras.values():
        assert sensor.camera_type.name == "SIMPLE_RADIAL"
        focal, cx, cy, _ = sensor.camera_params[2:]
        assert focal == pytest.approx(FOCAL, rel=0.01)
        assert [cx, cy] == CENTER_PP
    assert assert_observations_reproject(tmp_path, 0.1) == 12 * 120


@pytest.mark.slow
def test_rigs_may_be_refined(tmp_path: Path) -> None:
    scene = Scene()
    true = scene.dataset.rigs["rig", "right"]
    off = pose(0.02, [0.01, 0, 0])
    scene.dataset.rigs["rig", "right"] = kapture.PoseTransform.compose([off, true])
    scene.dataset.trajectories = None
    prepare(tmp_path, scene)
    run(tmp_path, MapConfig(refine_rigs=True))
    rigs = load_map(tmp_path).rigs
    angles = []
    for made in (true, scene.dataset.rigs["rig", "right"], rigs["rig", "right"]):
        left = scene.dataset.rigs["rig", "left"]
        right_from_left = kapture.PoseTransform.compose([made, left.inverse()])
        angles.append(_rotation(right_from_left.r_raw).angle())
    assert abs(angles[1] - angles[0]) > 0.015
    assert abs(angles[2] - angles[0]) < 1e-3
    assert assert_observations_reproject(tmp_path, 0.05) == 12 * 120


def test_known_poses_stay_whatever_is_refined(root: Path, scene: Scene) -> None:
    run(root, MapConfig(method="triangulate", refine_rigs=True, refine_intrinsics=True))
    assert_poses(root, scene, scene.names)


def test_own_poses_of_cameras_win_over_a_rig_that_contradicts_them(
    tmp_path: Path,
) -> None:
    scene = Scene(times=3)
    names = {
        (timestamp, sensor_id): name
        for timestamp, sensor_id, name in kapture.flatten(scene.dataset.records_camera)
    }
    for timestamp in range(3):
        del scene.dataset.trajectories[timestamp]["rig"]
        for sensor_id in ("left", "right"):
            own = scene.poses[names[timestamp, sensor_id]]
            scene.dataset.trajectories[timestamp, sensor_id] = own
    scene.dataset.rigs["rig", "right"] = pose(-0.11, [-0.3, 0.1, 0])
    prepare(tmp_path, scene)
    assert run(tmp_path).details["points"] == 120
    assert_poses(tmp_path, scene, scene.names)
    assert assert_observations_reproject(tmp_path, 1e-3) == 9 * 120


def lose_pose(root: Path, device: str, timestamp: int) -> None:
    path = root / "mapping" / "sensors" / "trajectories.txt"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    start = f"{timestamp}, {device},"
    kept = [line for line in lines if start not in " ".join(line.split())]
    assert len(kept) == len(lines) - 1
    path.write_text("".join(kept), encoding="utf-8")


def test_partial_poses_need_a_decision(root: Path, scene: Scene) -> None:
    lose_pose(root, "walker", 1)
    with pytest.raises(ReconstructionError) as caught:
        run(root)
    message = str(caught.value)
    assert "11 of 12 images have a pose" in message
    assert "seq é/walker/1 b.jpg" in message
    assert "--method" in message
    assert not (root / "map").exists()

    posed = [name for name in scene.names if name != "seq é/walker/1 b.jpg"]
    report = run(root, MapConfig(method="triangulate"))
    assert report.details["registered_images"] == 11
    assert_poses(root, scene, posed)
    saved = json.loads((root / "map" / "report.json").read_text(encoding="utf-8"))
    assert saved["not_registered"] == ["seq é/walker/1 b.jpg"]
    assert assert_observations_reproject(root, 1e-3) == 11 * 120


def test_frame_of_a_rig_without_pose_is_left_out(root: Path, scene: Scene) -> None:
    lose_pose(root, "rig", 2)
    run(root, MapConfig(method="triangulate"))
    posed = [n for n in scene.names if "walker" in n or "/2 b" not in n]
    assert_poses(root, scene, posed)


@pytest.mark.parametrize("method", ["triangulate", "incremental", "global"])
def test_rig_whose_first_camera_took_no_image(tmp_path: Path, method: Any) -> None:
    scene = Scene()
    for timestamp in range(4):
        scene.names.remove(scene.dataset.records_camera[timestamp].pop("left"))
    prepare(tmp_path, scene)
    report = run(tmp_path, MapConfig(method=method))
    assert report.details["registered_images"] == 8
    assert assert_observations_reproject(tmp_path, 0.1) == 8 * 120
    if method == "triangulate":
        assert_poses(tmp_path, scene, scene.names)


def test_points_that_two_keypoints_see(tmp_path: Path) -> None:
    scene = Scene(times=1)
    del scene.dataset.records_camera[0]["walker"]
    scene.names = [name for name in scene.names if "walker" not in name]
    prepare(tmp_path, scene)
    assert run(tmp_path).details["points"] == 120
    with pytest.raises(ReconstructionError, match="no 3D points were found"):
        run(tmp_path, MapConfig(two_view_tracks=False), output=tmp_path / "none")


def test_images_that_do_not_connect_make_further_models(
    tmp_path: Path, scene: Scene
) -> None:
    names = sorted(scene.names)
    apart = set(names[:4])
    database = tmp_path / "map.db"
    (tmp_path / "mapping").mkdir()
    prepare(tmp_path, Scene())
    remove_poses(tmp_path)
    with closing(pycolmap.Database.open(str(database))) as opened:
        ids = {image.image_id: image.name for image in opened.read_all_images()}
        for one in ids:
            for other in ids:
                if one < other and (ids[one] in apart) != (ids[other] in apart):
                    opened.delete_two_view_geometry(one, other)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM frames")
        connection.execute("DELETE FROM frame_data")
        connection.execute("DELETE FROM rigs")
        connection.execute("DELETE FROM rig_sensors")
        connection.commit()
    report = run(tmp_path, MapConfig(refine_intrinsics=False))
    assert report.details["registered_images"] == 8
    assert report.details["images_of_further_models"] == [4]
    further = pycolmap.Reconstruction(str(tmp_path / "map" / "models" / "1"))
    assert {image.name for image in further.images.values()} == apart
    assert (tmp_path / "map" / "models" / "1" / "map.png").exists()
    saved = json.loads((tmp_path / "map/report.json").read_text(encoding="utf-8"))
    assert saved["not_registered"] == sorted(apart)


def test_without_features_the_database_has_the_keypoints(
    root: Path, scene: Scene
) -> None:
    shutil.rmtree(root / "mapping" / "reconstruction")
    run(root)
    data = load_map(root)
    assert data.keypoints["colmap"].dsize == 2
    assert assert_observations_reproject(root, 1e-3) == 12 * 120
