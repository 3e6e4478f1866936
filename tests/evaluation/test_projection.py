"""Points that homographies map to known places."""

from __future__ import annotations

import numpy as np

from r2d2_kapture.evaluation.projection import (
    project,
    shared_region,
    transfer_errors,
)
from tests.scenes.features import features_at
from tests.scenes.two_views import H_2_FROM_1


def translation(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def test_the_scale_and_sign_of_a_homography_do_not_matter() -> None:
    points = np.random.default_rng(0).uniform(0, 400, (5, 2))
    expected = [
        (H_2_FROM_1 @ [x, y, 1])[:2] / (H_2_FROM_1 @ [x, y, 1])[2] for x, y in points
    ]
    np.testing.assert_allclose(project(points, H_2_FROM_1), expected)
    np.testing.assert_allclose(project(points, -3 * H_2_FROM_1), expected)


def test_points_at_infinity_are_infinitely_wrong_and_not_shared() -> None:
    points = np.array([[1.0, 0], [2, 0]])
    homography = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, -1]])
    assert np.isinf(project(points, homography)[0]).all()
    np.testing.assert_array_equal(
        transfer_errors(points, points, homography), [np.inf, 0]
    )
    homography = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, -1]])
    features = features_at([[1, 0], [2, 0]])
    assert shared_region(features, features, homography).in_1.tolist() == [False, True]


def test_the_shared_region_reaches_to_the_outer_borders_of_pixels() -> None:
    # image 2 is image 1 moved 10 pixels to the left, both 20 x 8
    first = features_at(
        [[9.4, 0], [9.5, -0.4], [19, 7.5], [19, 7.6]], image_size=(20, 8)
    )
    second = features_at([[9.5, 3], [9.6, 3], [-0.5, 3]], image_size=(20, 8))
    region = shared_region(first, second, translation(-10, 0))
    assert region.in_1.tolist() == [False, True, True, False]
    assert region.in_2.tolist() == [True, False, True]


def test_no_points() -> None:
    none = features_at(np.empty((0, 2)))
    region = shared_region(none, none, H_2_FROM_1)
    assert region.in_1.shape == region.in_2.shape == (0,)
    assert transfer_errors(np.empty((0, 2)), np.empty((0, 2)), H_2_FROM_1).size == 0
