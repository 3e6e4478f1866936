"""Pixel origins and resize maps: the only module that adds half a pixel.

Inside the package (0, 0) is the centre of the top-left pixel, as in kapture, R2D2 and
D2-Net. COLMAP puts (0, 0) at the corner of that pixel, so its centre is (0.5, 0.5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt

HALF_PIXEL = 0.5

PixelOrigin = Literal["center", "corner"]
CameraOrigin = Literal["auto", "center", "corner"]
"""Pixel origin of a dataset's principal points, as given by the user."""
ResizeMap = Literal["corrected", "published"]
Turn = Literal[0, 90, 180, 270]
"""Degrees by which an image is turned clockwise."""
FloatArray = npt.NDArray[np.floating]

if TYPE_CHECKING:
    import torch

Coordinate = TypeVar(
    "Coordinate", npt.NDArray[np.float32], npt.NDArray[np.float64], "torch.Tensor"
)


def image_from_level(
    level_xy: Coordinate, level_size: int, image_size: int, resize_map: ResizeMap
) -> Coordinate:
    """Map coordinates along one axis of a pyramid level to the full image.

    Args:
        level_xy: array or tensor of pixel coordinates on the level, any shape; the
            centre of the first pixel is 0.
        level_size: width (or height) of the level in pixels.
        image_size: width (or height) of the image in pixels.
        resize_map: ``corrected`` aligns the borders of both rasters,
            (x + 1/2) * W / w - 1/2; ``published`` is the x * W / w of the R2D2 paper's
            code, off by (W / w - 1) / 2.

    Returns:
        Coordinates in image pixels, of the same type and shape.
    """
    ratio = image_size / level_size
    if resize_map == "published":
        return level_xy * ratio
    return (level_xy + HALF_PIXEL) * ratio - HALF_PIXEL


def image_from_feature_cell(cell: Coordinate) -> Coordinate:
    """Map coordinates on the feature map of D2-Net, along one axis, to its input image.

    The map is halved twice, and each halving puts cell x between the pixels 2x and 2x +
    1 of the raster above, as the published D2-Net has it. (Its last pooling, of stride
    1, shifts cells by another half of a cell; published keypoints ignore it.)

    Args:
        cell: array or tensor, any shape; the centre of the first cell is 0.

    Returns:
        Coordinates in pixels of the image, of the same type and shape.
    """
    return (cell * 2 + HALF_PIXEL) * 2 + HALF_PIXEL


def feature_cell_from_image(pixel: Coordinate) -> Coordinate:
    """The inverse of image_from_feature_cell, any shape."""
    return ((pixel - HALF_PIXEL) * 0.5 - HALF_PIXEL) * 0.5


def pixel_that_holds(xy: Coordinate) -> Coordinate:
    """Column or row of the pixel at coordinates of any shape; on an edge the next one,
    as COLMAP reads its masks."""
    return (xy + HALF_PIXEL) // 1


def stored_from_turned(
    xy: FloatArray, turn: Turn, stored_size: tuple[int, int]
) -> FloatArray:
    """Map positions in an image that was turned to the image as stored, exactly.

    Args:
        xy: (N, 2) pixels of the turned image, (0, 0) at the centre of the first one.
        turn: degrees by which the stored image was turned clockwise.
        stored_size: (W, H) of the stored image in pixels.

    Returns:
        (N, 2) pixels of the stored image, of the same origin and type.
    """
    x, y = xy[:, 0], xy[:, 1]
    right, bottom = stored_size[0] - 1, stored_size[1] - 1
    columns = {
        0: (x, y),
        90: (y, bottom - x),
        180: (right - x, bottom - y),
        270: (right - y, x),
    }[turn]
    return np.stack(columns, axis=1)


def colmap_from_kapture(keypoints: FloatArray) -> FloatArray:
    """Shift (N, 2) pixel coordinates from the centre origin to COLMAP's corner one."""
    return keypoints + HALF_PIXEL


def kapture_from_colmap(keypoints: FloatArray) -> FloatArray:
    """Shift (N, 2) pixel coordinates from COLMAP's corner origin to the centre one."""
    return keypoints - HALF_PIXEL


def principal_point_shift(origin: PixelOrigin) -> float:
    """Pixels to add to a principal point of the given origin to put it in COLMAP's."""
    return HALF_PIXEL if origin == "center" else 0.0


def principal_point_origin(
    principal_point: tuple[float, float], image_size: tuple[int, int]
) -> PixelOrigin | None:
    """The origin of a principal point that lies in the middle of the image.

    The middle is ((W - 1) / 2, (H - 1) / 2) when counted from the centre of the first
    pixel and (W / 2, H / 2) from its corner. None in any other case.
    """
    middle = np.asarray(image_size, dtype=np.float64) / 2
    if np.allclose(principal_point, middle, rtol=0, atol=1e-6):
        return "corner"
    if np.allclose(principal_point, middle - HALF_PIXEL, rtol=0, atol=1e-6):
        return "center"
    return None
