"""Features on a plane seen twice, with errors that are known by construction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from r2d2_kapture.types import LocalFeatures

Array = npt.NDArray[np.float64]

H_2_FROM_1 = np.array([[0.9, 0.1, 12.0], [-0.05, 1.1, -7.0], [1e-4, 2e-4, 1.0]])


def features_at(
    keypoints: npt.ArrayLike,
    descriptors: npt.ArrayLike | None = None,
    image_size: tuple[int, int] = (640, 480),
) -> LocalFeatures:
    """Features at given places; without descriptors each is like no other."""
    points = np.asarray(keypoints, dtype=np.float32).reshape(-1, 2)
    count = len(points)
    if descriptors is None:
        descriptors = np.eye(max(count, 1))[:count]
    return LocalFeatures(
        keypoints=points,
        scales=np.full(count, 32, dtype=np.float32),
        scores=np.ones(count, dtype=np.float32),
        descriptors=np.asarray(descriptors, dtype=np.float32),
        image_size=image_size,
    )


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
