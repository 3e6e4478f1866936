"""VLAD: analytic small cases, seeds, whitening."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from r2d2_kapture.matching.vlad import (
    Vocabulary,
    learn_centres,
    learn_whitening,
    vlad,
)
from tests.scenes.features import unit_rows

CENTRES = np.array([[0, 0], [10, 0]], np.float32)


def test_residuals_of_each_word_in_its_place_by_their_square_roots() -> None:
    descriptors = np.array([[0, 4], [0, 5], [10, -1]], np.float32)
    # word 0: (0, 9) -> (0, 3) -> (0, 1); word 1: (0, -1); the whole by sqrt 2
    np.testing.assert_allclose(
        vlad(descriptors, CENTRES), np.array([0, 1, 0, -1]) / np.sqrt(2), atol=1e-6
    )
    descriptors = np.array([[4, 1]], np.float32)
    np.testing.assert_allclose(
        vlad(descriptors, CENTRES), np.array([2, 1, 0, 0]) / np.sqrt(5), atol=1e-6
    )


def test_order_of_descriptors_does_not_matter() -> None:
    rows, centres = unit_rows(200, seed=1), unit_rows(8, seed=2)
    np.testing.assert_allclose(
        vlad(rows[::-1], centres), vlad(rows, centres), atol=1e-5
    )


def test_no_descriptor_gives_zeros() -> None:
    vector = vlad(np.zeros((0, 2), np.float32), CENTRES)
    assert vector.tolist() == [0, 0, 0, 0]
    whitening = learn_whitening(unit_rows(20, 4), 2, seed=0)
    vocabulary = Vocabulary(centres=CENTRES, whitening=whitening)
    described = vocabulary.describe(np.zeros((0, 2), np.float32))
    assert described.tolist() == [0, 0]
    assert described.dtype == np.float32


def test_centres_are_those_of_the_clusters() -> None:
    means = 10 * unit_rows(4, seed=3)
    rng = np.random.default_rng(0)
    rows = means[rng.integers(4, size=400)] + 0.01 * rng.normal(size=(400, 16))
    found = learn_centres(rows.astype(np.float32), 4, seed=0)
    nearest = np.linalg.norm(found[:, None] - means, axis=2)
    assert sorted(nearest.argmin(axis=1).tolist()) == [0, 1, 2, 3]
    assert nearest.min(axis=1).max() < 0.01
    found = learn_centres(unit_rows(5, seed=7), 5, seed=0)
    assert found.shape == (5, 16)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_same_seed_same_centres_whatever_the_threads(threads: int) -> None:
    rows = unit_rows(3000, seed=4)
    with threadpool_limits(threads):
        found = learn_centres(rows, 16, seed=5)
    np.testing.assert_array_equal(found, learn_centres(rows, 16, seed=5))
    assert not np.array_equal(found, learn_centres(rows, 16, seed=6))


def test_whitened_components_have_unit_variance_and_no_correlation() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(500, 6)) * [9, 5, 3, 1, 0.5, 0.1]) @ np.linalg.qr(
        rng.normal(size=(6, 6))
    )[0]
    whitening = learn_whitening(vectors.astype(np.float32), 4, seed=0)
    whitened = (vectors - whitening.mean) @ whitening.components.T
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(4), atol=0.02)


def test_whitened_descriptors_are_unit_rows() -> None:
    centres = unit_rows(4, seed=1)
    vectors = np.stack([vlad(unit_rows(30, seed=i), centres) for i in range(40)])
    vocabulary = Vocabulary(
        centres=centres, whitening=learn_whitening(vectors, 8, seed=0)
    )
    described = vocabulary.describe(unit_rows(30, seed=99))
    assert described.shape == (vocabulary.dim,) == (8,)
    assert np.linalg.norm(described) == pytest.approx(1, abs=1e-6)
    assert Vocabulary(centres=centres).dim == 4 * 16
