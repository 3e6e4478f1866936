"""Robust poses of query frames from keypoints and map points, by pycolmap."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.stages.localize.cameras import QueryImage
from r2d2_kapture.stages.localize.correspondences import Correspondences

DoubleArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

CREDIBLE = (0.1, 10.0, 1.0)
"""Least and greatest focal length in units of the longest side, and greatest distortion
parameter that COLMAP's mapper accepts."""
RADIANS_OF_TANGENT = np.array([2.0, 2.0, 2.0, 1.0, 1.0, 1.0])
"""pycolmap's covariance is of half the rotation angles (quaternions in Ceres)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """The correspondences of an image of a frame.

    Attributes:
        image: the query image.
        xy: (N, 2) keypoint of each correspondence, in COLMAP's pixel origin.
        points: (N, 3) map point of each correspondence.
        correspondences: rows of the keypoints and points.
    """

    image: QueryImage
    xy: DoubleArray
    points: DoubleArray
    correspondences: Correspondences


@dataclass(frozen=True, kw_only=True, eq=False)
class FramePose:
    """The pose of a frame.

    Attributes:
        rig_from_world: of the rig, or of the camera of a single image.
        cameras: of each view, with the estimated focal length.
        inliers: of each view, which of its correspondences agree with the pose.
        covariance: (6, 6) of rig_from_world for keypoint errors of 1 px, a conservative
            estimate: rotation about the rig's axes in radians, then translation; None
            if the inliers do not determine the pose.
        doubt: why an estimated camera is not credible, with the way out; None if all
            are.
    """

    rig_from_world: pycolmap.Rigid3d
    cameras: tuple[pycolmap.Camera, ...]
    inliers: tuple[BoolArray, ...]
    covariance: DoubleArray | None
    doubt: str | None


def estimate_pose(
    views: Sequence[View], config: LocalizeConfig, *, min_inlier_ratio: float = 0.1
) -> FramePose | None:
    """Estimate the pose of a frame from all its views, and refine it.

    LO-RANSAC on minimal sets (P3P; P4Pf if the focal length is unknown; generalized P3P
    for a rig), then a robust refinement on the inliers, as in COLMAP except for the
    scale of the loss. The same input gives the same output.

    Args:
        views: of the frame.
        config: settings.
        min_inlier_ratio: assumed share of inliers; less takes longer.

    Returns:
        None if no pose is found.
    """
    ransac = pycolmap.RANSACOptions(
        max_error=config.max_error,
        min_inlier_ratio=min(max(min_inlier_ratio, 0.1), 1.0),
        random_seed=config.seed,
        # more threads would not be reproducible
        num_threads=1,
    )
    cameras = tuple(copy.deepcopy(view.image.camera) for view in views)
    if len(views) == 1:
        found = _estimate_single(views[0], cameras[0], config, ransac)
    else:
        found = _estimate_rig(views, cameras, config, ransac)
    if found is None:
        return None
    ends = np.cumsum([len(view.xy) for view in views])[:-1]
    return FramePose(
        rig_from_world=found["rig_from_world"],
        cameras=cameras,
        inliers=tuple(np.split(found["inlier_mask"], ends)),
        covariance=_covariance(found.get("covariance")),
        doubt=next(filter(None, map(_doubt, views, cameras)), None),
    )


def refine_pose(views: Sequence[View], pose: FramePose, loss_scale: float) -> FramePose:
    """Refine the pose of a frame on its inliers with a loss of another scale.

    Args:
        views: that the pose was estimated from.
        pose: to start from.
        loss_scale: see LocalizeConfig.

    Returns:
        A pose with the inliers and the covariance of the one given: keypoint errors of
        1 px are the same whatever the loss. The one given, if it cannot be refined.
    """
    cameras = copy.deepcopy(pose.cameras)
    found: dict[str, Any] | None
    if len(views) == 1:
        (view,) = views
        found = pycolmap.refine_absolute_pose(
            pose.rig_from_world,
            view.xy,
            view.points,
            pose.inliers[0],
            cameras[0],
            _refinement(view, loss_scale),
        )
    else:
        xy, points, *rig = _of_rig(views, cameras)
        found = pycolmap.refine_generalized_absolute_pose(
            pose.rig_from_world,
            xy,
            points,
            np.concatenate(pose.inliers),
            *rig,
            pycolmap.AbsolutePoseRefinementOptions(loss_function_scale=loss_scale),
        )
    if found is None or any(map(_doubt, views, cameras)):
        return pose
    (rig_from_world,) = found.values()
    return dataclasses.replace(pose, rig_from_world=rig_from_world, cameras=cameras)


def count_inliers(views: Iterable[View], inliers: Iterable[BoolArray]) -> int:
    """Number of inliers: distinct map points, or distinct keypoints if fewer.

    One corner detected on several scales is several keypoints, and several tracks may
    share a keypoint; neither makes a pose more certain.
    """
    points: set[int] = set()
    keypoints = 0
    for view, mask in zip(views, inliers):
        points.update(view.correspondences.points[mask].tolist())
        keypoints += len(np.unique(view.correspondences.keypoints[mask]))
    return min(len(points), keypoints)


def camera_covariance(
    covariance: DoubleArray, cam_from_rig: pycolmap.Rigid3d
) -> DoubleArray:
    """(6, 6) covariance of cam_from_world, given that of rig_from_world."""
    rotation = np.kron(np.eye(2), cam_from_rig.rotation.matrix())
    turned: DoubleArray = rotation @ covariance @ rotation.T
    return turned


def centre_deviation(
    cam_from_world: pycolmap.Rigid3d, covariance: DoubleArray
) -> float:
    """Standard deviation of the camera centre, over all directions.

    The centre is -R^T t; a rotation of the camera by d turns R into exp([d]x) R, which
    moves the centre by -R^T [t]x d.
    """
    x, y, z = cam_from_world.translation
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    # R^T keeps the trace
    centre_from_tangent = np.hstack([cross, np.eye(3)])
    covariance_of_centre = centre_from_tangent @ covariance @ centre_from_tangent.T
    return float(np.sqrt(np.trace(covariance_of_centre)))


def _doubt(view: View, camera: pycolmap.Camera) -> str | None:
    if view.image.focal_length == "fixed" or not camera.has_bogus_params(*CREDIBLE):
        return None
    distortion = [f"{camera.params[i]:.3g}" for i in camera.extra_params_idxs()]
    return (
        f"found a focal length of {camera.mean_focal_length():.4g} px"
        + (f" and distortion {', '.join(distortion)}" if distortion else "")
        + f" for {camera.width} x {camera.height} px, which is not credible; give the "
        "intrinsics of the camera in sensors.txt"
    )


def _estimate_single(
    view: View,
    camera: pycolmap.Camera,
    config: LocalizeConfig,
    ransac: pycolmap.RANSACOptions,
) -> dict[str, Any] | None:
    knowledge = view.image.focal_length
    found: dict[str, Any] | None = pycolmap.estimate_and_refine_absolute_pose(
        view.xy,
        view.points,
        camera,
        pycolmap.AbsolutePoseEstimationOptions(
            estimate_focal_length=knowledge == "estimated", ransac=ransac
        ),
        _refinement(view, config.loss_scale),
        return_covariance=True,
    )
    if found is None:
        return None
    return found | {"rig_from_world": found["cam_from_world"]}


def _estimate_rig(
    views: Sequence[View],
    cameras: Sequence[pycolmap.Camera],
    config: LocalizeConfig,
    ransac: pycolmap.RANSACOptions,
) -> dict[str, Any] | None:
    found: dict[str, Any] | None = (
        pycolmap.estimate_and_refine_generalized_absolute_pose(
            *_of_rig(views, cameras),
            ransac,
            pycolmap.AbsolutePoseRefinementOptions(
                loss_function_scale=config.loss_scale
            ),
            return_covariance=True,
        )
    )
    return found


def _refinement(
    view: View, loss_scale: float
) -> pycolmap.AbsolutePoseRefinementOptions:
    """Of the pose of a single image, with what is not known of its camera."""
    return pycolmap.AbsolutePoseRefinementOptions(
        loss_function_scale=loss_scale,
        refine_focal_length=view.image.focal_length != "fixed",
        refine_extra_params=view.image.refine_distortion,
    )


def _of_rig(views: Sequence[View], cameras: Sequence[pycolmap.Camera]) -> tuple[
    DoubleArray,
    DoubleArray,
    npt.NDArray[np.int64],
    list[pycolmap.Rigid3d],
    list[pycolmap.Camera],
]:
    """Keypoints, points, camera of each, poses in the rig and cameras, for pycolmap."""
    return (
        np.concatenate([view.xy for view in views]),
        np.concatenate([view.points for view in views]),
        np.repeat(np.arange(len(views)), [len(view.xy) for view in views]),
        [view.image.cam_from_rig for view in views],
        list(cameras),
    )


def _covariance(of_tangent: DoubleArray | None) -> DoubleArray | None:
    if of_tangent is None or not np.isfinite(of_tangent).all():
        return None
    return of_tangent * np.outer(RADIANS_OF_TANGENT, RADIANS_OF_TANGENT)
