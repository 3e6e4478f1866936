"""Repeatability of keypoints placed so that it is known."""

from __future__ import annotations

import numpy as np
import pytest

from r2d2_kapture.evaluation.repeatability import closest_pairs, repeatability
from tests.scenes.features import features_at


@pytest.mark.parametrize("seed", range(5))
def test_closest_pairs_equal_plain_greedy_choice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.uniform(0, 30, (40, 2)), rng.uniform(0, 30, (55, 2))
    distances = np.linalg.norm(first[:, None] - second, axis=2)
    expected = []
    while distances.min() <= 4:
        i, j = np.unravel_index(distances.argmin(), distances.shape)
        expected.append(distances[i, j])
        distances[i], distances[:, j] = np.inf, np.inf
    found = closest_pairs(first, second, 4.0)
    np.testing.assert_allclose(found, expected)
    smaller = closest_pairs(first, second, 1.5)
    np.testing.assert_allclose(smaller, found[found <= 1.5])


def test_two_detections_of_one_corner_are_one_correspondence() -> None:
    first, second = np.array([[5.0, 5]]), np.array([[5.0, 5], [5, 5.1]])
    np.testing.assert_allclose(closest_pairs(first, second, 3), [0])
    assert len(closest_pairs(second, second, 3)) == 2
    far = np.array([[500.0, 500]])
    assert closest_pairs(far, np.zeros((3, 2)), 3).size == 0


def test_the_smaller_number_of_detections_is_the_whole() -> None:
    first = features_at([[10, 10], [20, 10], [30, 10], [40, 10]])
    second = features_at([[10.5, 10], [20, 12]])
    values = repeatability(first, second, np.eye(3), [0.4, 1, 3])
    np.testing.assert_allclose(values, [0, 1 / 2, 2 / 2])
    some, none = features_at([[1, 1]]), features_at(np.empty((0, 2)))
    np.testing.assert_array_equal(repeatability(some, none, np.eye(3), [3]), [0])
    np.testing.assert_array_equal(repeatability(none, none, np.eye(3), [3]), [0])


def test_only_the_shared_region_counts() -> None:
    # image 2 sees the right half of image 1
    shift = np.array([[1.0, 0, -50], [0, 1, 0], [0, 0, 1]])
    first = features_at([[10, 5], [20, 5], [60, 5]], image_size=(100, 10))
    second = features_at([[10, 5], [70, 5], [80, 5]], image_size=(100, 10))
    np.testing.assert_allclose(repeatability(first, second, shift, [1]), [1.0])


def test_the_mean_of_both_directions() -> None:
    # image 2 is twice as large: an error of 2 pixels there is 1 pixel in image 1
    double = np.diag([2.0, 2.0, 1.0])
    first = features_at([[10, 10]], image_size=(50, 50))
    second = features_at([[22, 20]], image_size=(100, 100))
    values = repeatability(first, second, double, [0.9, 1.5, 2.5])
    np.testing.assert_allclose(values, [0, 0.5, 1])
    swapped = repeatability(second, first, np.linalg.inv(double), [0.9, 1.5, 2.5])
    np.testing.assert_allclose(swapped, values)
