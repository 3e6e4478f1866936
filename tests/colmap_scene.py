"""A scene of exact projections as kapture has it, and what pycolmap makes of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pycolmap

from r2d2_kapture.io.colmap.database import DatabaseSummary, write_database
from r2d2_kapture.types import FloatArray, PairMatches

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
    ``walker`` camera.
    """

    def __init__(self, times: int = 4) -> None:
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
        for time in range(times):
            rig_from_world = pose(0.05 * time, [0.4 * time - 0.6, 0, 0.1 * time])
            self.dataset.trajectories[time, "rig"] = rig_from_world
            for sensor_id in ("left", "right"):
                cam_from_rig = self.dataset.rigs["rig", sensor_id]
                self._add(time, sensor_id, [cam_from_rig, rig_from_world])
            walker_from_world = pose(-0.04 * time, [0.3 - 0.3 * time, 0.2, 0.5])
            self.dataset.trajectories[time, "walker"] = walker_from_world
            self._add(time, "walker", [walker_from_world])

    def _add(
        self, time: int, sensor_id: str, chain: list[kapture.PoseTransform]
    ) -> None:
        name = f"seq é/{sensor_id}/{time} b.jpg"
        self.dataset.records_camera[time, sensor_id] = name
        self.poses[name] = kapture.PoseTransform.compose(chain)
        self.names.append(name)

    def keypoints(self, name: str) -> FloatArray:
        """(N, 3): x, y, patch side; (0, 0) at the centre of the first pixel."""
        rays = self.poses[name].transform_points(self.points)
        xy = FOCAL * rays[:, :2] / rays[:, 2:] + CENTER_PP
        return np.column_stack([xy, np.full(len(xy), 32)]).astype(np.float32)

    def matches(self, first: str, second: str) -> PairMatches:
        return pair_matches(np.repeat(np.arange(len(self.points))[:, None], 2, axis=1))

    def write(self, path: Path, **changes: Any) -> DatabaseSummary:
        settings: dict[str, Any] = {
            "read_keypoints": self.keypoints,
            "read_matches": self.matches,
            "pairs": list(itertools.combinations(self.names, 2)),
        }
        return write_database(path, self.dataset, **(settings | changes))

    def write_kapture(self, root: Path, keypoints_type: str = "r2d2") -> Path:
        """The dataset, its keypoints and its matches as kapture's files."""
        kcsv.kapture_to_dir(str(root), self.dataset)
        folder = root / "reconstruction" / "keypoints" / keypoints_type
        for name in self.names:
            write_rows(folder / f"{name}.kpt", self.keypoints(name))
        (folder / "keypoints.txt").write_text(
            f"# kapture format: 1.1\n{keypoints_type}, float32, 3\n", encoding="utf-8"
        )
        for pair in itertools.combinations(sorted(self.names), 2):
            write_matches(root, pair, self.matches(*pair), keypoints_type)
        return root


def write_from_colmap(root: Path, scene: Scene) -> Path:
    """The dataset as kapture_import_colmap makes it, counted from pixel corners."""
    for sensor_id in scene.dataset.sensors:
        scene.dataset.sensors[sensor_id] = pinhole(CORNER_PP)
    scene.write_kapture(root)
    folder = root / "reconstruction" / "keypoints" / "r2d2"
    for name in scene.names:
        write_rows(folder / f"{name}.kpt", scene.keypoints(name)[:, :2] + 0.5)
    described = folder / "keypoints.txt"
    described.write_text(described.read_text("utf-8").replace(", 3", ", 2"), "utf-8")
    return root


def pair_matches(indices: Any, score: float = 1.0) -> PairMatches:
    rows = np.asarray(indices, np.int64).reshape(-1, 2)
    return PairMatches(indices=rows, scores=np.full(len(rows), score, np.float32))


def write_rows(path: Path, rows: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.tofile(path)


def write_matches(
    root: Path,
    pair: tuple[str, str],
    matches: PairMatches,
    keypoints_type: str = "r2d2",
) -> None:
    """Matches of a sorted pair as kapture's file of float64 rows."""
    folder = root / "reconstruction" / "matches" / keypoints_type
    rows = np.column_stack([matches.indices, matches.scores]).astype(np.float64)
    write_rows(folder / f"{pair[0]}.overlapping" / f"{pair[1]}.matches", rows)


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
