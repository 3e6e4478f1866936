"""From where to look at a map: its up axis, a frame to see it in, robust limits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LEVEL = 0.1
"""The horizontal axes of images show what is up if their variances across their common
plane and in it, the lesser one, have a smaller ratio than this."""
LEAST_TURN = 5e-3
"""Of the lesser variance: cameras that turn by fewer than 4 degrees show no plane."""
CANCELLED = 0.2
"""Length of the mean upper side of images that look straight down in all directions."""
NADIR = 0.97
"""Mean cosine to the axis of turning of images that look straight down along it."""
SMALLEST = 1e-9
"""Of a share of the viewing direction that is more than rounding."""
TAILS = (2.0, 98.0)
"""Percentiles that robust limits are found from."""
SLACK = 0.25
"""How far beyond them a point may lie to be within, as a share of their distance."""

IMAGE_CORNERS = ((-0.5, -0.375, 1), (0.5, -0.375, 1), (0.5, 0.375, 1), (-0.5, 0.375, 1))
"""Of an image of 53 by 41 degrees, in the camera's axes."""
FRUSTUM_EDGES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1))
"""Which corners of a frustum are joined."""


def camera_centers(cam_from_world: Array) -> Array:
    """(N, 3) camera centres in the world, of (N, 3, 4) poses."""
    rotations, translations = cam_from_world[:, :, :3], cam_from_world[:, :, 3]
    centers: Array = -np.einsum("nij,ni->nj", rotations, translations)
    return centers


def up_axis(cam_from_world: Array) -> Array:
    """The direction in the world that is up, as far as the cameras show it.

    Photographs are held level: where the cameras turn, up is the direction most nearly
    orthogonal to all horizontal axes of the images. Otherwise it is the mean upper side
    of the images. Images that look along the axis that they turn about, or whose upper
    sides cancel out, are taken to look down: up is then towards the cameras.

    Args:
        cam_from_world: (N, 3, 4) float64, N >= 1; camera axes right, down, forward.

    Returns:
        (3,) float64 of unit length.
    """
    right, down, forward = np.moveaxis(cam_from_world[:, :, :3], 1, 0)
    upper, backward = -down.mean(axis=0), -forward.mean(axis=0)
    if np.linalg.norm(upper) < CANCELLED:
        upper = backward
    variances, directions = np.linalg.eigh(right.T @ right / len(right))
    level = variances[0] < LEVEL * variances[1] and variances[1] > LEAST_TURN
    up = directions[:, 0] if level or not upper.any() else upper
    if level and abs(up @ backward) > NADIR:
        upper = backward
    result: Array = up * np.copysign(1 / np.linalg.norm(up), up @ upper)
    return result


def view_axes(up: Array, places: Array, forward: Array | None = None) -> Array:
    """A frame to look at a map in: to the right, to the back, up.

    Args:
        up: (3,) float64 of unit length, see up_axis.
        places: (N, 3) float64, N >= 1, such as camera centres; their longest horizontal
            direction is to the right.
        forward: (3,) float64, such as the mean viewing direction; it is to the back,
            not to the front.

    Returns:
        (3, 3) float64: ``places @ axes.T`` are coordinates right, back, up; a rotation.
    """
    horizontal = np.linalg.svd(up[None])[2][1:]
    _, turns = np.linalg.eigh(np.cov(horizontal @ places.T, bias=True))
    right = turns[:, 1] @ horizontal
    side = right[np.abs(right).argmax()]
    if forward is not None and abs(np.cross(up, right) @ forward) > SMALLEST:
        side = np.cross(up, right) @ forward
    right = right * np.sign(side)
    axes: Array = np.stack([right, np.cross(up, right), up])
    return axes


def robust_bounds(points: Array) -> tuple[Array, Array]:
    """The box of most points, which a few far away ones do not stretch.

    Args:
        points: (N, D) float64; those not finite are passed over, N >= 1 are finite.

    Returns:
        The least and the largest coordinates, (D,) each, of the points near the middle
        96 % of the points along each axis.
    """
    points = points[np.isfinite(points).all(axis=1)]
    low, high = np.percentile(points, TAILS, axis=0)
    slack = SLACK * (high - low)
    near = (points >= low - slack) & (points <= high + slack)
    return (
        points.min(axis=0, where=near, initial=np.inf),
        points.max(axis=0, where=near, initial=-np.inf),
    )


def camera_frustums(cam_from_world: Array, length: float) -> Array:
    """Pyramids from each camera's centre to its image, held up before it.

    Args:
        cam_from_world: (N, 3, 4) float64.
        length: of the pyramid's axis, in units of the world.

    Returns:
        (N, 5, 3) float64: the centre, then the corners of the image from the top left
        clockwise.
    """
    corners = np.array([[0, 0, 0], *IMAGE_CORNERS]) * length
    from_center = corners @ cam_from_world[:, :, :3]
    frustums: Array = camera_centers(cam_from_world)[:, None] + from_center
    return frustums
