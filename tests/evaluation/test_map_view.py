"""What is up in a map, and how large it is, whatever a few cameras and points do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from r2d2_kapture.evaluation.map_view import (
    camera_centers,
    robust_bounds,
    up_axis,
    view_axes,
)

UPRIGHT = Rotation.from_matrix([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
"""world_from_cam of a camera that looks along y in a world where z points up."""
LOOKING_DOWN = Rotation.from_matrix(np.diag([1.0, -1.0, -1.0]))
WORLD = Rotation.from_euler("xyz", [40, -70, 110], degrees=True)
"""Of a map whose own axes point anywhere."""


def poses(world_from_cam, centers=None):
    rotations = (WORLD * world_from_cam).inv().as_matrix()
    centers = np.zeros((len(rotations), 3)) if centers is None else centers
    moved = -np.einsum("nij,nj->ni", rotations, WORLD.apply(centers))
    return np.concatenate([rotations, moved[..., None]], axis=2)


def turned(yaws, pitches=0.0, rolls=0.0, held=UPRIGHT):
    """Cameras that turn to the left, look up and lean, in degrees."""
    about = [np.broadcast_to(angles, len(yaws)) for angles in (yaws, pitches, rolls)]
    around, upwards, aside = (
        Rotation.from_rotvec(np.outer(angles, axis), degrees=True)
        for angles, axis in zip(about, np.eye(3)[[2, 0, 2]])
    )
    return around * held * upwards * aside


def degrees_off(up):
    return np.degrees(np.arccos(np.clip(up @ WORLD.apply([0, 0, 1]), -1, 1)))


@pytest.mark.parametrize(
    "cameras, tolerance",
    [
        (turned([0.0]), 1e-4),  # one photograph, held upright
        (turned([0.0, 0.0, 0.0]), 1e-4),
        (turned(np.linspace(0, 330, 12)), 1e-4),
        # around a table that they look down on, from one side only
        (turned(np.linspace(-30, 30, 9), pitches=-50), 1e-4),
        # in hands that lean by some degrees
        (
            turned(
                np.linspace(-60, 60, 40),
                pitches=np.random.default_rng(0).normal(-20, 10, 40),
                rolls=np.random.default_rng(1).normal(0, 3, 40),
            ),
            3,
        ),
        # an aerial survey: forth and back, and in all directions
        (turned([0, 180, 0, 180.0], held=LOOKING_DOWN), 1e-4),
        (turned(np.linspace(0, 330, 12), held=LOOKING_DOWN), 1e-4),
        # a flight line and a turn at its end, with a gimbal that leans by some degrees
        *(
            (
                turned(
                    [heading, heading, heading, heading, heading + 30, heading + 60],
                    pitches=[lean, -lean, lean, -lean, lean, -lean],
                    rolls=[1, -1, 0, 2, -2, 0],
                    held=LOOKING_DOWN,
                ),
                5,
            )
            for heading in (0, 90, 200)
            for lean in (-3, 3)
        ),
        # towards the ceiling, held upright
        (turned(np.linspace(-60, 60, 9), pitches=60), 1e-4),
    ],
)
def test_up(cameras, tolerance):
    up = up_axis(poses(cameras))
    assert np.linalg.norm(up) == pytest.approx(1)
    assert degrees_off(up) < tolerance


def test_a_photographer_may_hold_the_camera_upside_down():
    upside_down = turned(np.linspace(0, 330, 12), rolls=180)
    assert degrees_off(up_axis(poses(upside_down))) > 179


def test_centers():
    centers = np.random.default_rng(0).normal(size=(5, 3))
    cameras = poses(turned([0.0, 10, 20, 30, 40]), centers)
    np.testing.assert_allclose(camera_centers(cameras), WORLD.apply(centers))


def test_axes_are_a_rotation_with_the_longest_direction_across():
    places = np.array([[0, 0, 9], [1, 2, 0], [2, 4, 0], [4, 8.0, 3]])
    axes = view_axes(np.array([0.0, 0.0, 1.0]), places)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)
    np.testing.assert_allclose(axes[0], [1 / 5**0.5, 2 / 5**0.5, 0], atol=1e-12)
    np.testing.assert_allclose(axes[2], [0, 0, 1], atol=1e-12)


@pytest.mark.parametrize("count", [1, 2])
def test_few_places_have_axes(count) -> None:
    up = WORLD.apply([0, 0, 1])
    axes = view_axes(up, np.ones((count, 3)))
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(axes[2], up, atol=1e-12)


def test_far_points_do_not_stretch_the_bounds():
    points = np.random.default_rng(0).uniform(-1, 1, (1000, 3))
    points[:5] *= 1e6
    points[5] = np.nan
    low, high = robust_bounds(points)
    # of the points that are near, none is left out and no room is added
    np.testing.assert_allclose(low, points[6:].min(axis=0), atol=1e-12)
    np.testing.assert_allclose(high, points[6:].max(axis=0), atol=1e-12)


@pytest.mark.parametrize("count", [1, 3])
def test_bounds_of_few_points_hold_them_all_and_no_more(count):
    points = np.random.default_rng(0).normal(size=(count, 3))
    low, high = robust_bounds(points)
    np.testing.assert_allclose(low, points.min(axis=0))
    np.testing.assert_allclose(high, points.max(axis=0))
