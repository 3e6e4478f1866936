"""Epipolar and pose errors of a scene that is known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.evaluation.pair_poses import (
    epipolar_errors,
    evaluate_pair_pose,
    relative_pose_errors,
)
from r2d2_kapture.evaluation.posed_images import PosedImage
from tests.scenes.features import features_at
from tests.scenes.two_views import (
    DISTORTED,
    PINHOLE,
    posed_image,
    seen_by,
    space_points,
)

RANSAC = {"ransac_error": 2.0, "seed": 0}


def two_views(model: tuple[str, list[float]]) -> tuple[PosedImage, PosedImage]:
    return (
        posed_image("a", (0.02, -0.03, 0.01), (0.1, 0, 0.2), model),
        posed_image("b", (-0.05, 0.12, 0.04), (-0.7, 0.1, 0.3), model),
    )


@pytest.mark.parametrize("model", [PINHOLE, DISTORTED])
def test_exact_matches_lie_on_their_epipolar_lines_and_give_the_true_pose(
    model: tuple[str, list[float]],
) -> None:
    first, second = two_views(model)
    points = space_points(100)
    errors = epipolar_errors(
        first, second, seen_by(first, points), seen_by(second, points)
    )
    assert errors.shape == (100,)
    assert errors.max() < 1e-3
    rotation, translation = relative_pose_errors(
        first, second, seen_by(first, points), seen_by(second, points), **RANSAC
    )
    assert rotation < 0.01
    assert translation < 0.1


def test_the_error_is_the_distance_across_the_line() -> None:
    # a sideways step: epipolar lines are the rows of both images
    first, second = posed_image("a"), posed_image("b", translation=(-1, 0, 0))
    points = space_points(20)
    seen1, seen2 = seen_by(first, points), seen_by(second, points)
    moved = seen2 + np.float32([[5, 3]])
    errors = epipolar_errors(first, second, seen1, moved)
    np.testing.assert_allclose(errors, 3, atol=1e-3)
    swapped = epipolar_errors(second, first, moved, seen1)
    np.testing.assert_allclose(swapped, errors)
    # straight ahead: the epipole is the principal point of both
    first, second = posed_image("a"), posed_image("b", translation=(0, 0, -1))
    middle = np.float32([[319.5, 239.5]])
    assert epipolar_errors(first, second, middle, middle).tolist() == [math.inf]


def test_the_error_is_the_mean_over_both_images() -> None:
    # image 2 has half the focal length: 2 pixels there are 4 pixels in image 1
    half = ("PINHOLE", [250.0, 255.0, 160.0, 120.0])
    first = posed_image("a")
    second = posed_image("b", translation=(-1, 0, 0), model=half)
    points = space_points(20)
    moved = seen_by(second, points) + np.float32([[0, 2]])
    errors = epipolar_errors(first, second, seen_by(first, points), moved)
    np.testing.assert_allclose(errors, (2 + 4) / 2, atol=1e-3)


def test_errors_are_the_angles_to_the_truth() -> None:
    first, second = two_views(PINHOLE)
    points = space_points(100)
    seen1, seen2 = seen_by(first, points), seen_by(second, points)
    # the truth is turned away by 7 degrees about the axis of the second camera
    turned = posed_image("c", (0, 0, math.radians(7)))
    pose = turned.cam_from_world * second.cam_from_world
    other = PosedImage(
        name="b", path=second.path, camera=second.camera, cam_from_world=pose
    )
    rotation, translation = relative_pose_errors(first, other, seen1, seen2, **RANSAC)
    assert rotation == pytest.approx(7, abs=0.01)
    true, moved = (
        (image.cam_from_world * first.cam_from_world.inverse()).translation
        for image in (second, other)
    )
    cosine = true @ moved / np.linalg.norm(true) / np.linalg.norm(moved)
    assert translation == pytest.approx(np.degrees(np.arccos(cosine)), abs=0.1)


def test_opposite_directions_are_one() -> None:
    first, second = posed_image("a"), posed_image("b", translation=(-1, 0, 0))
    backwards = posed_image("b", translation=(1, 0, 0))
    points = space_points(100)
    _, translation = relative_pose_errors(
        first, backwards, seen_by(first, points), seen_by(second, points), **RANSAC
    )
    assert translation < 0.1


def test_pairs_without_enough_matches_have_no_pose() -> None:
    first, second = two_views(PINHOLE)
    few = seen_by(first, space_points(3))
    assert relative_pose_errors(first, second, few, few, **RANSAC) == (
        math.inf,
        math.inf,
    )
    none = features_at(np.empty((0, 2)))
    result = evaluate_pair_pose(first, second, none, none, **RANSAC)
    assert (result.matches, result.epipolar) == (0, (0, 0, 0))
    assert result.pose_error == math.inf
    short, long = features_at([[1, 1]]), features_at([[1, 1]], np.ones((1, 128)))
    with pytest.raises(FeatureFormatError, match="'a' and 'b': found 1 and 128"):
        evaluate_pair_pose(first, second, short, long, **RANSAC)


def test_a_pair_with_wrong_matches() -> None:
    first, second = two_views(DISTORTED)
    points = space_points(80)
    seen1, seen2 = seen_by(first, points), seen_by(second, points)
    seen2[:20] = np.random.default_rng(1).uniform(0, 480, (20, 2))
    result = evaluate_pair_pose(
        first, second, features_at(seen1), features_at(seen2), **RANSAC
    )
    assert (result.image1, result.image2) == ("a", "b")
    assert (result.features, result.matches) == ((80, 80), 80)
    assert 0.75 <= result.epipolar[0] <= result.epipolar[2] < 0.85
    assert result.pose_error == max(result.rotation_error, result.translation_error)
    assert result.pose_error < 1
    assert result.values["epipolar@1"] == result.epipolar[0]


def noisy_errors(**options: float) -> tuple[float, float]:
    """Pose errors from matches that are 3 pixels off, so that sampling matters."""
    first, second = two_views(PINHOLE)
    points, rng = space_points(60), np.random.default_rng(4)
    seen1, seen2 = seen_by(first, points), seen_by(second, points)
    seen2 = seen2 + rng.normal(0, 3, seen2.shape).astype(np.float32)
    return relative_pose_errors(first, second, seen1, seen2, **{**RANSAC, **options})


def test_the_seed_decides_the_sampling() -> None:
    by_seed = [noisy_errors(seed=seed, ransac_error=1.0) for seed in range(5)]
    assert len(set(by_seed)) > 1
    assert noisy_errors(seed=3, ransac_error=1.0) == by_seed[3]


def test_inliers_are_what_the_error_allows() -> None:
    by_error = [noisy_errors(ransac_error=error) for error in (0.5, 1.0, 4.0, 12.0)]
    assert len(set(by_error)) == 4
    # all matches together know the pose better than a few that agree by chance
    assert max(by_error[3]) < max(by_error[0])
