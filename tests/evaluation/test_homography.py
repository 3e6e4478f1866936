"""Accuracy on pairs whose truth is known by construction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.evaluation.homography import evaluate_sequence
from r2d2_kapture.evaluation.sequences import HomographySequence
from r2d2_kapture.types import LocalFeatures
from tests.scenes.features import features_at
from tests.scenes.two_views import H_2_FROM_1, displaced_pair

Displaced = tuple[LocalFeatures, LocalFeatures, np.ndarray]


@pytest.fixture
def displaced() -> Displaced:
    return displaced_pair(np.random.default_rng(0))


def test_evaluate_sequence(displaced: Displaced) -> None:
    first, second, displacements = displaced
    by_path = {
        Path("1.png"): first,
        Path("2.png"): second,
        Path("3.png"): features_at(np.empty((0, 2)), np.empty((0, 16))),
    }
    sequence = HomographySequence(
        name="v_wall", images=tuple(by_path), homographies=(H_2_FROM_1, np.eye(3))
    )
    near, empty = evaluate_sequence(sequence, by_path.__getitem__)
    assert (near.sequence, near.kind, near.image) == ("v_wall", "viewpoint", 2)
    assert (near.features, near.matches) == ((10, 10), 10)
    np.testing.assert_allclose(near.mma, np.arange(1, 11) / 10)
    np.testing.assert_allclose(near.repeatability[[0, 9]], [0.1, 1.0])
    assert 0 < near.corner_error < 100
    np.testing.assert_array_equal(near.points1, first.keypoints)
    np.testing.assert_allclose(near.errors, displacements, atol=1e-4)
    assert (empty.image, empty.features, empty.matches) == (3, (10, 0), 0)
    for metric in (empty.mma, empty.repeatability, empty.matching_score):
        np.testing.assert_array_equal(metric, np.zeros(10))
    assert empty.corner_error == np.inf
    sequence = HomographySequence(
        name="i_lamp", images=(Path("1"), Path("2")), homographies=(H_2_FROM_1,)
    )
    features = {Path("1"): first, Path("2"): second}
    (result,) = evaluate_sequence(sequence, features.__getitem__, thresholds=(1, 3))
    np.testing.assert_allclose(result.mma, [0.1, 0.3])


def test_each_image_is_asked_for_once(displaced: Displaced) -> None:
    asked = []

    def features(path: Path) -> LocalFeatures:
        asked.append(path.name)
        return displaced[0]

    sequence = HomographySequence(
        name="i_lamp",
        images=(Path("1"), Path("2"), Path("3")),
        homographies=(np.eye(3), np.eye(3)),
    )
    evaluate_sequence(sequence, features)
    assert asked == ["1", "2", "3"]


def test_images_whose_descriptors_differ_are_named(displaced: Displaced) -> None:
    sequence = HomographySequence(
        name="i_lamp", images=(Path("i/1"), Path("i/2")), homographies=(np.eye(3),)
    )
    other = features_at([[1, 1]], np.ones((1, 128)))
    features = {Path("i/1"): displaced[0], Path("i/2"): other}
    with pytest.raises(FeatureFormatError, match="'i/1' and 'i/2': found 16 and 128"):
        evaluate_sequence(sequence, features.__getitem__)
