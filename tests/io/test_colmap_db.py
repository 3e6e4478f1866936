"""COLMAP databases: what pycolmap reads back, verifies and triangulates."""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pycolmap
import pytest

from r2d2_kapture.errors import DatasetError, FeatureFormatError, OutputError
from r2d2_kapture.io.colmap_db import DatabaseSummary, write_database

WIDTH, HEIGHT, FOCAL = 640, 480, 500.0
CENTER_PP = [319.5, 239.5]
CORNER_PP = [320, 240]


def pinhole(principal_point: list[float]) -> kapture.Camera:
    params = [WIDTH, HEIGHT, FOCAL, FOCAL, *principal_point]
    return kapture.Camera(kapture.CameraType.PINHOLE, params)


def pose(yaw: float, translation: list[float]) -> kapture.PoseTransform:
    rotation = [np.cos(yaw / 2), 0.0, np.sin(yaw / 2), 0.0]
    return kapture.PoseTransform(r=rotation, t=translation)


class Scene:
    """Exact projections, in kapture's conventions, of 120 points.

    A rig of cameras ``left`` and ``right``, neither at the rig's origin, and a lone
    ``walker`` camera, each at 4 times.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.points = rng.uniform([-2, -1.5, 4], [2, 1.5, 8], (120, 3))
        self.dataset = kapture.Kapture(
            sensors=kapture.Sensors(),
            rigs=kapture.Rigs(),
            trajectories=kapture.Trajectories(),
            records_camera=kapture.RecordsCamera(),
        )
        self.names: list[str] = []
        self.poses: dict[str, kapture.PoseTransform] = {}
        for sensor_id in ("right", "left", "walker"):
            self.dataset.sensors[sensor_id] = pinhole(CENTER_PP)
        self.dataset.rigs["rig", "right"] = pose(-0.1, [-0.3, 0.1, 0])
        self.dataset.rigs["rig", "left"] = pose(0.1, [0.2, 0, 0.1])
        for time in range(4):
            rig_from_world = pose(0.05 * time, [0.4 * time - 0.6, 0, 0.1 * time])
            self.dataset.trajectories[time, "rig"] = rig_from_world
            for sensor_id in ("left", "right"):
                cam_from_rig = self.dataset.rigs["rig", sensor_id]
                self._add(time, sensor_id, [cam_from_rig, rig_from_world])
            walker_from_world = pose(-0.04 * time, [0.3 - 0.3 * time, 0.2, 0.5])
            self._add(time, "walker", [walker_from_world])

    def _add(
        self, time: int, sensor_id: str, chain: list[kapture.PoseTransform]
    ) -> None:
        name = f"seq é/{sensor_id}/{time} b.jpg"
        self.dataset.records_camera[time, sensor_id] = name
        self.poses[name] = kapture.PoseTransform.compose(chain)
        self.names.append(name)

    def keypoints(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(N, 3): x, y, patch side; (0, 0) at the centre of the first pixel."""
        rays = self.poses[name].transform_points(self.points)
        xy = FOCAL * rays[:, :2] / rays[:, 2:] + CENTER_PP
        return np.column_stack([xy, np.full(len(xy), 32)]).astype(np.float32)

    def matches(
        self, first: str, second: str
    ) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        indices = np.arange(len(self.points), dtype=np.float64)
        return np.column_stack([indices, indices, np.ones(len(indices))])

    def write(self, path: Path, **changes: Any) -> DatabaseSummary:
        settings: dict[str, Any] = {
            "read_keypoints": self.keypoints,
            "read_matches": self.matches,
            "pairs": list(itertools.combinations(self.names, 2)),
        }
        return write_database(path, self.dataset, **(settings | changes))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def verify(path: Path) -> None:
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = 0
    pycolmap.logging.minloglevel = 2
    pycolmap.geometric_verification(
        str(path),
        pycolmap.GeometricVerifierOptions(num_threads=1),
        two_view_geometry_options=options,
    )


def known_pose_model(
    path: Path, pose_of: Callable[[str], kapture.PoseTransform]
) -> pycolmap.Reconstruction:
    """The cameras, rigs, frames and images of a database, with true poses."""
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(str(path)) as database:
        images = {image.image_id: image for image in database.read_all_images()}
        for camera in database.read_all_cameras():
            model.add_camera(camera)
        for rig in database.read_all_rigs():
            model.add_rig(rig)
        for frame in database.read_all_frames():
            model.add_frame(frame)
            image = images[min(data.id for data in frame.data_ids)]
            true = pose_of(image.name)
            w, x, y, z = true.r_raw
            cam_from_world = pycolmap.Rigid3d(
                pycolmap.Rotation3d(np.array([x, y, z, w])), np.array(true.t_raw)
            )
            model.frame(frame.frame_id).set_cam_from_world(
                image.camera_id, cam_from_world
            )
    for image in images.values():
        model.add_image(image)
    for frame_id in list(model.frames):
        model.register_frame(frame_id)
    return model


