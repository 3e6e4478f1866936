"""Relative poses of a scene that is known exactly, from matches with outliers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pycolmap
import pytest

from r2d2_kapture.coordinates import colmap_from_kapture
from r2d2_kapture.evaluation.matched_points import ransac_options
from r2d2_kapture.evaluation.relative_pose import estimate_relative_pose
from tests.scenes.two_views import (
    DISTORTED,
    PINHOLE,
    posed_image,
    seen_by,
    space_points,
)

Array = npt.NDArray[np.float64]

FIRST = posed_image("a", (0.02, -0.03, 0.01), (0.1, 0, 0.2), DISTORTED)
SECOND = posed_image("b", (-0.05, 0.12, 0.04), (-0.7, 0.1, 0.3), PINHOLE)
CAMERAS = FIRST.camera, SECOND.camera
TRUE = SECOND.cam_from_world * FIRST.cam_from_world.inverse()


def matches(outliers: float, noise: float, seed: int) -> tuple[Array, Array]:
    """Matched pixels in COLMAP's origin; outliers are anywhere in image 2."""
    rng = np.random.default_rng(seed)
    points = space_points(300)
    seen1, seen2 = (
        colmap_from_kapture(seen_by(image, points).astype(np.float64))
        for image in (FIRST, SECOND)
    )
    seen2 = seen2 + rng.normal(0, noise, seen2.shape)
    wrong = rng.permutation(300)[: round(300 * outliers)]
    seen2[wrong] = rng.uniform(0, 480, (len(wrong), 2))
    return seen1, seen2


def error(found: pycolmap.Rigid3d) -> float:
    """The larger angle in degrees to the true rotation and direction."""
    turn = (found.rotation * TRUE.rotation.inverse()).angle()
    across = float(np.linalg.norm(np.cross(found.translation, TRUE.translation)))
    direction = np.arcsin(across / np.linalg.norm(TRUE.translation))
    return float(np.degrees(max(turn, direction)))


def test_exact_matches_give_the_exact_pose() -> None:
    found = estimate_relative_pose(CAMERAS, *matches(0.3, 0, 0), max_error=1, seed=0)
    assert found is not None
    assert error(found) < 1e-2
    assert np.linalg.norm(found.translation) == pytest.approx(1)


def test_it_is_nearer_to_the_truth_than_one_search() -> None:
    errors = []
    for seed in range(6):
        points1, points2 = matches(0.5, 1, seed)
        found = estimate_relative_pose(
            CAMERAS, points1, points2, max_error=1, seed=seed
        )
        one = pycolmap.estimate_essential_matrix(
            points1, points2, *CAMERAS, ransac_options(1, seed)
        )
        assert found is not None
        errors.append((error(found), error(one["cam2_from_cam1"])))
    ours, searched = np.mean(errors, axis=0)
    assert ours < 0.85 * searched


def test_no_pose_of_too_few_matches() -> None:
    few = np.array([[10.0, 20], [300, 40], [200, 400]])
    assert estimate_relative_pose(CAMERAS, few, few, max_error=1, seed=0) is None
