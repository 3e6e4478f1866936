"""Estimators of poses that estimators.py compares.

The first of each table is what the commands of the package do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import pycolmap
from robust_refinement import Loss, refine_absolute, refine_relative, sampson_distances
from scene_correspondences import PairSample, QuerySample, camera

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.evaluation.matched_points import ransac_options
from r2d2_kapture.evaluation.relative_pose import estimate_relative_pose
from r2d2_kapture.stages.verify.two_view import verify_matches

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def with_poselib() -> bool:
    """Whether PoseLib is installed."""
    return find_spec("poselib") is not None


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """A query with its first pose and its inliers."""

    sample: QuerySample
    seed: int
    cam_from_world: Array
    inliers: Mask

    def refined(
        self, power: float = 0.0, *, loss: Loss = "cauchy", scale: float = 0.5
    ) -> Array:
        """Refined on the inliers; deviations grow with a power of the patches."""
        chosen, sample = self.inliers, self.sample
        return refine_absolute(
            self.cam_from_world,
            camera(sample.camera),
            sample.xy[chosen],
            sample.points[chosen],
            sample.sides[chosen] ** power,
            loss=loss,
            scale=scale,
        )


def pycolmap_absolute(
    sample: QuerySample, seed: int, max_error: float = LocalizeConfig.max_error
) -> tuple[Array, Mask]:
    """As kapture_r2d2_localize."""
    found = pycolmap.estimate_and_refine_absolute_pose(
        sample.xy,
        sample.points,
        camera(sample.camera),
        pycolmap.AbsolutePoseEstimationOptions(
            ransac=pycolmap.RANSACOptions(
                max_error=max_error, min_inlier_ratio=0.1, random_seed=seed
            )
        ),
        pycolmap.AbsolutePoseRefinementOptions(
            loss_function_scale=LocalizeConfig.loss_scale
        ),
    )
    return found["cam_from_world"].matrix(), found["inlier_mask"]


def poselib_absolute(sample: QuerySample, seed: int) -> Array:
    """PoseLib with the same thresholds and loss."""
    import poselib

    pose, _ = poselib.estimate_absolute_pose(
        sample.xy,
        sample.points,
        poselib_camera(sample.camera),
        {
            "max_reproj_error": LocalizeConfig.max_error,
            "seed": seed,
            "min_iterations": 100,
            "max_iterations": 10_000,
        },
        {"loss_type": "CAUCHY", "loss_scale": LocalizeConfig.loss_scale},
    )
    return np.asarray(pose.Rt)


def poselib_camera(stored: npt.NDArray[np.str_]) -> object:
    """A camera of a sample for PoseLib."""
    import poselib

    one = camera(stored)
    return poselib.Camera(one.model_name, one.params.tolist(), one.width, one.height)


ABSOLUTE: Mapping[str, Callable[[Query], Array]] = {
    "pycolmap, 12 px (default)": lambda q: q.cam_from_world,
    "pycolmap, 4 px": lambda q: pycolmap_absolute(q.sample, q.seed, 4.0)[0],
    "pycolmap, 8 px": lambda q: pycolmap_absolute(q.sample, q.seed, 8.0)[0],
    "PoseLib, 12 px": lambda q: poselib_absolute(q.sample, q.seed),
    "Cauchy 0.25 px": lambda q: q.refined(scale=0.25),
    "Cauchy 1 px": lambda q: q.refined(scale=1.0),
    "Cauchy 2 px": lambda q: q.refined(scale=2.0),
    "Huber 0.5 px": lambda q: q.refined(loss="huber"),
    "Geman-McClure 1 px": lambda q: q.refined(loss="geman_mcclure", scale=1.0),
    "deviation ~ level^0.5": lambda q: q.refined(0.5),
    "deviation ~ level": lambda q: q.refined(1.0),
    "deviation ~ level, 0.25 px": lambda q: q.refined(1.0, scale=0.25),
}


def degrees_between(first: Array, second: Array) -> float:
    """Between the rotations of two (3, 4) poses."""
    turn = pycolmap.Rotation3d(first[:, :3] @ second[:, :3].T)
    return float(np.degrees(turn.angle()))


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """The matches of a pair as rays, with its true geometry.

    Attributes:
        sample: as it was kept.
        cameras: of the two.
        rays: (K, 3) of z = 1 of each.
        focal_length: mean of both, in pixels.
        cam2_from_cam1: (3, 4), the true one.
    """

    sample: PairSample
    cameras: tuple[pycolmap.Camera, pycolmap.Camera]
    rays: tuple[Array, Array]
    focal_length: float
    cam2_from_cam1: Array

    def distances(self, pose: Array) -> Array:
        """(K,) pixels to the epipolar lines, by Sampson."""
        distances = sampson_distances(pose, *self.rays)
        return np.asarray(self.focal_length * np.abs(distances))

    def error(self, pose: Array | None) -> float:
        """The larger error of rotation and translation in degrees."""
        if pose is None:
            return float("inf")
        found, true = pose[:, 3], self.cam2_from_cam1[:, 3]
        across = np.linalg.norm(np.cross(found, true))
        turned = float(np.degrees(np.arctan2(across, abs(found @ true))))
        return max(turned, degrees_between(pose, self.cam2_from_cam1))


def open_pair(sample: PairSample) -> Pair:
    """The geometry of a kept pair."""
    cameras = camera(sample.camera1), camera(sample.camera2)
    planes = zip(cameras, (sample.points1, sample.points2))
    first, second = (one.cam_from_img(points) for one, points in planes)
    poses = (sample.cam_from_world1, sample.cam_from_world2)
    pose1, pose2 = (pycolmap.Rigid3d(pose) for pose in poses)
    return Pair(
        sample=sample,
        cameras=cameras,
        rays=(
            np.column_stack([first, np.ones(len(first))]),
            np.column_stack([second, np.ones(len(second))]),
        ),
        focal_length=float(np.mean([one.mean_focal_length() for one in cameras])),
        cam2_from_cam1=(pose2 * pose1.inverse()).matrix(),
    )


def searched(pair: Pair, seed: int) -> Array | None:
    """As kapture_r2d2_pair_poses."""
    points = pair.sample.points1, pair.sample.points2
    pose = estimate_relative_pose(pair.cameras, *points, max_error=1.0, seed=seed)
    return None if pose is None else np.asarray(pose.matrix())


def essential(pair: Pair, seed: int, max_error: float = 1.0) -> Array | None:
    """One long LO-RANSAC of 1000 to 100000 trials."""
    sample = pair.sample
    found = pycolmap.estimate_essential_matrix(
        *(sample.points1, sample.points2, *pair.cameras),
        ransac_options(max_error, seed),
    )
    return None if found is None else np.asarray(found["cam2_from_cam1"].matrix())


def tangent_sampson(pair: Pair, seed: int) -> Array | None:
    """pycolmap's other estimator of relative poses, and its refinement."""
    sides = (
        *(pair.cameras[0], pair.sample.points1),
        *(pair.cameras[1], pair.sample.points2),
    )
    found = pycolmap.estimate_relative_pose(*sides, ransac_options(1.0, seed))
    if found is None:
        return None
    refined = pycolmap.refine_relative_pose(
        found["cam2_from_cam1"], *sides, found["inlier_mask"]
    )
    return np.asarray((refined or found)["cam2_from_cam1"].matrix())


