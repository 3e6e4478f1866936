"""Estimators of poses that estimators.py compares.

The first of each table is what the commands of the package do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import pycolmap
from scene_correspondences import Pair, Query
from scipy.optimize import least_squares

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.evaluation.matched_points import ransac_options

Array = npt.NDArray[np.float64]
WITH_POSELIB = find_spec("poselib") is not None


def absolute(
    query: Query,
    seed: int,
    max_error: float = LocalizeConfig.max_error,
    loss_scale: float = LocalizeConfig.loss_scale,
) -> tuple[pycolmap.Rigid3d, npt.NDArray[np.bool_]]:
    """As kapture_r2d2_localize; also which correspondences are inliers."""
    ransac = pycolmap.RANSACOptions(
        max_error=max_error, min_inlier_ratio=0.1, random_seed=seed, num_threads=1
    )
    found = pycolmap.estimate_and_refine_absolute_pose(
        query.xy,
        query.points,
        query.camera,
        pycolmap.AbsolutePoseEstimationOptions(ransac=ransac),
        pycolmap.AbsolutePoseRefinementOptions(loss_function_scale=loss_scale),
    )
    return found["cam_from_world"], found["inlier_mask"]


def by_coordinate(query: Query, seed: int, *, power: float = 0.0) -> pycolmap.Rigid3d:
    """The first row refined again, deviations as a power of the keypoints' levels.

    By SciPy, since pycolmap takes no weights; a keypoint of the median level weighs 1.
    """
    pose, chosen = absolute(query, seed)
    points, sides = query.points[chosen], query.sides[chosen]
    weights = (np.median(sides) / sides[:, None]) ** power
    depth = float(np.median((pose * points)[:, 2]))

    def moved(step: Array) -> pycolmap.Rigid3d:
        turned = pycolmap.Rotation3d(step[:3]) * pose.rotation
        return pycolmap.Rigid3d(turned, pose.translation + depth * step[3:])

    def residuals(step: Array) -> Array:
        seen = query.camera.img_from_cam(moved(step) * points, False)
        return np.asarray(((seen - query.xy[chosen]) * weights).ravel())

    scale = LocalizeConfig.loss_scale
    found = least_squares(residuals, np.zeros(6), loss="cauchy", f_scale=scale)
    return moved(found.x)


def poselib_absolute(query: Query, seed: int) -> pycolmap.Rigid3d:
    """PoseLib with the thresholds and the loss of the first row."""
    import poselib

    pose, _ = poselib.estimate_absolute_pose(
        query.xy,
        query.points,
        poselib_camera(query.camera),
        {"max_reproj_error": LocalizeConfig.max_error, "seed": seed},
        {"loss_type": "CAUCHY", "loss_scale": LocalizeConfig.loss_scale},
    )
    return pycolmap.Rigid3d(pose.Rt)


def poselib_camera(one: pycolmap.Camera) -> object:
    """A camera for PoseLib."""
    import poselib

    return poselib.Camera(one.model_name, one.params.tolist(), one.width, one.height)


ABSOLUTE: Mapping[str, Callable[[Query, int], pycolmap.Rigid3d]] = {
    "pycolmap, 12 px, Cauchy 0.5 px (default)": lambda q, s: absolute(q, s)[0],
    "pycolmap, 4 px": lambda q, s: absolute(q, s, max_error=4.0)[0],
    "PoseLib, 12 px, Cauchy 0.5 px": poselib_absolute,
    "Cauchy 0.25 px": lambda q, s: absolute(q, s, loss_scale=0.25)[0],
    "Cauchy 1 px": lambda q, s: absolute(q, s, loss_scale=1.0)[0],
    "Cauchy 2 px": lambda q, s: absolute(q, s, loss_scale=2.0)[0],
    "Cauchy 0.5 px of x and of y": by_coordinate,
    "the same, deviation as level": lambda q, s: by_coordinate(q, s, power=1.0),
}


def essential(
    pair: Pair, seed: int, *, max_error: float = 1.0
) -> pycolmap.Rigid3d | None:
    """As kapture_r2d2_pair_poses."""
    found = pycolmap.estimate_essential_matrix(
        pair.points1, pair.points2, *pair.cameras, ransac_options(max_error, seed)
    )
    return None if found is None else found["cam2_from_cam1"]


def short_searches(pair: Pair, seed: int) -> pycolmap.Rigid3d | None:
    """The best of eight of 300 to 10000 trials, by MSAC (Torr, Zisserman 2000)."""
    seeds = np.random.default_rng(seed).integers(2**31, size=8).tolist()
    options = pycolmap.RANSACOptions(
        max_error=1.0,
        num_threads=1,
        min_num_trials=300,
        max_num_trials=10_000,
        dyn_num_trials_multiplier=1.0,
        confidence=0.999,
    )
    points, poses = (pair.points1, pair.points2), []
    for options.random_seed in seeds:
        found = pycolmap.estimate_essential_matrix(*points, *pair.cameras, options)
        if found is not None:
            poses.append(found["cam2_from_cam1"])
    rays1, rays2 = (one.cam_from_img(xy) for one, xy in zip(pair.cameras, points))
    limit = np.mean([one.cam_from_img_threshold(1.0) for one in pair.cameras])

    def cost(pose: pycolmap.Rigid3d) -> float:
        matrix = pycolmap.essential_matrix_from_pose(pose)
        squares = pycolmap.compute_squared_sampson_error(rays1, rays2, matrix)
        # NaN, from a pixel without a ray, is an outlier
        return float(np.fmin(squares, limit**2).sum())

    return min(poses, key=cost, default=None)


def tangent_sampson(pair: Pair, seed: int) -> pycolmap.Rigid3d | None:
    """pycolmap's other estimator of relative poses, and its refinement."""
    first, second = pair.cameras
    sides = first, pair.points1, second, pair.points2
    found = pycolmap.estimate_relative_pose(*sides, ransac_options(1.0, seed))
    if found is None:
        return None
    refined = pycolmap.refine_relative_pose(
        found["cam2_from_cam1"], *sides, found["inlier_mask"]
    )
    return (refined or found)["cam2_from_cam1"]


def poselib_relative(
    pair: Pair, seed: int, *, max_error: float = 1.0
) -> pycolmap.Rigid3d | None:
    """PoseLib with the same trials."""
    import poselib

    pose, found = poselib.estimate_relative_pose(
        pair.points1,
        pair.points2,
        *map(poselib_camera, pair.cameras),
        {"max_epipolar_error": max_error, "seed": seed, "min_iterations": 1000},
        {"loss_type": "CAUCHY", "loss_scale": max_error / 2},
    )
    return pycolmap.Rigid3d(pose.Rt) if sum(found["inliers"]) > 5 else None


RELATIVE: Mapping[str, Callable[[Pair, int], pycolmap.Rigid3d | None]] = {
    "pycolmap essential matrix, 1 px (default)": essential,
    "the same, 0.5 px": lambda p, s: essential(p, s, max_error=0.5),
    "the same, 2 px": lambda p, s: essential(p, s, max_error=2.0),
    "8 short searches of it, the best by MSAC": short_searches,
    "pycolmap relative pose, 1 px, refined": tangent_sampson,
    "PoseLib, 1 px": poselib_relative,
    "PoseLib, 0.5 px": lambda p, s: poselib_relative(p, s, max_error=0.5),
}
