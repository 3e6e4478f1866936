"""One image warped onto another by a homography, to check their alignment."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from r2d2_kapture.pictures.figures import ByteImage
from r2d2_kapture.pictures.matches import BoolArray
from r2d2_kapture.pictures.two_images import reduced, two_images_figure

Grey = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

LONGEST_SIDE = 1000
SQUARES = 10
"""Squares of the checkerboard along the longest side."""


def draw_overlay(
    image1: ByteImage, image2: ByteImage, homography: Matrix, *, title: str = ""
) -> Figure:
    """Warp image 1 onto image 2: a checkerboard of both, and red over cyan.

    Where the homography is right, edges continue across the squares, and red and cyan
    of equal brightness add up to grey.

    Args:
        image1, image2: (H, W, 3) uint8 RGB.
        homography: (3, 3), pixels of image 2 from those of image 1, both with (0, 0)
            at the corner of the first, as COLMAP has it.
        title: above the pictures.
    """
    below, step = reduced(image2, max(image2.shape) / LONGEST_SIDE)
    warped, covered = warp(
        image1, np.diag([1 / step, 1 / step, 1]) @ homography, below.shape[:2]
    )
    side = -(-max(covered.shape) // SQUARES)
    rows, columns = np.indices(covered.shape) // side
    squares = covered & ((rows + columns) % 2 == 0)
    checkerboard = np.where(squares[:, :, None], warped, below)
    grey = below.mean(axis=2)
    red = np.where(covered, _as_bright(warped.mean(axis=2), grey, covered), grey)
    colors = np.rint(np.stack([red, grey, grey], axis=2)).astype(np.uint8)
    drawing = two_images_figure(checkerboard, colors)
    drawing.set_title(title)
    return drawing.figure


def _as_bright(image: Grey, other: Grey, where: BoolArray) -> Grey:
    """The image with the mean and contrast of another in the same region."""
    if not where.any():
        return image
    contrast = other[where].std() / max(float(image[where].std()), 1.0)
    matched = (image - image[where].mean()) * contrast + other[where].mean()
    clipped: Grey = np.clip(matched, 0, 255)
    return clipped


def warp(
    image: ByteImage, homography: Matrix, shape: tuple[int, int]
) -> tuple[ByteImage, BoolArray]:
    """Warp an image; also return which pixels of the result it covers.

    Args:
        image: (H, W, 3) uint8 RGB.
        homography: (3, 3), pixels of the result from those of the image, both with
            (0, 0) at the corner of the first.
        shape: height and width of the result.
    """
    source, step = reduced(image, max(image.shape) / (2 * max(shape)))
    # Pillow maps result pixels to image pixels, both from the corner
    back = np.diag([1 / step, 1 / step, 1]) @ np.linalg.inv(homography)
    size = (shape[1], shape[0])
    values = tuple((back / back[2, 2]).ravel()[:8])
    method = Image.Transform.PERSPECTIVE
    picture = Image.fromarray(source)
    warped = picture.transform(size, method, values, Image.Resampling.BICUBIC)
    inside = Image.new("L", picture.size, 255).transform(size, method, values)
    return np.asarray(warped), (np.asarray(inside) > 0) & _in_front(homography, shape)


def _in_front(homography: Matrix, shape: tuple[int, int]) -> BoolArray:
    """Mask of result pixels that lie in front of the image's horizon."""
    back = np.linalg.inv(homography)
    rows, columns = np.indices(shape)
    depth = back[2, 0] * columns + back[2, 1] * rows + back[2, 2]
    # the sign of a homography is arbitrary, and photographs are not mirrored
    in_front: BoolArray = depth * np.linalg.det(homography) > 0
    return in_front
