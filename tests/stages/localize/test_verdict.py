"""Poses that cannot be relied on are told from those that can."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.stages.localize.pose_estimation import View, estimate_pose
from r2d2_kapture.stages.localize.results import result_path
from r2d2_kapture.stages.localize.verdict import coverage, pose_doubts
from tests.scenes.localization import LocalizationScene
from tests.stages.localize.test_localize import poses_of, record
from tests.stages.localize.test_pose_estimation import (
    CAM_FROM_WORLD,
    Array,
    camera,
    points_before_camera,
    view,
)

CONFIG = LocalizeConfig()


def seen(local: Array, noise: float = 0.5) -> View:
    """A noisy view of points, which are given in the frame of the camera."""
    xy = camera().img_from_cam(local)
    xy += np.random.default_rng(1).normal(0, noise, xy.shape)
    return view(xy, CAM_FROM_WORLD.inverse() * local)


def with_outliers(of: View, count: int) -> View:
    """The same, with correspondences at random before it."""
    rng = np.random.default_rng(2)
    xy = rng.uniform(0, [1000, 800], (count, 2))
    points = CAM_FROM_WORLD.inverse() * points_before_camera(count, seed=3)
    return view(np.concatenate([xy, of.xy]), np.concatenate([points, of.points]))


def doubts(of: View, extent: float = 10.0) -> str:
    pose = estimate_pose([of], CONFIG)
    assert pose is not None
    return "; ".join(pose_doubts([of], pose, extent, CONFIG))


@pytest.mark.parametrize("outliers", [0, 80, 300])
def test_points_all_over_the_image_make_a_good_pose(outliers: int) -> None:
    assert doubts(with_outliers(seen(points_before_camera(100)), outliers)) == ""


def test_a_few_points_are_enough_only_where_nothing_contradicts() -> None:
    assert doubts(seen(points_before_camera(20))) == ""
    assert "inliers of 80 correspondences, expected at least 30" in doubts(
        with_outliers(seen(points_before_camera(20), noise=0), 60)
    )


def test_inliers_in_a_corner_are_doubtful() -> None:
    local = points_before_camera(40) * [0.1, 0.1, 1] + [-2, -1.6, 0]
    assert "inliers cover 1.2 % of the image" in doubts(seen(local))


def test_a_deviation_is_measured_by_the_scene_or_the_map() -> None:
    # 60 units away, hardly any depth, and in a small part of the image
    local = points_before_camera(60) * [3, 3, 0.1] + [0, 0, 60]
    assert "position deviation" in doubts(seen(local))
    far = points_before_camera(100) * [20, 20, 20]
    assert doubts(seen(far), extent=50.0) == ""
    assert "position deviation" in doubts(seen(far), extent=0.5)


def test_a_scene_that_repeats_itself_is_doubtful() -> None:
    """Half of the keypoints show the points from one place, half from another."""
    local = points_before_camera(160)
    elsewhere = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([0.7, 0, 0]))
    xy = camera().img_from_cam(local)
    xy[90:] = camera().img_from_cam(elsewhere * local[90:])
    both = view(xy, CAM_FROM_WORLD.inverse() * local)
    assert "another pose has 70 inliers" in doubts(both)
    some = view(xy[:120], both.points[:120])
    assert doubts(some) == ""


def test_coverage_is_a_share_of_the_image() -> None:
    grid = np.stack(np.meshgrid(np.arange(1000), np.arange(800)), axis=-1)[::8, ::8]
    xy = grid.reshape(-1, 2).astype(np.float64)
    everywhere = view(xy, np.zeros((len(xy), 3)))
    assert coverage(everywhere, xy[:, 0] >= 0) == pytest.approx(1, rel=0.02)
    assert coverage(everywhere, xy[:, 0] < 500) == pytest.approx(0.5, rel=0.02)
    assert coverage(everywhere, xy[:, 0] == 8) == 0
    assert coverage(everywhere, xy[:, 0] < 0) == 0


def test_a_pose_that_inliers_do_not_determine_is_doubtful() -> None:
    pose = estimate_pose([seen(points_before_camera(100))], CONFIG)
    assert pose is not None
    pose = dataclasses.replace(pose, covariance=None)
    told = pose_doubts([seen(points_before_camera(100))], pose, 10.0, CONFIG)
    assert "position deviation inf" in "; ".join(told)


def test_doubtful_poses_are_written_counted_apart_and_listed(tmp_path: Path) -> None:
    scene = LocalizationScene(tmp_path)
    name = scene.queries[2]
    xy = scene.scene.keypoints(name)[:, :2]
    middle = np.argsort(np.linalg.norm(xy - np.median(xy, axis=0), axis=1))[:16]
    for image in scene.mapped:
        rows = np.column_stack([scene.rows[name], scene.rows[image]])[middle]
        scene.replace_matches(name, image, rows)
    config = LocalizeConfig(rigs="off", doubt_coverage=0.1)
    for fresh in (True, False):
        report = scene.run(config)
        assert report.done == (3 if fresh else 0)
        assert report.failed == ()
        assert report.details["localized"] == 2
        assert report.details["doubtful"] == 1
        (warning,) = report.warnings
        assert name in warning and "1 of the written poses are doubtful" in warning
    assert sorted(poses_of(scene)) == scene.queries
    written = record(scene, name)
    assert written["verdict"] == "doubtful"
    assert written["status"] == "localized"
    assert "% of the image" in written["doubts"][0]
    assert record(scene, scene.queries[0])["verdict"] == "good"
    assert record(scene, scene.queries[0])["doubts"] == []


def test_doubtful_poses_are_listed_in_order_of_names_resumed_or_not(
    tmp_path: Path,
) -> None:
    scene = LocalizationScene(tmp_path)
    config = LocalizeConfig(rigs="off", doubt_coverage=1.0)
    (unbroken,) = scene.run(config).warnings
    for name in scene.queries[:2]:
        result_path(scene.root / "output", name).unlink()
        (resumed,) = scene.run(config).warnings
        assert resumed == unbroken
    places = [unbroken.index(f"'{name}'") for name in sorted(scene.queries)]
    assert places == sorted(places)
    with pytest.raises(ConfigError, match="--doubt-rival: found -1"):
        LocalizeConfig(doubt_rival=-1)
