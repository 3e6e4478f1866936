"""Poses and their covariances from points whose projections are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.stages.localize.correspondences import Correspondences
from r2d2_kapture.stages.localize.pose_estimation import (
    camera_covariance,
    centre_deviation,
    count_inliers,
    estimate_pose,
)
from tests.scenes.projected import (
    CAM_FROM_WORLD,
    camera,
    points_before_camera,
    view,
)

Array = npt.NDArray[np.float64]
CONFIG = LocalizeConfig()


def tangent(found: pycolmap.Rigid3d, true: pycolmap.Rigid3d) -> Array:
    """Rotation about the camera's axes in radians, and translation, from the truth."""
    turn = Rotation.from_quat(found.rotation.quat)
    turn *= Rotation.from_quat(true.rotation.quat).inv()
    return np.concatenate([turn.as_rotvec(), found.translation - true.translation])


def test_covariance_is_of_the_errors_that_noise_makes() -> None:
    rng = np.random.default_rng(0)
    local = points_before_camera(150)
    points = CAM_FROM_WORLD.inverse() * local
    exact = camera().img_from_cam(local)
    errors, covariances, centres, deviations = [], [], [], []
    for _ in range(60):
        noisy = exact + rng.normal(0, 1, exact.shape)
        found = estimate_pose([view(noisy, points)], CONFIG)
        assert found is not None and found.covariance is not None
        errors.append(tangent(found.rig_from_world, CAM_FROM_WORLD))
        covariances.append(found.covariance)
        centre = found.rig_from_world.inverse() * np.zeros(3)
        centres.append(centre - CAM_FROM_WORLD.inverse() * np.zeros(3))
        deviations.append(centre_deviation(found.rig_from_world, found.covariance))
    expected = np.mean(covariances, axis=0)
    ratio = np.std(errors, axis=0) / np.sqrt(np.diag(expected))
    # on the safe side, and the same for rotation in radians as for translation
    assert ratio.min() > 0.45 and ratio.max() < 1.0
    assert ratio[:3].mean() == pytest.approx(ratio[3:].mean(), rel=0.15)
    # turning about y and moving along x look alike: the errors are correlated
    found_correlation = np.corrcoef(np.transpose(errors))[1, 3]
    deviation = np.sqrt(np.diag(expected))
    told_correlation = (expected / np.outer(deviation, deviation))[1, 3]
    assert abs(told_correlation) > 0.5
    assert found_correlation == pytest.approx(told_correlation, abs=0.2)
    spread = np.sqrt(np.var(centres, axis=0).sum())
    assert spread / np.mean(deviations) == pytest.approx(ratio.mean(), rel=0.25)


def test_covariance_of_a_rig_turns_into_that_of_its_camera() -> None:
    cam_from_rig = pycolmap.Rigid3d(
        pycolmap.Rotation3d(Rotation.from_rotvec([0.5, -1.0, 0.3]).as_quat()),
        np.array([0.4, 0.1, -0.2]),
    )
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6))
    steps = 1e-4 * rng.normal(size=(500, 6)) @ mixing.T
    moved = []
    for step in steps:
        turn = Rotation.from_rotvec(step[:3])
        turn *= Rotation.from_quat(CAM_FROM_WORLD.rotation.quat)
        rig = pycolmap.Rigid3d(
            pycolmap.Rotation3d(turn.as_quat()), CAM_FROM_WORLD.translation + step[3:]
        )
        moved.append(tangent(cam_from_rig * rig, cam_from_rig * CAM_FROM_WORLD))
    of_rig = np.cov(steps.T)
    np.testing.assert_allclose(
        camera_covariance(of_rig, cam_from_rig),
        np.cov(np.transpose(moved)),
        atol=2e-3 * of_rig.max(),
    )


def test_a_rig_that_sees_to_both_sides_is_found() -> None:
    sideways = pycolmap.Rigid3d(
        pycolmap.Rotation3d(Rotation.from_rotvec([0, np.pi / 2, 0]).as_quat()),
        np.array([0.1, 0.0, 0.0]),
    )
    views = []
    for seed, cam_from_rig in enumerate([pycolmap.Rigid3d(), sideways]):
        local = points_before_camera(30, seed)
        world = (cam_from_rig * CAM_FROM_WORLD).inverse() * local
        views.append(view(camera().img_from_cam(local), world, cam_from_rig))
    found = estimate_pose(views, CONFIG)
    assert found is not None
    np.testing.assert_allclose(
        tangent(found.rig_from_world, CAM_FROM_WORLD), 0, atol=1e-6
    )
    assert [mask.all() for mask in found.inliers] == [True, True]


def test_the_same_input_gives_the_same_pose_and_leaves_cameras_alone() -> None:
    rng = np.random.default_rng(0)
    local = points_before_camera(100)
    xy = camera().img_from_cam(local) + rng.normal(0, 1, (100, 2))
    xy[:50] = rng.uniform(0, 800, (50, 2))
    points = CAM_FROM_WORLD.inverse() * local
    given = view(xy, points)
    poses = [estimate_pose([given], CONFIG) for _ in range(2)]
    first, second = (pose for pose in poses if pose is not None)
    assert first.rig_from_world.matrix().tolist() == (
        second.rig_from_world.matrix().tolist()
    )
    assert given.image.camera.params.tolist() == [900.0, 500.0, 400.0]


@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_points_that_determine_no_pose_give_none(count: int) -> None:
    on_a_line = np.linspace(0, 1, count)[:, None] * [1, 0.5, 0.2] + [0, 0, 5]
    xy = camera().img_from_cam(on_a_line) if count else np.zeros((0, 2))
    assert estimate_pose([view(np.asarray(xy), on_a_line)], CONFIG) is None


def test_inliers_count_distinct_points_and_distinct_keypoints() -> None:
    def counted(keypoints: list[int], points: list[int], mask: list[bool]) -> int:
        given = dataclasses.replace(
            view(np.zeros((0, 2)), np.zeros((0, 3))),
            correspondences=Correspondences(
                keypoints=np.array(keypoints, int), points=np.array(points, int)
            ),
        )
        return count_inliers([given], [np.array(mask, bool)])

    assert counted([0, 1, 2], [5, 6, 7], [True, True, False]) == 2
    assert counted([0, 1, 2], [5, 5, 5], [True] * 3) == 1
    assert counted([0, 0, 1], [5, 6, 7], [True] * 3) == 2
    assert counted([], [], []) == 0
