"""Depth between sparse points."""

from __future__ import annotations

import numpy as np
import pytest

from r2d2_kapture.training.mesh_depth import mesh_inverse_depth
from r2d2_kapture.training.pairs import Points, pixel_grid

SIZE = (320, 240)


def scattered(count: int = 900) -> Points:
    rng = np.random.default_rng(0)
    return rng.uniform((0, 0), (SIZE[0] - 1, SIZE[1] - 1), (count, 2))


def raster_positions() -> Points:
    columns, rows = ((np.arange(side // 4) + 0.5) * 4 - 0.5 for side in SIZE)
    return pixel_grid(columns, rows)


def plane(points: Points) -> np.ndarray:
    return 0.2 + points @ np.array([2e-4, -1e-4])


def test_a_plane_is_filled_and_exact() -> None:
    pixels = scattered()
    found = mesh_inverse_depth(pixels, plane(pixels), SIZE)
    assert found.shape == (60, 80) and found.dtype == np.float32
    known = np.isfinite(found)
    assert known.mean() > 0.8
    expected = plane(raster_positions()).reshape(60, 80)
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-5)


def test_a_curved_surface_is_close() -> None:
    def surface(points: Points) -> np.ndarray:
        return 0.25 + 0.03 * np.sin(points[:, 0] / 60) * np.cos(points[:, 1] / 50)

    pixels = scattered()
    found = mesh_inverse_depth(pixels, surface(pixels), SIZE)
    known = np.isfinite(found)
    assert known.mean() > 0.7
    error = np.abs(found / surface(raster_positions()).reshape(60, 80) - 1)[known]
    assert np.median(error) < 2e-3 and error.max() < 0.03


def test_no_triangle_spans_the_edge_of_an_object() -> None:
    def step(points: Points) -> np.ndarray:
        return np.where(points[:, 0] < 160, 0.5, 0.25)

    pixels = scattered()
    found = mesh_inverse_depth(pixels, step(pixels), SIZE)
    known = np.isfinite(found)
    assert 0.6 < known.mean() < 0.98
    np.testing.assert_allclose(
        found[known], step(raster_positions()).reshape(60, 80)[known], rtol=1e-5
    )


def test_a_point_in_the_wrong_place_spoils_only_its_neighbourhood() -> None:
    pixels = scattered()
    values = plane(pixels)
    middle = np.argmin(np.linalg.norm(pixels - (160, 120), axis=1))
    values[middle] *= 1.1
    found = mesh_inverse_depth(pixels, values, SIZE)
    known = np.isfinite(found)
    expected = plane(raster_positions()).reshape(60, 80)
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-5)
    assert known.mean() > 0.85


def test_holes_are_not_filled() -> None:
    pixels = scattered()
    pixels = pixels[np.linalg.norm(pixels - (160, 120), axis=1) > 50]
    found = mesh_inverse_depth(pixels, plane(pixels), SIZE)
    assert np.isnan(found[28:32, 38:42]).all()
    assert np.isfinite(found[5:10, 5:10]).any()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((0, 2)),
        np.array([[5.0, 5.0]]),
        np.array([[5.0, 5], [10, 10]]),
        np.array([[5.0, 5], [10, 10], [20, 20], [30, 30]]),
        np.array([[5.0, 5], [15, 5], [10, 15]]),
    ],
    ids=["none", "one", "two", "line", "lone triangle"],
)
def test_too_few_points_tell_nothing(pixels: Points) -> None:
    found = mesh_inverse_depth(pixels, np.full(len(pixels), 0.2), SIZE)
    assert np.isnan(found).all()
