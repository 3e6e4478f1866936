"""Views of pictures: exact positions, no aliasing, borders."""

from __future__ import annotations

import numpy as np
import pytest

from r2d2_kapture.training.pairs import RGBArray, pixel_grid
from r2d2_kapture.training.transforms import scaled_view, tilted_view
from r2d2_kapture.training.views import (
    Picture,
    WarpedView,
    apply_homography,
    flow_between,
)

SIDE = 96


def waves(x: np.ndarray, y: np.ndarray, period: float) -> np.ndarray:
    """Three colours of smooth waves around grey 128."""
    x, y = 2 * np.pi / period * x, 2 * np.pi / period * y
    channels = np.sin(x), np.sin(y + 1), np.sin(0.7 * x + 0.7 * y + 2)
    return 128 + 100 * np.stack(channels, axis=-1)


def wave_picture(size: tuple[int, int], period: float) -> Picture:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return Picture(pixels=np.rint(waves(x, y, period)).astype(np.uint8))


def noise_picture(size: tuple[int, int] = (200, 150)) -> Picture:
    rng = np.random.default_rng(0)
    return Picture(pixels=rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def displacement(found: RGBArray, x: np.ndarray, y: np.ndarray, period: float):
    """How far (dx, dy) the crop is from the waves at x, y: least squares, pixels."""
    step = 1e-3
    slope_x = (waves(x + step, y, period) - waves(x - step, y, period)) / (2 * step)
    slope_y = (waves(x, y + step, period) - waves(x, y - step, period)) / (2 * step)
    design = np.stack([slope_x.ravel(), slope_y.ravel()], axis=1)
    difference = (found - waves(x, y, period)).ravel()
    return np.linalg.lstsq(design, difference, rcond=None)[0]


def test_a_view_of_the_same_size_shows_the_pixels_and_their_mirror_image() -> None:
    picture = noise_picture()
    view = scaled_view(picture, 1.0)
    assert view.size == picture.size
    crop = view.crop((31, 17), 64)
    np.testing.assert_array_equal(crop, picture.pixels[17:81, 31:95])
    view = WarpedView(picture=picture, picture_from_view=np.eye(3), size=(300, 300))
    crop = view.crop((-10, 0), 64)
    np.testing.assert_array_equal(crop[:, 10:], picture.pixels[:64, :54])
    np.testing.assert_array_equal(crop[:, 9::-1], picture.pixels[:64, 1:11])


@pytest.mark.parametrize("factor", [1.2, 0.95, 0.6, 0.37, 0.21, 0.1])
def test_positions_are_exact_at_every_scale(factor: float) -> None:
    size = (1200, 1100)
    period = max(16 / factor, 40)
    view = scaled_view(wave_picture(size, period), factor)
    crop = view.crop((5, 9), SIDE)
    grid = pixel_grid(5 + np.arange(SIDE), 9 + np.arange(SIDE))
    x, y = apply_homography(view.picture_from_view, grid).T.reshape(2, SIDE, SIDE)
    shift = displacement(crop, x, y, period) * factor
    assert np.abs(shift).max() < 0.02


@pytest.mark.parametrize("tilt", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("factor", [1.0, 0.5, 0.3])
def test_positions_are_exact_in_rotated_and_tilted_views(factor, tilt) -> None:
    picture = wave_picture((900, 800), 90.0)
    view = tilted_view(
        picture, factor, rotation=0.4, tilt=tilt, tilt_axis=1.0, focal=900.0
    )
    corner = tuple((side - SIDE) // 2 for side in view.size)
    crop = view.crop(corner, SIDE)
    grid = pixel_grid(corner[0] + np.arange(SIDE), corner[1] + np.arange(SIDE))
    x, y = apply_homography(view.picture_from_view, grid).T.reshape(2, SIDE, SIDE)
    shift = displacement(crop, x, y, 90.0) * factor
    assert np.abs(shift).max() < 0.03
    assert np.abs(crop - waves(x, y, 90.0)).max() < 8


@pytest.mark.parametrize("factor", [0.45, 0.3, 0.15])
@pytest.mark.parametrize("tilt", [0.0, 0.6])
def test_detail_too_fine_for_the_view_fades_to_grey(factor, tilt) -> None:
    # 1.4 view pixels a wave: aliased, it would show as a wave of 3.5
    picture = wave_picture((1200, 1200), 1.4 / factor)
    view = tilted_view(
        picture, factor, rotation=0.0, tilt=tilt, tilt_axis=0.0, focal=1500.0
    )
    corner = tuple((side - SIDE) // 2 for side in view.size)
    # the third wave is a diagonal one, which a pixel raster can still hold
    crop = view.crop(corner, SIDE)[..., :2].astype(float)
    assert crop.std(axis=(0, 1)).max() < 0.12 * 100 / np.sqrt(2)
    assert abs(crop.mean() - 128) < 2


def test_detail_coarse_enough_for_the_view_stays() -> None:
    factor = 0.3
    picture = wave_picture((1200, 1200), 6 / factor)
    crop = scaled_view(picture, factor).crop((50, 50), SIDE).astype(float)
    assert crop.std(axis=(0, 1)).min() > 0.75 * 100 / np.sqrt(2)


def test_a_crop_far_from_the_picture_is_drawn_without_harm() -> None:
    matrix = np.array([[1, 0, 0], [0, 1, 0], [0.01, 0, -1.0]])
    view = WarpedView(
        picture=noise_picture(), picture_from_view=matrix, size=(900, 900)
    )
    for corner in (0, 0), (60, 60), (800, 800):
        assert view.crop(corner, 64).shape == (64, 64, 3)


def test_flow_goes_through_the_pictures() -> None:
    picture1, picture2 = noise_picture((300, 200)), noise_picture((280, 240))
    view1 = scaled_view(picture1, 0.8)
    view2 = tilted_view(
        picture2, 1.1, rotation=0.3, tilt=0.6, tilt_axis=2.0, focal=300.0
    )
    points = pixel_grid(np.linspace(0, 239, 20), np.linspace(0, 159, 20))
    forth = flow_between(view1, view2, lambda p: p + (2.5, 7))(points)
    back = flow_between(view2, view1, lambda p: p - (2.5, 7))(forth)
    seen = np.isfinite(forth[:, 0])
    assert 0.5 < seen.mean() < 1
    # what left the second picture is unknown
    source = apply_homography(view1.picture_from_view, points) + (2.5, 7)
    np.testing.assert_array_equal(seen, (source <= (279, 239)).all(axis=1))
    np.testing.assert_allclose(back[seen], points[seen], atol=1e-8)
    # the view holds the whole picture
    assert (forth[seen] >= 0).all() and (forth[seen] <= view2.size).all()


def test_pixels_beyond_the_picture_have_no_position() -> None:
    picture = noise_picture()
    shifted = np.array([[1, 0, -20], [0, 1, 0], [0, 0, 1.0]])
    view = WarpedView(picture=picture, picture_from_view=shifted, size=(300, 150))
    flow = flow_between(view, scaled_view(picture, 1.0), None)
    found = flow(np.array([[19.0, 5.0], [20.0, 5.0], [219.0, 5.0], [220.0, 5.0]]))
    np.testing.assert_array_equal(np.isnan(found[:, 0]), [True, False, False, True])
    np.testing.assert_allclose(found[1:3], [[0, 5], [199, 5]], atol=1e-9)
