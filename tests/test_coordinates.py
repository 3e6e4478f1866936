"""Pixel origins and resize maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from r2d2_kapture.coordinates import (
    PixelOrigin,
    ResizeMap,
    colmap_from_kapture,
    feature_cell_from_image,
    image_from_feature_cell,
    image_from_level,
    kapture_from_colmap,
    principal_point_origin,
    principal_point_shift,
)

SIZES = [(4, 8), (100, 400), (33, 100), (7, 7), (1, 10), (539, 640)]


@pytest.mark.parametrize("level, image", SIZES)
def test_corrected_map_aligns_borders_and_centres(level: int, image: int) -> None:
    """Pixel i covers [i - 1/2, i + 1/2]: a raster spans -1/2 to its size - 1/2."""
    borders_and_centre = np.array([-0.5, level - 0.5, (level - 1) / 2])
    found = image_from_level(borders_and_centre, level, image, "corrected")
    np.testing.assert_allclose(found, [-0.5, image - 0.5, (image - 1) / 2])


def test_corrected_map_by_hand() -> None:
    """Half size: the first pixel is the mean of pixels 0 and 1, so it lies at 1/2."""
    found = image_from_level(np.array([0.0, 1.0, 2.0]), 5, 10, "corrected")
    np.testing.assert_allclose(found, [0.5, 2.5, 4.5])


@pytest.mark.parametrize("level, image", SIZES)
def test_published_map_is_off_by_a_constant(level: int, image: int) -> None:
    x = np.linspace(0, level - 1, 9)
    published = image_from_level(x, level, image, "published")
    np.testing.assert_allclose(published, x * image / level)
    corrected = image_from_level(x, level, image, "corrected")
    np.testing.assert_allclose(corrected - published, (image / level - 1) / 2)


@pytest.mark.parametrize("resize_map", ["corrected", "published"])
def test_a_level_of_the_image_size_maps_to_itself(resize_map: ResizeMap) -> None:
    x = np.array([0.0, 0.25, 6.0])
    np.testing.assert_array_equal(image_from_level(x, 7, 7, resize_map), x)


@pytest.mark.parametrize("resize_map", ["corrected", "published"])
def test_tensors_map_as_arrays_do(resize_map: ResizeMap) -> None:
    x = np.linspace(-0.5, 30, 12, dtype=np.float32).reshape(3, 4)
    array = image_from_level(x, 31, 100, resize_map)
    tensor = image_from_level(torch.from_numpy(x), 31, 100, resize_map)
    assert array.shape == tensor.shape == (3, 4)
    assert array.dtype == np.float32 and tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor.numpy(), array, rtol=1e-6)


def test_colmap_origin_round_trip() -> None:
    """The centre of the first pixel: (0, 0) in kapture, (1/2, 1/2) in COLMAP."""
    keypoints = np.array([[0.0, 0.0], [12.25, 7.5], [-0.5, 639.0]], dtype=np.float32)
    colmap = colmap_from_kapture(keypoints)
    np.testing.assert_array_equal(colmap[0], [0.5, 0.5])
    np.testing.assert_array_equal(colmap - keypoints, 0.5)
    np.testing.assert_array_equal(kapture_from_colmap(colmap), keypoints)
    assert colmap.dtype == np.float32
    assert colmap_from_kapture(np.zeros((0, 2), np.float32)).shape == (0, 2)


@pytest.mark.parametrize(
    "point, size, origin",
    [
        ((959.5, 539.5), (1920, 1080), "center"),  # the virtual gallery's
        ((960.0, 540.0), (1920, 1080), "corner"),
        ((2.0, 1.0), (5, 3), "center"),
        ((2.5, 1.5), (5, 3), "corner"),
        ((959.5, 540.0), (1920, 1080), None),  # the axes disagree
        ((955.2, 541.7), (1920, 1080), None),
        ((959.75, 539.75), (1920, 1080), None),
        ((540.0, 960.0), (1920, 1080), None),
    ],
)
def test_origin_of_a_central_principal_point(
    point: tuple[float, float], size: tuple[int, int], origin: PixelOrigin | None
) -> None:
    assert principal_point_origin(point, size) == origin


@pytest.mark.parametrize("origin", ["center", "corner"])
def test_shifted_central_points_agree_with_colmap(origin: PixelOrigin) -> None:
    middle = {"center": (31.5, 23.5), "corner": (32.0, 24.0)}[origin]
    assert principal_point_origin(middle, (64, 48)) == origin
    shift = principal_point_shift(origin)
    assert (middle[0] + shift, middle[1] + shift) == (32.0, 24.0)


def test_feature_cells_lie_in_the_middle_of_what_two_halvings_joined() -> None:
    cells = np.array([0.0, 1.0, 2.5])
    pixels = image_from_feature_cell(cells)
    np.testing.assert_array_equal(pixels, [1.5, 5.5, 11.5])  # of 0..3, of 4..7
    np.testing.assert_array_equal(feature_cell_from_image(pixels), cells)
    assert image_from_feature_cell(torch.tensor([0.0])).tolist() == [1.5]
