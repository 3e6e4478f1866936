"""Homographies estimated from matches whose error is known."""

from __future__ import annotations

import numpy as np
import pytest

from r2d2_kapture.evaluation.homography_accuracy import corner_error
from r2d2_kapture.evaluation.projection import project
from tests.scenes.two_views import H_2_FROM_1

OPTIONS = {"image_size1": (640, 480), "max_error": 3.0, "seed": 0}


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 480, (200, 2))


def test_offsets_are_errors_and_outliers_are_left_out(points: np.ndarray) -> None:
    exact = project(points, H_2_FROM_1)
    assert corner_error(points, exact, H_2_FROM_1, **OPTIONS) < 1e-6
    error = corner_error(points, exact + [3.0, -4.0], H_2_FROM_1, **OPTIONS)
    assert error == pytest.approx(5.0, abs=1e-6)
    for few in (points[:0], points[:3]):
        assert corner_error(few, few, np.eye(3), **OPTIONS) == np.inf
    exact[::2] = np.random.default_rng(2).uniform(0, 480, (100, 2))
    assert corner_error(points, exact, H_2_FROM_1, **OPTIONS) < 1e-3


def test_the_seed_alone_decides_the_sampling(points: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    matched = project(points, H_2_FROM_1) + rng.normal(0, 3, points.shape)
    options = {**OPTIONS, "max_error": 1.0}
    errors = [
        corner_error(points, matched, H_2_FROM_1, **{**options, "seed": seed})
        for seed in (0, 0, 0, 1, 2, 3, 4)
    ]
    assert len(set(errors[:3])) == 1 and len(set(errors)) > 1


def test_the_corners_are_the_centres_of_the_corner_pixels() -> None:
    points = np.random.default_rng(1).uniform(0, 480, (50, 2))
    # x doubled: corners at x = 0 stay, those at x = 639 move by 639
    doubled = np.diag([2.0, 1.0, 1.0])
    error = corner_error(points, points, doubled, **OPTIONS)
    assert error == pytest.approx(639 / 2, abs=1e-6)


def test_inliers_are_what_the_error_allows(points: np.ndarray) -> None:
    # a third of the matches agree on a place 10 pixels away from the others
    matched = project(points, H_2_FROM_1)
    matched[::3] += [6.0, 8.0]
    few, all_of_them = (
        corner_error(points, matched, H_2_FROM_1, **{**OPTIONS, "max_error": error})
        for error in (1.0, 20.0)
    )
    assert few < 1e-3
    assert 1 < all_of_them < 10
