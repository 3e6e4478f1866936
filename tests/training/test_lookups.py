"""Reading flow and depth between pixels."""

from __future__ import annotations

import numpy as np
import pytest

from r2d2_kapture.training.lookups import DenseFlow, DepthMap, inverse_of_depth
from r2d2_kapture.training.pairs import Points, pixel_grid

SIZE = (40, 30)


def affine_field() -> np.ndarray:
    grid = pixel_grid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    return affine(grid).reshape(SIZE[1], SIZE[0], 2).astype(np.float32)


def affine(points: Points) -> Points:
    return points @ np.array([[1.2, 0.1], [-0.2, 0.9]]).T + (5, -3)


def random_points(count: int = 200) -> Points:
    rng = np.random.default_rng(0)
    return rng.uniform((0, 0), (SIZE[0] - 1, SIZE[1] - 1), (count, 2))


def test_an_affine_flow_is_read_exactly() -> None:
    points = random_points()
    found = DenseFlow(affine_field())(points)
    np.testing.assert_allclose(found, affine(points), atol=1e-5)


def test_pixels_are_read_as_they_stand_up_to_the_last() -> None:
    points = np.array([[0, 0], [39, 29], [39, 0], [12, 7]], dtype=float)
    np.testing.assert_allclose(DenseFlow(affine_field())(points), affine(points), 1e-5)


@pytest.mark.parametrize("point", [(-0.1, 3), (39.1, 3), (3, 29.5), (np.nan, 3)])
def test_outside_nothing_is_known(point) -> None:
    assert np.isnan(DenseFlow(affine_field())(np.array([point]))).all()
    depth = DepthMap(np.ones(SIZE[::-1], dtype=np.float32), SIZE)
    assert np.isnan(depth(np.array([point]))).all()


def test_unknown_neighbours_make_a_place_unknown() -> None:
    field = affine_field()
    field[10, 20] = np.nan
    points = np.array([[20, 10], [19.5, 10], [20, 10.5], [21, 10], [20, 9]], float)
    found = DenseFlow(field)(points)
    np.testing.assert_array_equal(
        np.isnan(found[:, 0]), [True, True, True, False, False]
    )


def test_a_jump_is_not_bridged() -> None:
    field = affine_field()
    field[:, 20:] += (60, 0)
    found = DenseFlow(field)(np.array([[19.5, 5.0], [19.0, 5.0], [20.0, 5.0]]))
    assert np.isnan(found[0]).all() and np.isfinite(found[1:]).all()


def plane(points: Points) -> np.ndarray:
    return 0.2 + points @ np.array([0.001, 0.002])


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_plane_is_read_exactly_from_any_raster(step: int) -> None:
    size = (80, 60)
    width, height = size[0] // step, size[1] // step
    columns = (np.arange(width) + 0.5) * step - 0.5
    rows = (np.arange(height) + 0.5) * step - 0.5
    values = plane(pixel_grid(columns, rows)).reshape(height, width)
    depth = DepthMap(values.astype(np.float32), size)
    rng = np.random.default_rng(0)
    points = rng.uniform(2, (77, 57), (100, 2))
    np.testing.assert_allclose(depth(points), plane(points), rtol=1e-5)
    # the border of the picture is not lost, if but the nearest value is known there
    border = np.array([[0, 0], [79, 59]], dtype=float)
    np.testing.assert_allclose(depth(border), plane(border), rtol=0.03)


def test_depth_across_an_edge_is_unknown() -> None:
    values = np.full((30, 40), 0.5, dtype=np.float32)
    values[:, 20:] = 0.25
    found = DepthMap(values, SIZE)(np.array([[19.5, 5], [19, 5], [20, 5]]))
    np.testing.assert_array_equal(found, [np.nan, 0.5, 0.25])


def test_depth_that_is_no_depth_is_unknown() -> None:
    depth = np.array([[2.0, 0.0, -1.0, np.inf, np.nan]], dtype=np.float32)
    expected = [[0.5, np.nan, np.nan, np.nan, np.nan]]
    np.testing.assert_array_equal(inverse_of_depth(depth), expected)
