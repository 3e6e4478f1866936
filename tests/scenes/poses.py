"""Poses of known truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pycolmap
from scipy.spatial.transform import Rotation

Array = npt.NDArray[np.float64]


def rigid3d(world_from_cam: Rotation, center: Iterable[float]) -> pycolmap.Rigid3d:
    """The cam_from_world of a camera at a place."""
    cam_from_world = world_from_cam.inv()
    translation = -cam_from_world.apply(np.asarray(center, dtype=float))
    return pycolmap.Rigid3d(
        pycolmap.Rotation3d(cam_from_world.as_quat()), np.asarray(translation)
    )


def random_poses(names: Sequence[str], seed: int = 0) -> dict[str, pycolmap.Rigid3d]:
    rng = np.random.default_rng(seed)
    rotations = Rotation.random(len(names), rng=rng)
    centers = rng.normal(size=(len(names), 3))
    return {n: rigid3d(r, c) for n, r, c in zip(names, rotations, centers)}


def moved(
    pose: pycolmap.Rigid3d, offset: Iterable[float] = (0, 0, 0), degrees: float = 0.0
) -> pycolmap.Rigid3d:
    """The camera displaced in the world, and turned about its own z axis."""
    world_from_cam = Rotation.from_quat(pose.rotation.quat).inv()
    turn = Rotation.from_rotvec([0, 0, np.radians(degrees)])
    center = pose.inverse().translation + np.asarray(offset, dtype=float)
    return rigid3d(world_from_cam * turn, center)


def numbers(pose: pycolmap.Rigid3d) -> list[float]:
    """qw qx qy qz tx ty tz."""
    x, y, z, w = pose.rotation.quat.tolist()
    return [w, x, y, z, *pose.translation.tolist()]


def assert_same_pose(
    found: pycolmap.Rigid3d, expected: pycolmap.Rigid3d, atol: float = 1e-12
) -> None:
    np.testing.assert_allclose(found.matrix(), expected.matrix(), rtol=0, atol=atol)