def poselib_relative(pair: Pair, seed: int, max_error: float = 1.0) -> Array | None:
    """PoseLib with the same trials."""
    import poselib

    pose, found = poselib.estimate_relative_pose(
        pair.sample.points1,
        pair.sample.points2,
        poselib_camera(pair.sample.camera1),
        poselib_camera(pair.sample.camera2),
        {"max_epipolar_error": max_error, "seed": seed, "min_iterations": 1000},
        {"loss_type": "CAUCHY", "loss_scale": max_error / 2},
    )
    return np.asarray(pose.Rt) if sum(found["inliers"]) > 5 else None


def refined(pair: Pair, pose: Array | None, power: float = 0.0) -> Array | None:
    """Refined on matches within 3 px; deviations grow with a power of the patches."""
    if pose is None:
        return None
    near = pair.distances(pose) < 3.0
    if near.sum() < 6:
        return pose
    sides = np.sqrt(pair.sample.sides1 * pair.sample.sides2)[near] ** power
    rays1, rays2 = (rays[near] for rays in pair.rays)
    return refine_relative(pose, pair.focal_length, rays1, rays2, sides)


RELATIVE: Mapping[str, Callable[[Pair, int], Array | None]] = {
    "8 short searches, the best (default)": searched,
    "pycolmap essential, 1 px": essential,
    "pycolmap essential, 0.5 px": lambda p, s: essential(p, s, 0.5),
    "pycolmap essential, 2 px": lambda p, s: essential(p, s, 2.0),
    "pycolmap essential, 1 px, + Cauchy 0.5 px": lambda p, s: refined(
        p, essential(p, s)
    ),
    "pycolmap relative pose, 1 px, refined": tangent_sampson,
    "PoseLib, 1 px": poselib_relative,
    "PoseLib, 0.5 px": lambda p, s: poselib_relative(p, s, 0.5),
    "default, + Cauchy 0.5 px": lambda p, s: refined(p, searched(p, s)),
    "the same, deviation ~ level": lambda p, s: refined(p, searched(p, s), 1.0),
}


def verified(pair: Pair, seed: int, max_error: float) -> Mask:
    """The matches that kapture_r2d2_verify keeps."""
    sample = pair.sample
    keypoints = sample.points1.astype(np.float32), sample.points2.astype(np.float32)
    rows = np.repeat(np.arange(len(keypoints[0]), dtype=np.uint32)[:, None], 2, axis=1)
    config = VerifyConfig(max_error=max_error, seed=seed)
    geometry = verify_matches(pair.cameras, keypoints, rows, None, config)
    kept = np.zeros(len(rows), np.bool_)
    kept[geometry.inlier_matches[:, 0]] = True
    return kept


def poselib_verified(pair: Pair, seed: int, estimated: float, max_error: float) -> Mask:
    """The matches near the epipolar lines of PoseLib's pose."""
    pose = poselib_relative(pair, seed, estimated)
    if pose is None:
        return np.zeros(len(pair.rays[0]), np.bool_)
    kept = np.asarray(pair.distances(pose) < max_error)
    enough = bool(kept.sum() >= VerifyConfig.min_inliers)
    return kept if enough else np.zeros_like(kept)


VERIFICATION: Mapping[str, Callable[[Pair, int], Mask]] = {
    "verify, 4 px (default)": lambda p, s: verified(p, s, 4.0),
    "verify, 1 px": lambda p, s: verified(p, s, 1.0),
    "verify, 2 px": lambda p, s: verified(p, s, 2.0),
    "verify, 8 px": lambda p, s: verified(p, s, 8.0),
    "PoseLib by 4 px": lambda p, s: poselib_verified(p, s, 4.0, 4.0),
    "PoseLib by 1 px, matches within 4 px": lambda p, s: poselib_verified(p, s, 1, 4),
}