def triangulate(
    path: Path, model: pycolmap.Reconstruction, out: Path
) -> pycolmap.Reconstruction:
    options = pycolmap.IncrementalPipelineOptions(
        num_threads=1, random_seed=0, ba_refine_sensor_from_rig=False
    )
    options.triangulation.ignore_two_view_tracks = False
    out.mkdir()
    return pycolmap.triangulate_points(
        model, str(path), str(path.parent), str(out), options=options
    )


def cameras_by_name(path: Path, scene: Scene) -> dict[str, pycolmap.Camera]:
    with pycolmap.Database.open(str(path)) as database:
        return dict(
            zip(sorted(scene.dataset.sensors), database.read_all_cameras(), strict=True)
        )


def test_content_is_counted_and_numbered_by_name(tmp_path: Path, scene: Scene) -> None:
    path = tmp_path / "new" / "database.db"
    summary = scene.write(path)
    assert summary == DatabaseSummary(
        cameras=3,
        rigs=2,
        frames=8,
        images=12,
        keypoints=12 * 120,
        pairs=66,
        matches=66 * 120,
        camera_origin="center",
    )
    with pycolmap.Database.open(str(path)) as database:
        assert [image.name for image in database.read_all_images()] == sorted(
            scene.names
        )
        assert [camera.camera_id for camera in database.read_all_cameras()] == [1, 2, 3]
        assert database.num_keypoints() == summary.keypoints
        assert database.num_matches() == summary.matches
        assert database.num_descriptors() == 0


def test_same_input_gives_same_content(tmp_path: Path, scene: Scene) -> None:
    pairs = list(itertools.combinations(scene.names, 2))
    scene.write(tmp_path / "a.db", pairs=pairs)
    scene.write(tmp_path / "b.db", pairs=[(b, a) for a, b in reversed(pairs)])
    dumps = []
    for name in ("a.db", "b.db"):
        connection = sqlite3.connect(tmp_path / name)
        dumps.append(list(connection.iterdump()))
        connection.close()
    assert dumps[0] == dumps[1]


def test_keypoints_and_principal_point_move_half_a_pixel_once(
    tmp_path: Path, scene: Scene
) -> None:
    path = tmp_path / "a.db"
    scene.write(path)
    name = scene.names[0]
    camera = cameras_by_name(path, scene)["left"]
    assert camera.params.tolist() == [FOCAL, FOCAL, *CORNER_PP]
    assert camera.has_prior_focal_length
    with pycolmap.Database.open(str(path)) as database:
        image_id = database.read_image_with_name(name).image_id
        stored = database.read_keypoints(image_id)
    np.testing.assert_allclose(
        stored, scene.keypoints(name)[:, :2] + 0.5, rtol=0, atol=1e-4
    )
    rays = scene.poses[name].transform_points(scene.points)
    np.testing.assert_allclose(stored, camera.img_from_cam(rays), atol=1e-3)


@pytest.mark.parametrize(
    "principal_points, asked, resolved, stored_x",
    [
        ([CENTER_PP, CENTER_PP], "auto", "center", 320.0),
        ([CORNER_PP, CORNER_PP], "auto", "corner", 320.0),
        ([[300.0, 200.0], CORNER_PP], "auto", "corner", 300.0),
        ([[300.0, 200.0], CENTER_PP], "auto", "center", 300.5),
        ([[300.0, 200.0], [310.0, 210.0]], "auto", "center", 300.5),
        ([CORNER_PP, CORNER_PP], "center", "center", 320.5),
        ([CENTER_PP, CENTER_PP], "corner", "corner", 319.5),
    ],
)
def test_origin_of_the_principal_points(
    tmp_path: Path,
    scene: Scene,
    principal_points: list[list[float]],
    asked: str,
    resolved: str,
    stored_x: float,
) -> None:
    first, last = principal_points
    scene.dataset.sensors["left"] = pinhole(first)
    scene.dataset.sensors["right"] = pinhole(first)
    scene.dataset.sensors["walker"] = pinhole(last)
    summary = scene.write(tmp_path / "a.db", camera_origin=asked)
    assert summary.camera_origin == resolved
    camera = cameras_by_name(tmp_path / "a.db", scene)["left"]
    assert camera.principal_point_x == stored_x


