"""A textured plane seen by known cameras: pictures, noisy keypoints, true matches."""

from __future__ import annotations

import itertools
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt
from PIL import Image

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.coordinates import pixel_that_holds
from r2d2_kapture.io.kapture.poses import rigid3d_from_kapture
from r2d2_kapture.stages.verify import stage as verify
from tests.scenes.surfaces import SIDE, moved_by, photograph, waves
from tests.scenes.world import pair_matches, write_array, write_matches

Array = npt.NDArray[np.float64]
FOCAL, DEPTH, NOISE = 160.0, 4.0, 0.5
"""Of the cameras, from the plane, and of the keypoints, in pixels."""
TYPE = "r2d2"


class PlaneScene:
    """Photographs of one plane, and a verified database of their true matches.

    Attributes:
        root: folder of all that is written.
        names: of the images.
        sizes: (W, H) of the images by name.
        points: (N, 2) pixels of the plane.
        homographies: by name, from pixels of the plane to those of the image.
        seen: by name, the points that an image shows, in the order of its keypoints.
    """

    def __init__(
        self,
        root: Path,
        images: int = 4,
        *,
        still: bool = False,
        first_size: tuple[int, int] = (SIDE, SIDE),
    ) -> None:
        """Take images.

        Args:
            root: see above.
            images: number of them.
            still: whether all are the same, to the byte.
            first_size: (W, H) of the first one, which is cut out of the middle.
        """
        self.root, self.still = root, still
        self.names = [f"sé {number}/a b.png" for number in range(images)]
        self.sizes = {name: (SIDE, SIDE) for name in self.names}
        self.sizes[self.names[0]] = first_size
        self.rng = np.random.default_rng(11)
        self.dataset = kapture.Kapture(
            sensors=kapture.Sensors(),
            records_camera=kapture.RecordsCamera(),
            trajectories=kapture.Trajectories(),
        )
        self.homographies: dict[str, Array] = {}
        for number, name in enumerate(self.names):
            moved = 0 if still else number
            pose = kapture.PoseTransform(
                r=[1, 0, 0.04 * moved, 0.05 * moved],
                t=[0.2 - 0.3 * moved, 0.11 * moved, -0.08 * moved],
            )
            self._add(number, name, pose)
        everywhere = self.rng.uniform(-30, SIDE + 30, (100, 2))
        in_first = self.rng.uniform(-0.4, np.array(first_size) - 0.6, (20, 2))
        plane_from_first = np.linalg.inv(self.homographies[self.names[0]])
        self.points = np.concatenate([everywhere, moved_by(plane_from_first, in_first)])
        self.seen: dict[str, npt.NDArray[np.intp]] = {}
        for name in self.names:
            at = moved_by(self.homographies[name], self.points)
            pixels = pixel_that_holds(at)
            inside = ((pixels >= 0) & (pixels < self.sizes[name])).all(axis=1)
            self.seen[name] = self.rng.permutation(np.flatnonzero(inside))
        self.write_pictures()
        self.write_features()
        self.write_matches()
        kcsv.kapture_to_dir(str(self.mapping), self.dataset)

    def _add(self, number: int, name: str, pose: kapture.PoseTransform) -> None:
        """An image of a camera of its own."""
        width, height = self.sizes[name]
        params = [width, height, FOCAL, FOCAL, (width - 1) / 2, (height - 1) / 2]
        camera = kapture.Camera("PINHOLE", params)
        self.dataset.sensors[f"camera {number}"] = camera
        self.dataset.records_camera[number, f"camera {number}"] = name
        self.dataset.trajectories[number, f"camera {number}"] = pose
        self.homographies[name] = image_from_plane(pose, (width, height))

    @property
    def mapping(self) -> Path:
        return self.root / "mapping"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def database(self) -> Path:
        return self.root / "map.db"

    def picture(self, name: str) -> Path:
        return self.mapping / "sensors" / "records_data" / name

    def truth(self, name: str) -> Array:
        """(N, 2) pixels of the keypoints of an image."""
        return moved_by(self.homographies[name], self.points[self.seen[name]])

    def write_pictures(self) -> None:
        texture = waves()
        for seed, name in enumerate(self.names):
            self.picture(name).parent.mkdir(parents=True, exist_ok=True)
            own = 0 if self.still else seed
            pixels = photograph(
                texture, self.homographies[name], size=self.sizes[name], seed=own
            )
            Image.fromarray(pixels).save(self.picture(name))

    def write_features(self, columns: int = 3, side: float = 32.0) -> None:
        """Keypoints of two or three columns, the third the side of their patches."""
        folder = self.features / "reconstruction" / "keypoints" / TYPE
        for name in self.names:
            truth = self.truth(name)
            found = truth + self.rng.normal(0, NOISE, truth.shape)
            found = found.clip(0, np.array(self.sizes[name]) - 1)
            rows = np.column_stack([found, np.full(len(found), side)])[:, :columns]
            write_array(folder / f"{name}.kpt", rows.astype(np.float32))
        described = f"# kapture format: 1.1\n{TYPE}, float32, {columns}\n"
        (folder / "keypoints.txt").write_text(described, encoding="utf-8")

    def write_matches(self) -> None:
        for first, second in itertools.combinations(self.names, 2):
            _, one, other = np.intersect1d(
                self.seen[first], self.seen[second], return_indices=True
            )
            matches = pair_matches(np.column_stack([one, other]))
            write_matches(self.root / "matches", (first, second), matches, TYPE)

    def verify(self) -> None:
        """Write the database and the verified matches."""
        verify.run(
            VerifyConfig(
                geometry="estimate" if self.still else "known_poses", min_inliers=5
            ),
            mapping=self.mapping,
            features=[self.features],
            matches=[self.root / "matches"],
            database=self.database,
            output=self.root / "verified",
            options=RunOptions(progress=False),
        )


def image_from_plane(pose: kapture.PoseTransform, size: tuple[int, int]) -> Array:
    """The homography of the plane at DEPTH whose pixels are those of no motion."""
    cam_from_world = rigid3d_from_kapture(pose)
    assert cam_from_world is not None
    motion = (
        DEPTH * cam_from_world.rotation.matrix() @ np.linalg.inv(camera((SIDE, SIDE)))
    )
    motion[:, 2] += cam_from_world.translation
    return np.asarray(camera(size) @ motion)


def camera(size: tuple[int, int]) -> Array:
    """The calibration of an image of (W, H), the middle of it on the axis."""
    middle = (np.array(size) - 1) / 2
    return np.array([[FOCAL, 0, middle[0]], [0, FOCAL, middle[1]], [0, 0, 1]])
