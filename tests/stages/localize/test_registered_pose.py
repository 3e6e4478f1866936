"""The loss of the last pose of a query, some of whose keypoints were registered."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.stages.localize.last_pose import Helpers, last_pose
from r2d2_kapture.stages.localize.pose_estimation import (
    FramePose,
    View,
    estimate_pose,
)
from r2d2_kapture.stages.localize.registration import RegisteredView, Registrar
from r2d2_kapture.stages.localize.solution import Solution
from tests.scenes.localization import position_error
from tests.scenes.projected import (
    CAM_FROM_WORLD,
    Array,
    camera,
    points_before_camera,
    view,
)

CONFIG = LocalizeConfig()
ASIDE = pycolmap.Rigid3d(
    pycolmap.Rotation3d(Rotation.from_rotvec([0, np.pi / 2, 0]).as_quat()),
    np.array([0.1, 0.0, 0.0]),
)
COUNT = 120


def noise(rng: np.random.Generator, pixels: float) -> Array:
    """(COUNT, 2) errors of so many pixels."""
    return np.asarray(rng.normal(0, pixels / np.sqrt(2), (COUNT, 2)))


def views_of(kind: str, seed: int) -> tuple[View, ...]:
    """Of a frame, with keypoints that are 1 px off."""
    rng = np.random.default_rng(seed)
    views = []
    for index, cam_from_rig in enumerate([pycolmap.Rigid3d(), ASIDE]):
        local = points_before_camera(COUNT, 2 * seed + index)
        world = (cam_from_rig * CAM_FROM_WORLD).inverse() * local
        xy = camera().img_from_cam(local) + noise(rng, 1.0)
        views.append(
            view(xy, world, cam_from_rig, "fixed" if kind != "unknown" else "estimated")
        )
    return tuple(views if kind == "rig" else views[:1])


def registered(
    views: Sequence[View], seed: int, share: float, left: float
) -> tuple[RegisteredView, ...]:
    """Registration of a share of the keypoints, to so many pixels."""
    rng = np.random.default_rng([seed, 1])
    moved = np.arange(round(share * COUNT))
    found = []
    for given in views:
        cam_from_world = given.image.cam_from_rig * CAM_FROM_WORLD
        exact = camera().img_from_cam(cam_from_world * given.points)
        xy = given.xy.copy()
        xy[moved] = (exact + noise(rng, left))[moved]
        found.append(
            RegisteredView(
                view=dataclasses.replace(given, xy=xy),
                registered=COUNT,
                moved=moved,
                steps=np.linalg.norm((xy - given.xy)[moved], axis=1),
            )
        )
    return tuple(found)


def last_and_alike(
    kind: str, seed: int, share: float, left: float, config: LocalizeConfig = CONFIG
) -> tuple[FramePose, FramePose]:
    """The last pose, and the one that takes all keypoints to be equally good."""
    views = views_of(kind, seed)
    found = registered(views, seed, share, left)
    first = estimate_pose(views, config)
    alike = estimate_pose([one.view for one in found], config)
    assert first is not None and alike is not None
    helpers = Helpers(registrar=cast(Registrar, lambda *_: found))
    solution = Solution(pose=first, views=views)
    return last_pose(helpers, solution, (), config).pose, alike


@pytest.mark.parametrize("kind", ["single", "rig", "unknown"])
def test_registered_keypoints_count_more_than_those_that_stayed(
    kind: str,
) -> None:
    errors: tuple[list[float], list[float]] = ([], [])
    for seed in range(8 if kind != "rig" else 4):
        both = last_and_alike(kind, seed, 0.4, 0.1)
        for pose, of_kind in zip(both, errors):
            of_kind.append(position_error(pose.rig_from_world, CAM_FROM_WORLD))
        last, alike = both
        assert last.covariance is not None and alike.covariance is not None
        # for keypoint errors of 1 px, whatever the loss
        np.testing.assert_array_equal(last.covariance, alike.covariance)
    assert np.median(errors[0]) < 0.6 * np.median(errors[1])


@pytest.mark.parametrize(
    ("share", "left", "config"),
    [
        pytest.param(0.1, 0.1, CONFIG, id="too few for a pose"),
        pytest.param(0.7, 0.9, CONFIG, id="no better than keypoints"),
        pytest.param(0.7, 0.1, LocalizeConfig(loss_scale=0.05), id="sharp already"),
    ],
)
def test_otherwise_all_keypoints_count_alike(
    share: float, left: float, config: LocalizeConfig
) -> None:
    last, alike = last_and_alike("single", 0, share, left, config)
    assert last.rig_from_world.matrix().tolist() == (
        alike.rig_from_world.matrix().tolist()
    )