@pytest.mark.parametrize(
    "model, params, shifted",
    [
        ("SIMPLE_PINHOLE", [500, 310, 230], {1, 2}),
        ("OPENCV", [500, 501, 310, 230, 0.1, 0.01, 0.001, 0.002], {2, 3}),
        ("FOV", [500, 501, 310, 230, 0.1], {2, 3}),
        ("RADIAL_FISHEYE", [500, 310, 230, 0.1, 0.01], {1, 2}),
    ],
)
def test_camera_parameters_are_kept_but_for_the_principal_point(
    tmp_path: Path, scene: Scene, model: str, params: list[float], shifted: set[int]
) -> None:
    scene.dataset.sensors["left"] = kapture.Camera(model, [WIDTH, HEIGHT, *params])
    scene.write(tmp_path / "a.db")
    camera = cameras_by_name(tmp_path / "a.db", scene)["left"]
    assert camera.model_name == model
    assert (camera.width, camera.height) == (WIDTH, HEIGHT)
    expected = [value + 0.5 * (i in shifted) for i, value in enumerate(params)]
    np.testing.assert_allclose(camera.params, expected)


def test_unknown_camera_is_a_guess_about_the_middle(
    tmp_path: Path, scene: Scene
) -> None:
    scene.dataset.sensors["walker"] = kapture.Camera("UNKNOWN_CAMERA", [WIDTH, 481])
    assert scene.write(tmp_path / "a.db").camera_origin == "center"
    camera = cameras_by_name(tmp_path / "a.db", scene)["walker"]
    assert camera.model_name == "SIMPLE_RADIAL"
    assert camera.params.tolist() == [1.2 * WIDTH, 320, 240.5, 0]
    assert not camera.has_prior_focal_length


def test_rig_is_verified_and_triangulated(tmp_path: Path, scene: Scene) -> None:
    path = tmp_path / "a.db"
    scene.write(path)
    verify(path)
    with pycolmap.Database.open(str(path)) as database:
        assert database.num_inlier_matches() > 0.95 * 66 * 120
        frames = database.read_all_frames()
    assert sorted(len(list(frame.data_ids)) for frame in frames) == [1] * 4 + [2] * 4
    model = known_pose_model(path, scene.poses.__getitem__)
    for image in model.images.values():  # poses that only the rigs give are true
        true = scene.poses[image.name]
        np.testing.assert_allclose(
            image.cam_from_world().translation, true.t_raw, atol=1e-9
        )
    model = triangulate(path, model, tmp_path / "model")
    assert model.num_points3D() == 120
    assert model.compute_mean_reprojection_error() < 1e-3
    found = np.array([point.xyz for point in model.points3D.values()])
    distances = np.linalg.norm(found[:, None] - scene.points[None], axis=2)
    assert distances.min(axis=1).max() < 1e-3


def test_dataset_without_rigs_fits_trivial_rigs_of_pycolmap(
    tmp_path: Path, scene: Scene
) -> None:
    path = tmp_path / "a.db"
    scene.dataset.rigs = None
    summary = scene.write(path)
    assert (summary.rigs, summary.frames) == (3, 12)
    verify(path)
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(str(path)) as database:
        for camera in database.read_all_cameras():
            model.add_camera_with_trivial_rig(camera)
        for stored in database.read_all_images():
            image = pycolmap.Image(
                name=stored.name, camera_id=stored.camera_id, image_id=stored.image_id
            )
            true = scene.poses[stored.name]
            w, x, y, z = true.r_raw
            model.add_image_with_trivial_frame(
                image,
                pycolmap.Rigid3d(
                    pycolmap.Rotation3d(np.array([x, y, z, w])), np.array(true.t_raw)
                ),
            )
    model = triangulate(path, model, tmp_path / "model")
    assert model.num_points3D() == 120


def test_frame_may_lack_the_reference_camera(tmp_path: Path, scene: Scene) -> None:
    path = tmp_path / "a.db"
    lost = scene.dataset.records_camera[2].pop("left")
    scene.names.remove(lost)
    assert scene.write(path).frames == 8
    verify(path)
    model = known_pose_model(path, scene.poses.__getitem__)
    model = triangulate(path, model, tmp_path / "model")
    assert model.num_reg_images() == 11
    assert model.num_points3D() == 120


