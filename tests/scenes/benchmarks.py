"""Miniatures of known benchmarks in their authors' layouts, with poses that are known.

Images are grey; the features that a ``Miniature`` writes are exact projections of its
points, by the names that images have after the import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap
from PIL import Image

from r2d2_kapture.coordinates import colmap_from_kapture, kapture_from_colmap
from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import write_features, write_rows

Array = npt.NDArray[np.float64]
POINTS, DIM = 150, 32
WALLS = np.array([[0.5, -0.1, 1.0], [-0.4, 0.05, 1.0]]) / 5
"""Normals of two walls that meet in front of the cameras, over their distances."""


def pinhole(
    size: tuple[int, int], focal: float, center: Sequence[float] = ()
) -> pycolmap.Camera:
    """A camera in COLMAP's origin; its principal point is in the middle by default."""
    width, height = size
    x, y = center or (width / 2, height / 2)
    return pycolmap.Camera(
        model="PINHOLE", width=width, height=height, params=[focal, focal, x, y]
    )


def view(number: float, turn: float = 0.0) -> pycolmap.Rigid3d:
    """cam_from_world of a camera that walks to the right and looks ahead."""
    rotation = pycolmap.Rotation3d(np.array([0.0, 0.06 * number - 0.15 + turn, 0.0]))
    center = np.array([0.35 * number - 0.9, 0.1 * (number % 2), 0.08 * number])
    return pycolmap.Rigid3d(rotation, -(rotation * center))


class Miniature:
    """Takes images, and remembers what is true of them.

    Attributes:
        root: folder of the dataset.
        truth: cam_from_world of each image, by its name after the import.
    """

    def __init__(self, root: Path, *, walls: bool = False) -> None:
        rng = np.random.default_rng(0)
        self.root = root
        self.truth: dict[str, pycolmap.Rigid3d] = {}
        self.points = rng.uniform([-2.5, -1.5, 4], [2.5, 1.5, 8], (POINTS, 3))
        if walls:
            self.points /= (self.points @ WALLS.T).max(axis=1, keepdims=True)
        self._descriptors = unit_rows(POINTS, DIM)
        self._keypoints: dict[str, npt.NDArray[np.float32]] = {}

    def take(
        self,
        name: str,
        path: str,
        camera: pycolmap.Camera,
        cam_from_world: pycolmap.Rigid3d,
    ) -> Path:
        """A grey image below the root, its keypoints and its true pose."""
        image = self.root / path
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (camera.width, camera.height), 128).save(image)
        self.truth[name] = cam_from_world
        xy = camera.img_from_cam(cam_from_world * self.points)
        rows = np.column_stack([kapture_from_colmap(xy), np.full(POINTS, 32)])
        self._keypoints[name] = rows.astype(np.float32)
        return image

    def depth(
        self, camera: pycolmap.Camera, cam_from_world: pycolmap.Rigid3d
    ) -> npt.NDArray[np.float32]:
        """(H, W) depth of the walls at the centres of pixels."""
        columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
        pixels = np.column_stack([columns.ravel(), rows.ravel()]).astype(np.float64)
        rays = camera.cam_from_img(colmap_from_kapture(pixels))
        rays = np.column_stack([rays, np.ones(len(rays))])
        world_from_cam = cam_from_world.inverse()
        left = 1 - world_from_cam.translation @ WALLS.T
        nearness = ((world_from_cam.rotation * rays) @ WALLS.T / left).max(axis=1)
        return (1 / nearness).reshape(camera.height, camera.width).astype(np.float32)

    def write_features(self, folder: Path) -> Path:
        """Keypoints and descriptors of all images, of the type ``points``."""
        write_features(
            folder, {name: self._descriptors for name in self.truth}, name="points"
        )
        write_rows(
            folder / "reconstruction/keypoints/points",
            "keypoints",
            self._keypoints,
            fields="points, float32, 3",
        )
        return folder


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def words(*values: object) -> str:
    """Values with spaces between, arrays flat."""
    flat = [np.ravel(v).tolist() if not isinstance(v, str) else [v] for v in values]
    return " ".join(str(item) for part in flat for item in part)


def wxyz(rotation: pycolmap.Rotation3d) -> Array:
    return np.roll(rotation.quat, 1)


def center(cam_from_world: pycolmap.Rigid3d) -> Array:
    return cam_from_world.inverse().translation


def square(transform: pycolmap.Rigid3d) -> Array:
    """(4, 4) of a transform."""
    return np.vstack([transform.matrix(), [0, 0, 0, 1]])


def save_millimetres(path: Path, depth: npt.NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(depth * 1000).astype(np.uint16)).save(path)


def far(
    found: Mapping[str, pycolmap.Rigid3d], truth: Mapping[str, pycolmap.Rigid3d]
) -> tuple[float, float]:
    """The largest errors of poses, in metres and degrees."""
    metres = [np.linalg.norm(center(found[n]) - center(truth[n])) for n in found]
    turns = [(found[n] * truth[n].inverse()).rotation.angle() for n in found]
    return max(metres), float(np.degrees(max(turns)))


def typed(dataset: Path, features: Path, output: Path, *more: str) -> list[str]:
    """What a user types after the name of a recipe, with features of all images."""
    return [
        *("--dataset", str(dataset), "--output", str(output), "--quiet"),
        *("--features", str(features), "--query_pairs.vlad-clusters", "4", *more),
    ]
