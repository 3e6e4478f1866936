"""The world of most tests: points and cameras that are known, as kapture has them.

A test asks ``Scene`` for what it needs: records, poses and rigs of some of the images,
keypoints, descriptors, matches, pictures, a dataset on disk, or a database.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import numpy as np
from PIL import Image

from r2d2_kapture.io.colmap.database import DatabaseSummary, write_database
from r2d2_kapture.types import FloatArray, LocalFeatures, PairMatches
from tests.scenes.features import features_at, unit_rows

WIDTH, HEIGHT, FOCAL = 640, 480, 500.0
CENTER_PP = [319.5, 239.5]
CORNER_PP = [320, 240]
UNKNOWN = kapture.Camera("UNKNOWN_CAMERA", [WIDTH, HEIGHT])


def pinhole(principal_point: list[float]) -> kapture.Camera:
    params = [WIDTH, HEIGHT, FOCAL, FOCAL, *principal_point]
    return kapture.Camera(kapture.CameraType.PINHOLE, params)


def pose(yaw: float, translation: list[float]) -> kapture.PoseTransform:
    rotation = [np.cos(yaw / 2), 0.0, np.sin(yaw / 2), 0.0]
    return kapture.PoseTransform(r=rotation, t=translation)


class Scene:
    """Projections, in kapture's conventions, of 120 points.

    A rig of cameras ``left`` and ``right``, neither at the rig's origin, and a lone
    ``walker`` camera.

    Attributes:
        points: (120, 3) in the world.
        dataset: sensors, rigs, trajectories and records; may be changed.
        names: of the images.
        poses: of each image in the world.
    """

    def __init__(self, times: int = 4, *, noise: float = 0.0, wrong: int = 0) -> None:
        """Take images.

        Args:
            times: at which each camera takes one.
            noise: of the keypoints, in pixels.
            wrong: every so many matches one is wrong; 0: none is.
        """
        rng = np.random.default_rng(0)
        self.noise, self.wrong = noise, wrong
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

    def taken_with(self, camera: kapture.Camera) -> Scene:
        """This scene, all cameras of its dataset being said to be this one."""
        for sensor_id in self.dataset.sensors:
            self.dataset.sensors[sensor_id] = camera
        return self

    def part(self, times: Sequence[int], *, poses: bool = True) -> kapture.Kapture:
        """Records of the images of some times, and the poses that the dataset has."""
        records, trajectories = kapture.RecordsCamera(), kapture.Trajectories()
        for time in times:
            for sensor_id, name in self.dataset.records_camera[time].items():
                records[time, sensor_id] = name
            for device, device_from_world in self.dataset.trajectories[time].items():
                trajectories[time, device] = device_from_world
        return kapture.Kapture(
            sensors=self.dataset.sensors,
            rigs=self.dataset.rigs,
            records_camera=records,
            trajectories=trajectories if poses else None,
        )

    def keypoints(self, name: str) -> FloatArray:
        """(N, 3): x, y, patch side; (0, 0) at the centre of the first pixel."""
        rays = self.poses[name].transform_points(self.points)
        xy = FOCAL * rays[:, :2] / rays[:, 2:] + CENTER_PP
        if self.noise:
            rng = np.random.default_rng(sorted(self.names).index(name))
            xy += rng.normal(0, self.noise, xy.shape)
        return np.column_stack([xy, np.full(len(xy), 32)]).astype(np.float32)

    def matches(self, first: str, second: str) -> PairMatches:
        """Keypoints of one point, with falling scores where some are wrong."""
        indices = np.repeat(np.arange(len(self.points))[:, None], 2, axis=1)
        if not self.wrong:
            return pair_matches(indices)
        indices[:: self.wrong, 1] = np.roll(indices[:: self.wrong, 1], 1)
        scores = 1 - 0.001 * np.arange(len(indices), dtype=np.float32)
        return PairMatches(indices=indices, scores=scores.astype(np.float32))

    def features(self, dim: int, noise: float = 0.0) -> Callable[[str], LocalFeatures]:
        """Keypoints of an image by name, and a descriptor for each point.

        Args:
            dim: of the descriptors.
            noise: of their values, by image, before they are made unit again.
        """
        descriptors = unit_rows(len(self.points), dim)

        def features(name: str) -> LocalFeatures:
            rows = self.keypoints(name) if name in self.names else np.zeros((0, 3))
            own = np.random.default_rng(list(name.encode()))
            noisy = descriptors[: len(rows)] + own.normal(0, noise, (len(rows), dim))
            noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
            size = (WIDTH, HEIGHT)
            return features_at(
                rows[:, :2], noisy if noise else descriptors[: len(rows)], size
            )

        return features

    def write(self, path: Path, **changes: Any) -> DatabaseSummary:
        """A database of the scene."""
        settings: dict[str, Any] = {
            "read_keypoints": self.keypoints,
            "read_matches": self.matches,
            "pairs": list(itertools.combinations(self.names, 2)),
        }
        return write_database(path, self.dataset, **(settings | changes))

    def write_pictures(
        self, folder: Path, names: Iterable[str] = (), **options: Any
    ) -> Path:
        """Grey pictures of these names, or of all; options are those of saving."""
        for name in names or self.names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (WIDTH, HEIGHT), 128).save(folder / name, **options)
        return folder

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
    scene.taken_with(pinhole(CORNER_PP)).write_kapture(root)
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
            self.dataset.sensors[sensor_id] = UNKNOWN
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