def test_nested_rig_is_flattened(tmp_path: Path, scene: Scene) -> None:
    mounted = kapture.Rigs()
    mounted["car", "rig"] = pose(0.3, [1, 2, 3])
    mounted["car", "lidar"] = pose(0, [0, 0, 0])
    for sensor_id in ("left", "right"):
        mounted["rig", sensor_id] = scene.dataset.rigs["rig", sensor_id]
    scene.write(tmp_path / "flat.db")
    scene.dataset.rigs = mounted
    assert scene.write(tmp_path / "nested.db").rigs == 2
    rigs = []
    for name in ("flat.db", "nested.db"):
        with pycolmap.Database.open(str(tmp_path / name)) as database:
            rigs.append(database.read_rig(1))
    right = pycolmap.sensor_t(pycolmap.SensorType.CAMERA, 2)
    np.testing.assert_allclose(
        rigs[0].sensor_from_rig(right).matrix(),
        rigs[1].sensor_from_rig(right).matrix(),
        atol=1e-12,
    )


def test_rig_sensors_that_the_dataset_lacks_are_left_out(
    tmp_path: Path, scene: Scene
) -> None:
    scene.dataset.rigs["rig", "absent"] = pose(0, [9, 9, 9])
    scene.dataset.rigs["other", "absent"] = pose(0, [9, 9, 9])
    assert scene.write(tmp_path / "a.db").rigs == 2


@pytest.mark.parametrize(
    "rig_id, device_id, device_pose, message",
    [
        ("second", "left", pose(0, [0, 0, 0]), "'left': found in rigs"),
        ("rig", "rig", pose(0, [0, 0, 0]), "inside itself"),
        ("rig", "walker", kapture.PoseTransform(r=None, t=None), "incomplete"),
    ],
)
def test_rigs_that_colmap_cannot_hold_are_refused(
    tmp_path: Path,
    scene: Scene,
    rig_id: str,
    device_id: str,
    device_pose: kapture.PoseTransform,
    message: str,
) -> None:
    scene.dataset.rigs[rig_id, device_id] = device_pose
    with pytest.raises(DatasetError, match=message):
        scene.write(tmp_path / "a.db")
    assert os.listdir(tmp_path) == []


def test_camera_twice_in_one_rig_is_refused(tmp_path: Path, scene: Scene) -> None:
    scene.dataset.rigs["pair", "left"] = pose(0, [0, 0, 0])
    scene.dataset.rigs["rig", "pair"] = pose(0, [0, 0, 0])
    with pytest.raises(DatasetError, match="'left' twice"):
        scene.write(tmp_path / "a.db")


def test_image_recorded_twice_is_refused(tmp_path: Path, scene: Scene) -> None:
    scene.dataset.records_camera[77, "walker"] = scene.names[0]
    with pytest.raises(DatasetError, match="expected one record"):
        scene.write(tmp_path / "a.db")


def test_image_of_an_unknown_camera_is_refused(tmp_path: Path, scene: Scene) -> None:
    scene.dataset.records_camera[77, "nobody"] = "n.jpg"
    with pytest.raises(DatasetError, match="'nobody'"):
        scene.write(tmp_path / "a.db")


