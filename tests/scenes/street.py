"""A street: images one step apart, each sees few of the others."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt
import pycolmap
from scipy.spatial.transform import Rotation

from r2d2_kapture.io.kapture.poses import kapture_from_rigid3d

Array = npt.NDArray[np.float64]

SIZE, FOCAL = 640, 640.0
PER_STEP, STEPS_SEEN = 8, 8
REACH = 3
"""Steps between the images of a verified pair."""


@dataclass(frozen=True, kw_only=True)
class Street:
    """A wall of points beside a street, and the images of a camera that passes it.

    Keypoint k of image i is point ``PER_STEP * i + k``.

    Attributes:
        images: how many.
        noise: of keypoints, in pixels.
        gap: image before which no pair crosses; none at 0.
    """

    images: int
    noise: float = 0.0
    gap: int = 0

    @cached_property
    def points(self) -> Array:
        """(P, 3) about 10 in front of the street."""
        steps = np.repeat(np.arange(self.images + STEPS_SEEN), PER_STEP)
        near = np.random.default_rng(0).uniform(0, 1, (len(steps), 3))
        return near * [1, 8, 2] + [-STEPS_SEEN / 2, -4, 9] + steps[:, None] * [1, 0, 0]

    @cached_property
    def centers(self) -> Array:
        """(I, 3) of the cameras, which look at the wall."""
        step = np.arange(self.images)
        return np.column_stack([step, 0.2 * np.sin(step / 7), 0.5 * np.cos(step / 11)])

    def cam_from_world(self, image: int) -> pycolmap.Rigid3d:
        """The pose of an image, turned to and fro about the vertical axis."""
        turn = Rotation.from_rotvec([0, 0.1 * np.sin(image / 3), 0])
        rotation = pycolmap.Rotation3d(turn.as_quat())
        return pycolmap.Rigid3d(rotation, -(rotation * self.centers[image]))

    @property
    def names(self) -> list[str]:
        """Of the images, in order."""
        return [f"{i // 10}/{i:05d}.jpg" for i in range(self.images)]

    def keypoints(self, image: int) -> Array:
        """(64, 2) in COLMAP's pixel origin."""
        seen = slice(PER_STEP * image, PER_STEP * (image + STEPS_SEEN))
        offsets = self.cam_from_world(image) * self.points[seen]
        xy = FOCAL * offsets[:, :2] / offsets[:, 2:] + SIZE / 2
        noise = np.random.default_rng(image).standard_normal(xy.shape)
        return np.asarray(xy + self.noise * noise)

    def write(self, root: Path, *, poses: bool = True, known: bool = True) -> Path:
        """Write ``mapping``, a dataset without pictures, and ``map.db``.

        Args:
            root: the folder.
            poses: whether the dataset has them.
            known: whether the camera is, else its focal length is guessed.
        """
        data = kapture.Kapture(
            sensors=kapture.Sensors(),
            trajectories=kapture.Trajectories() if poses else None,
            records_camera=kapture.RecordsCamera(),
        )
        params = [FOCAL, FOCAL, (SIZE - 1) / 2, (SIZE - 1) / 2]
        model = "PINHOLE" if known else "UNKNOWN_CAMERA"
        data.sensors["camera"] = kapture.Camera(
            model, [SIZE, SIZE, *(params if known else ())]
        )
        for image, name in enumerate(self.names):
            data.records_camera[image, "camera"] = name
            if poses:
                pose = kapture_from_rigid3d(self.cam_from_world(image))
                data.trajectories[image, "camera"] = pose
        kcsv.kapture_to_dir(str(root / "mapping"), data)
        self._write_database(root / "map.db", known=known)
        return root

    def _write_database(self, path: Path, *, known: bool) -> None:
        focals = [FOCAL, FOCAL] if known else [1.2 * SIZE]
        with (
            closing(pycolmap.Database.open(str(path))) as database,
            pycolmap.DatabaseTransaction(database),
        ):
            camera = pycolmap.Camera(
                camera_id=1,
                model="PINHOLE" if known else "SIMPLE_PINHOLE",
                width=SIZE,
                height=SIZE,
                params=[*focals, SIZE / 2, SIZE / 2],
                has_prior_focal_length=known,
            )
            database.write_camera(camera, use_camera_id=True)
            for image, name in enumerate(self.names):
                made = pycolmap.Image(name=name, camera_id=1, image_id=image + 1)
                database.write_image(made, use_image_id=True)
                rows = self.keypoints(image).astype(np.float32)
                database.write_keypoints(image + 1, rows)
            for first in range(self.images):
                for second in range(first + 1, min(first + 1 + REACH, self.images)):
                    if not first < self.gap <= second:
                        self._write_pair(database, first, second)

    def _write_pair(self, database: pycolmap.Database, first: int, second: int) -> None:
        offset = PER_STEP * (second - first)
        rows = np.arange(offset, PER_STEP * STEPS_SEEN)
        matches = np.column_stack([rows, rows - offset]).astype(np.uint32)
        database.write_matches(first + 1, second + 1, matches)
        geometry = pycolmap.TwoViewGeometry(config=2, inlier_matches=matches)
        database.write_two_view_geometry(first + 1, second + 1, geometry)

    def distances(self, model: pycolmap.Reconstruction) -> Array:
        """(I,) of the cameras of a model from where they are, after a similarity."""
        images = sorted(model.images.values(), key=lambda image: image.image_id)
        found = np.array([image.projection_center() for image in images])
        true = self.centers[[image.image_id - 1 for image in images]]
        similarity = pycolmap.estimate_sim3d(found, true)
        moved = np.array([similarity * center for center in found])
        return np.asarray(np.linalg.norm(moved - true, axis=1))
