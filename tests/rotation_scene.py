"""Photographs from one place, by a camera that only turns."""

from __future__ import annotations

import kapture
import numpy as np

from r2d2_kapture.types import FloatArray, PairMatches
from tests.colmap_scene import CENTER_PP, HEIGHT, WIDTH, Scene, pair_matches, pose


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
