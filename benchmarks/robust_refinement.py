"""Refinement of poses by reweighted least squares, with any loss and any weights.

pycolmap refines with Cauchy's loss and equal weights alone, PoseLib with equal weights;
this compares others with both. Levenberg-Marquardt, derivatives by finite differences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import pycolmap
from scipy.spatial.transform import Rotation

Array = npt.NDArray[np.float64]
Loss = Literal["cauchy", "huber", "geman_mcclure"]
Pose = tuple[Array, Array]
"""(3, 3) rotation and (3,) translation."""

STEP = 1e-6
ITERATIONS = 30
DAMPING = 1e-4
CONVERGED = 1e-9


def refine_absolute(
    cam_from_world: Array,
    camera: pycolmap.Camera,
    xy: Array,
    points: Array,
    deviations: Array | None = None,
    *,
    loss: Loss = "cauchy",
    scale: float = 0.5,
) -> Array:
    """A refined (3, 4) pose from inliers.

    Args:
        cam_from_world: (3, 4) to start from.
        camera: known.
        xy: (N, 2) keypoints in COLMAP's origin.
        points: (N, 3) their points.
        deviations: (N,) relative deviations of the keypoints; by default equal.
        loss: of the residual.
        scale: of the loss, in pixels by the deviations.
    """
    weights = _weights(len(xy), deviations)
    rotation, translation = cam_from_world[:, :3], cam_from_world[:, 3]
    depth = float(np.median(points @ rotation[2] + translation[2]))

    def moved(pose: Pose, step: Array) -> Pose:
        turned = Rotation.from_rotvec(step[:3]).as_matrix() @ pose[0]
        return turned, pose[1] + depth * step[3:]

    def residuals(pose: Pose) -> Array:
        seen = camera.img_from_cam(points @ pose[0].T + pose[1], False)
        return np.asarray((seen - xy) * weights)

    start = rotation, translation
    return np.column_stack(_minimize(residuals, moved, start, 6, loss, scale))


def refine_relative(
    cam2_from_cam1: Array,
    focal_length: float,
    rays1: Array,
    rays2: Array,
    deviations: Array | None = None,
    *,
    loss: Loss = "cauchy",
    scale: float = 0.5,
) -> Array:
    """A refined (3, 4) relative pose of unit translation from inliers.

    Args:
        cam2_from_cam1: (3, 4) to start from.
        focal_length: pixels of one unit of the rays.
        rays1, rays2: (N, 3) matched rays of z = 1.
        deviations: (N,) relative deviations of the matches; by default equal.
        loss: of Sampson's distance.
        scale: of the loss, in pixels by the deviations.
    """
    weights = focal_length * _weights(len(rays1), deviations)[:, 0]

    def moved(pose: Pose, step: Array) -> Pose:
        across = np.linalg.svd(pose[1][None])[2][1:]
        turned = Rotation.from_rotvec(step[:3]).as_matrix() @ pose[0]
        shifted = pose[1] + step[3:] @ across
        return turned, shifted / np.linalg.norm(shifted)

    def residuals(pose: Pose) -> Array:
        distances = sampson_distances(np.column_stack(pose), rays1, rays2)
        return np.asarray((distances * weights)[:, None])

    translation = cam2_from_cam1[:, 3] / np.linalg.norm(cam2_from_cam1[:, 3])
    start = cam2_from_cam1[:, :3], translation
    return np.column_stack(_minimize(residuals, moved, start, 5, loss, scale))


def sampson_distances(cam2_from_cam1: Array, rays1: Array, rays2: Array) -> Array:
    """(K,) signed distances of Sampson on the plane z = 1.

    Args:
        cam2_from_cam1: (3, 4) pose, whose translation's length does not matter.
        rays1, rays2: (K, 3) matched rays of z = 1.
    """
    E = pycolmap.essential_matrix_from_pose(pycolmap.Rigid3d(cam2_from_cam1))
    lines2, lines1 = rays1 @ E.T, rays2 @ E
    slopes = np.column_stack([lines1[:, :2], lines2[:, :2]])
    distances = (rays2 * lines2).sum(axis=1) / np.linalg.norm(slopes, axis=1)
    return np.asarray(distances)


def _weights(count: int, deviations: Array | None) -> Array:
    """(N, 1) of residuals; a median deviation weighs 1, so that the scale keeps."""
    if deviations is None or count == 0:
        return np.ones((count, 1))
    return np.asarray(np.median(deviations) / deviations)[:, None]


def _minimize(
    residuals: Callable[[Pose], Array],
    moved: Callable[[Pose, Array], Pose],
    pose: Pose,
    freedom: int,
    loss: Loss,
    scale: float,
) -> Pose:
    now = residuals(pose)
    cost, damping = _cost(now, loss, scale), DAMPING
    for _ in range(ITERATIONS):
        steps = STEP * np.eye(freedom)
        columns = [(residuals(moved(pose, step)) - now) / STEP for step in steps]
        jacobian = np.stack(columns, axis=2)
        weights = _loss_weights(np.linalg.norm(now, axis=1), loss, scale)
        weighted = jacobian * weights[:, None, None]
        normal = np.einsum("nij,nik->jk", weighted, jacobian)
        gradient = np.einsum("nij,ni->j", weighted, now)
        before = cost
        while damping < 1 / DAMPING:
            damped = normal + damping * np.diag(np.diag(normal))
            candidate = moved(pose, -np.linalg.solve(damped, gradient))
            after = residuals(candidate)
            if (cost_after := _cost(after, loss, scale)) < cost:
                pose, now, cost = candidate, after, cost_after
                break
            damping *= 10
        if before - cost <= CONVERGED * before:
            break
        damping /= 10
    return pose


def _cost(residuals: Array, loss: Loss, scale: float) -> float:
    squares = (residuals**2).sum(axis=1) / scale**2
    if loss == "cauchy":
        return float(np.log1p(squares).sum())
    if loss == "geman_mcclure":
        return float((squares / (1 + squares)).sum())
    return float(np.where(squares < 1, squares, 2 * np.sqrt(squares) - 1).sum())


def _loss_weights(lengths: Array, loss: Loss, scale: float) -> Array:
    squares = (lengths / scale) ** 2
    if loss == "cauchy":
        return np.asarray(1 / (1 + squares))
    if loss == "geman_mcclure":
        return np.asarray(1 / (1 + squares) ** 2)
    return np.asarray(1 / np.maximum(np.sqrt(squares), 1))