def test_images_without_keypoints_and_pairs_without_matches(
    tmp_path: Path, scene: Scene
) -> None:
    path = tmp_path / "a.db"
    empty, full, alone = sorted(scene.names)[:3]

    def keypoints(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        return scene.keypoints(name)[: 0 if name == empty else None]

    def matches(
        first: str, second: str
    ) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        return None if second == alone else np.empty((0, 3))

    summary = scene.write(
        path,
        read_keypoints=keypoints,
        read_matches=matches,
        pairs=[(empty, full), (empty, alone)],
    )
    assert (summary.pairs, summary.matches) == (1, 0)
    verify(path)
    with pycolmap.Database.open(str(path)) as database:
        image_id = database.read_image_with_name(empty).image_id
        assert database.exists_keypoints(image_id)
        assert len(database.read_keypoints(image_id)) == 0


def test_matches_follow_the_order_of_names(tmp_path: Path, scene: Scene) -> None:
    first, second = sorted(scene.names)[:2]
    asked = []

    def matches(one: str, other: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        asked.append((one, other))
        return np.array([[3, 7, 0.5], [4, 9, 0.25]])

    pairs = [(second, first), (first, second), (second, first)]
    summary = scene.write(tmp_path / "a.db", read_matches=matches, pairs=pairs)
    assert asked == [(first, second)]
    assert summary.pairs == 1
    with pycolmap.Database.open(str(tmp_path / "a.db")) as database:
        ids = [database.read_image_with_name(n).image_id for n in (first, second)]
        assert database.read_matches(*ids).tolist() == [[3, 7], [4, 9]]


@pytest.mark.parametrize(
    "row", [[120, 0, 1], [0, 120, 1], [-1, 0, 1], [0.5, 0, 1], [np.nan, 0, 1]]
)
def test_matches_of_no_keypoint_are_refused(
    tmp_path: Path, scene: Scene, row: list[float]
) -> None:
    first, second = sorted(scene.names)[:2]
    with pytest.raises(FeatureFormatError) as caught:
        scene.write(
            tmp_path / "a.db",
            read_matches=lambda one, other: np.array([[0, 0, 1], row]),
            pairs=[(first, second)],
        )
    assert first in str(caught.value)
    assert second in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_keypoints_of_another_shape_are_refused(tmp_path: Path, scene: Scene) -> None:
    with pytest.raises(FeatureFormatError, match="keypoints of"):
        scene.write(tmp_path / "a.db", read_keypoints=lambda name: np.zeros(6))


@pytest.mark.parametrize("other", ["absent.jpg", None])
def test_pairs_of_unknown_or_equal_images_are_refused(
    tmp_path: Path, scene: Scene, other: str | None
) -> None:
    name = scene.names[0]
    with pytest.raises(DatasetError, match=other or "itself"):
        scene.write(tmp_path / "a.db", pairs=[(name, other or name)])


def test_file_that_exists_is_kept_unless_asked(tmp_path: Path, scene: Scene) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"precious")
    (tmp_path / "a.db-wal").write_bytes(b"log of an older database")
    with pytest.raises(OutputError, match="overwrite"):
        scene.write(path)
    assert path.read_bytes() == b"precious"
    scene.write(path, overwrite=True)
    assert os.listdir(tmp_path) == ["a.db"]
    with pycolmap.Database.open(str(path)) as database:
        assert database.num_images() == 12


def test_one_complete_file_that_opens_from_a_read_only_folder(
    tmp_path: Path, scene: Scene
) -> None:
    path = tmp_path / "a.db"
    scene.write(path)
    assert os.listdir(tmp_path) == ["a.db"]
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM matches").fetchone() == (66,)
    connection.close()


def test_interruption_leaves_nothing(tmp_path: Path, scene: Scene) -> None:
    def interrupted(first: str, second: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scene.write(tmp_path / "a.db", read_matches=interrupted)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits files as on Linux")
@pytest.mark.parametrize("limit", [0, 300_000])
def test_full_disk_is_an_error_not_a_crash(tmp_path: Path, limit: int) -> None:
    code = """
import resource, sys
from pathlib import Path
from r2d2_kapture.errors import OutputError
from tests.io.test_colmap_db import Scene
scene, limit = Scene(), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    scene.write(Path(sys.argv[1]))
except OutputError as error:
    assert "TMPDIR" in str(error)
    sys.exit(7)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.db"), str(limit)],
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 7
    assert os.listdir(tmp_path) == []


@pytest.mark.shared
def test_virtual_gallery_is_verified_and_triangulated(
    tmp_path: Path, shared: Path
) -> None:
    root = shared / "data" / "virtual_gallery"
    features = root / "local_features" / "r2d2_500"
    dataset = kcsv.kapture_from_dir(str(root / "mapping"))
    poses = {
        name: kapture.PoseTransform.compose(
            [
                dataset.rigs["training_rig", sensor_id],
                dataset.trajectories[time, "training_rig"],
            ]
        )
        for time, sensor_id, name in kapture.flatten(dataset.records_camera)
    }

    def keypoints(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        file = features / "keypoints" / f"{name}.kpt"
        return np.fromfile(file, np.float32).reshape(-1, 3)

    def matches(first: str, second: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        one, other = (
            np.fromfile(features / "descriptors" / f"{name}.desc", np.float32)
            for name in (first, second)
        )
        similarity = one.reshape(-1, 128) @ other.reshape(-1, 128).T
        there, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
        rows = np.flatnonzero(back[there] == np.arange(len(there)))
        return np.column_stack([rows, there[rows], similarity[rows, there[rows]]])

    path = tmp_path / "a.db"
    summary = write_database(
        path,
        dataset,
        read_keypoints=keypoints,
        read_matches=matches,
        pairs=itertools.combinations(sorted(poses)[:4] + sorted(poses)[6:10], 2),
    )
    assert (summary.rigs, summary.frames, summary.images) == (1, 6, 12)
    assert summary.camera_origin == "center"
    verify(path)
    model = known_pose_model(path, poses.__getitem__)
    model = triangulate(path, model, tmp_path / "model")
    assert model.num_points3D() > 100
    assert model.compute_mean_reprojection_error() < 1.5
