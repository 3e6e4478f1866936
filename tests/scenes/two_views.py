"""Two views of a plane, or of points in space, with errors known by construction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.coordinates import kapture_from_colmap
from r2d2_kapture.evaluation.posed_images import PosedImage
from r2d2_kapture.types import LocalFeatures
from tests.scenes.features import features_at

Array = npt.NDArray[np.float64]

H_2_FROM_1 = np.array([[0.9, 0.1, 12.0], [-0.05, 1.1, -7.0], [1e-4, 2e-4, 1.0]])
PINHOLE = ("PINHOLE", [500.0, 510.0, 320.0, 240.0])
DISTORTED = ("OPENCV", [500.0, 510.0, 320.0, 240.0, -0.1, 0.02, 0.001, -0.002])


def posed_image(
    name: str,
    rotation_vector: npt.ArrayLike = (0.0, 0.0, 0.0),
    translation: npt.ArrayLike = (0.0, 0.0, 0.0),
    model: tuple[str, list[float]] = PINHOLE,
) -> PosedImage:
    """An image of 640 x 480 whose cam_from_world is given."""
    camera = pycolmap.Camera(model=model[0], width=640, height=480, params=model[1])
    axis_angle = np.asarray(rotation_vector, dtype=np.float64)
    return PosedImage(
        name=name,
        path=Path(name),
        camera=camera,
        cam_from_world=pycolmap.Rigid3d(
            pycolmap.Rotation3d(axis_angle), np.asarray(translation, dtype=np.float64)
        ),
    )


def space_points(count: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """(N, 3) points in front of cameras near the origin that look along z."""
    rng = np.random.default_rng(seed)
    return rng.uniform([-1, -1, 4], [1, 1, 7], (count, 3))


def seen_by(
    image: PosedImage, points: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """(N, 2) float32 pixels of points, centre origin."""
    in_camera = image.cam_from_world * points
    pixels = image.camera.img_from_cam(in_camera)
    return kapture_from_colmap(np.asarray(pixels)).astype(np.float32)


def displaced_pair(
    rng: np.random.Generator,
) -> tuple[LocalFeatures, LocalFeatures, Array]:
    """Ten points and their images, displaced by 0.5, 1.5 ... 9.5 px and shuffled."""
    points = rng.uniform(40, 400, (10, 2))
    angles = rng.uniform(0, 2 * np.pi, 10)
    directions = np.column_stack([np.cos(angles), np.sin(angles)])
    displacements = np.arange(10) + 0.5
    homogeneous = np.column_stack([points, np.ones(10)]) @ H_2_FROM_1.T
    moved = homogeneous[:, :2] / homogeneous[:, 2:]
    moved += directions * displacements[:, None]
    descriptors = np.eye(16)[:10]
    order = rng.permutation(10)
    return (
        features_at(points, descriptors),
        features_at(moved[order], descriptors[order]),
        displacements,
    )
