"""A scene of exact projections as kapture has it, and what pycolmap makes of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import numpy as np

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
            write_array(folder / f"{name}.kpt", self.keypoints(name))
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
        write_array(folder / f"{name}.kpt", scene.keypoints(name)[:, :2] + 0.5)
    described = folder / "keypoints.txt"
    described.write_text(described.read_text("utf-8").replace(", 3", ", 2"), "utf-8")
    return root


def pair_matches(indices: Any, score: float = 1.0) -> PairMatches:
    rows = np.asarray(indices, np.int64).reshape(-1, 2)
    return PairMatches(indices=rows, scores=np.full(len(rows), score, np.float32))


def write_array(path: Path, rows: np.ndarray[Any, Any]) -> None:
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
    write_array(folder / f"{pair[0]}.overlapping" / f"{pair[1]}.matches", rows)


class TurningScene(Scene):
    """Noisy projections of points all around; cameras are unknown, one an image."""

    def __init__(self, *, images: int, focal: float, noise: float) -> None:
        rng = np.random.default_rng(0)
        directions = rng.normal(size=(1500, 3)) * [1, 0.6, 1]
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        self.points = directions * rng.uniform(5, 50, (len(directions), 1))
        self.dataset = kapture.Kapture(
            sensors=kapture.Sensors(), records_camera=kapture.RecordsCamera()
        )
        self.names, self.poses = [], {}
        self.rows: dict[str, FloatArray] = {}
        self.seen: dict[str, np.ndarray] = {}
        for number in range(images):
            sensor_id, name = f"camera{number}", f"{number}.jpg"
            self.dataset.sensors[sensor_id] = kapture.Camera(
                "UNKNOWN_CAMERA", [WIDTH, HEIGHT]
            )
            self.dataset.records_camera[number, sensor_id] = name
            self.names.append(name)
            self.poses[name] = pose(np.deg2rad(8) * (number - images / 2), [0, 0, 0])
            rays = self.poses[name].transform_points(self.points)
            xy = focal * rays[:, :2] / rays[:, 2:] + CENTER_PP
            xy += rng.normal(0, noise, xy.shape)
            inside = (xy > 0).all(axis=1) & (xy < [WIDTH, HEIGHT]).all(axis=1)
            self.seen[name] = np.flatnonzero(inside & (rays[:, 2] > 0))
            xy = xy[self.seen[name]]
            self.rows[name] = np.column_stack([xy, np.full(len(xy), 32)]).astype("f4")

    def keypoints(self, name: str) -> FloatArray:
        return self.rows[name]

    def matches(self, first: str, second: str) -> PairMatches:
        _, one, other = np.intersect1d(
            self.seen[first], self.seen[second], return_indices=True
        )
        return pair_matches(np.column_stack([one, other]))
