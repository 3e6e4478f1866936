"""Affinities from the neighbours of matches, and where these say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from r2d2_kapture.refinement.frames import local_affinities, scale_frames


def turn(degrees: float, zoom: float = 1.0) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return zoom * np.array([[cos, -sin], [sin, cos]])


def test_frames_are_pixels_of_the_level() -> None:
    frames = scale_frames(np.array([32, 64, 0], np.float32))
    np.testing.assert_array_equal(frames, [np.eye(2), 2 * np.eye(2), np.eye(2)])


@pytest.mark.parametrize("wrong", [0.0, 0.4])
@pytest.mark.parametrize(
    "affinity",
    [
        np.eye(2),
        turn(90, 1.2),
        turn(-30, 0.7),
        turn(180),
        np.array([[0.6, 0.1], [0.0, 1.1]]),
    ],
)
def test_neighbours_give_the_affinity(affinity: np.ndarray, wrong: float) -> None:
    random = np.random.default_rng(0)
    points = random.uniform(0, 500, (400, 2))
    mapped = points @ affinity.T + [5.0, 7.0] + random.normal(0, 0.5, points.shape)
    astray = random.random(len(points)) < wrong
    mapped[astray] = random.uniform(0, 500, (astray.sum(), 2))
    sides = np.full(len(points), 32.0)
    zoomed = sides * np.sqrt(np.linalg.det(affinity))
    found = local_affinities(points, mapped, sides, zoomed)[~astray]
    errors = np.abs(found - affinity).max(axis=(1, 2))
    assert np.median(errors) < 0.03
    assert (errors < 0.15).mean() > 0.9


def test_neighbours_without_agreement_leave_the_scales() -> None:
    random = np.random.default_rng(0)
    points, mapped = random.uniform(0, 5000, (2, 200, 2))
    sides = np.full(len(points), 32.0)
    found = local_affinities(points, mapped, sides, 2 * sides)
    assert (found == 2 * np.eye(2)).all(axis=(1, 2)).mean() > 0.9


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_few_or_coinciding_matches_leave_the_scales(count: int) -> None:
    points = np.full((count, 2), 9.0)
    sides = np.full(count, 64.0)
    found = local_affinities(points, points, sides, sides / 2)
    np.testing.assert_array_equal(found, np.tile(np.eye(2) / 2, (count, 1, 1)))
