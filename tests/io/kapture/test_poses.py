"""A pose means the same in kapture and in pycolmap, and a partial one is none."""

from __future__ import annotations

import kapture
import numpy as np
import pycolmap
import pytest

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.kapture.poses import kapture_from_rigid3d, rigid3d_from_kapture
from tests.scenes.poses import assert_same_pose, random_poses

POINTS = np.random.default_rng(0).normal(size=(10, 3))


def test_points_go_the_same_way():
    pose = kapture.PoseTransform(r=[0.5, -0.5, 0.5, 0.5], t=[1.0, 2.0, 3.0])
    rigid3d = rigid3d_from_kapture(pose)
    np.testing.assert_allclose(
        rigid3d * POINTS, pose.transform_points(POINTS), atol=1e-12
    )


def test_there_and_back_keeps_every_digit():
    for pose in random_poses("abc").values():
        there = kapture_from_rigid3d(pose)
        assert there.r_raw == pose.rotation.quat[[3, 0, 1, 2]].tolist()
        assert there.t_raw == pose.translation.tolist()
        assert_same_pose(rigid3d_from_kapture(there), pose, atol=1e-15)


def test_any_length_of_a_quaternion_is_the_same_rotation():
    long = kapture.PoseTransform(r=[3.0, 0.0, 4.0, 0.0], t=[0.0, 0.0, 0.0])
    unit = pycolmap.Rotation3d(np.array([0.0, 0.8, 0.0, 0.6]))
    found = rigid3d_from_kapture(long).rotation
    np.testing.assert_allclose(found.matrix(), unit.matrix(), atol=1e-15)


@pytest.mark.parametrize("part", [{"r": None}, {"t": None}, {"r": None, "t": None}])
def test_a_partial_pose_is_none(part):
    assert rigid3d_from_kapture(kapture.PoseTransform(**part)) is None


@pytest.mark.parametrize(
    "rotation, translation",
    [
        ([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([np.inf, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([1.0, 0.0, 0.0, 0.0], [0.0, np.inf, 0.0]),
    ],
)
def test_what_is_no_pose_is_refused(rotation, translation):
    pose = kapture.PoseTransform(r=rotation, t=translation)
    with pytest.raises(DatasetError, match="camera 7: found rotation"):
        rigid3d_from_kapture(pose, "camera 7")
