"""The matching score of pairs made so that it is known."""

from __future__ import annotations

import numpy as np

from r2d2_kapture.evaluation.matching_score import matching_score
from tests.scenes.features import features_at


def rows(count: int) -> np.ndarray:
    return np.column_stack([np.arange(count), np.arange(count)])


def test_a_perfect_pair_scores_one() -> None:
    features = features_at([[1, 1], [5, 7], [30, 40]])
    score = matching_score(features, features, rows(3), np.eye(3), [1, 3])
    np.testing.assert_allclose(score, [1, 1])


def test_features_outside_the_shared_region_do_not_count() -> None:
    # image 2 sees the right half of image 1: of four keypoints it can match two
    shift = np.array([[1.0, 0, -50], [0, 1, 0], [0, 0, 1]])
    first = features_at([[10, 5], [20, 5], [60, 5], [70, 5]], image_size=(100, 10))
    second = features_at([[10, 5], [20, 5], [80, 5]], image_size=(100, 10))
    matches = np.array([[2, 0], [3, 1], [0, 2]])
    score = matching_score(first, second, matches, shift, [1])
    # both directions: 2 correct of 2 shared; the third match is of no shared keypoint
    np.testing.assert_allclose(score, [1.0])


def test_unmatched_features_lower_each_direction_on_its_own() -> None:
    first = features_at([[10, 5], [20, 5], [30, 5], [40, 5]])
    second = features_at([[10, 5], [20, 5]])
    score = matching_score(first, second, rows(1), np.eye(3), [1])
    # 1 of 4 from image 1 to image 2, 1 of 2 back
    np.testing.assert_allclose(score, [(1 / 4 + 1 / 2) / 2])


def test_errors_are_measured_in_the_image_that_is_matched_to() -> None:
    # image 2 is twice as large: an error of 2 pixels there is 1 pixel in image 1
    double = np.diag([2.0, 2.0, 1.0])
    first = features_at([[10, 10]], image_size=(50, 50))
    second = features_at([[22, 20]], image_size=(100, 100))
    score = matching_score(first, second, rows(1), double, [0.9, 1.5, 2.5])
    np.testing.assert_allclose(score, [0, 0.5, 1])


def test_nothing_shared_or_nothing_matched_scores_zero() -> None:
    far = np.array([[1.0, 0, -5000], [0, 1, 0], [0, 0, 1]])
    features = features_at([[1, 1], [5, 7]])
    none = np.empty((0, 2), dtype=np.int64)
    np.testing.assert_array_equal(
        matching_score(features, features, rows(2), far, [3]), [0]
    )
    np.testing.assert_array_equal(
        matching_score(features, features, none, np.eye(3), [3]), [0]
    )
    empty = features_at(np.empty((0, 2)))
    np.testing.assert_array_equal(
        matching_score(features, empty, none, np.eye(3), [3]), [0]
    )


def test_a_near_match_of_a_keypoint_outside_the_region_does_not_count() -> None:
    # it projects 2 pixels beside image 2, within 3 of its match at the border
    shift = np.array([[1.0, 0, -50], [0, 1, 0], [0, 0, 1]])
    first = features_at([[48, 5], [60, 5]], image_size=(100, 10))
    second = features_at([[0, 5], [10, 5]], image_size=(100, 10))
    score = matching_score(first, second, rows(2), shift, [1, 3])
    # 1 of 1 from image 1; 1 and 2 of 2 from image 2
    np.testing.assert_allclose(score, [(1 + 1 / 2) / 2, 1.0])
