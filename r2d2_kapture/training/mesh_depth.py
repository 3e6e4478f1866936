"""Depth between the sparse points of a model: small flat triangles, where safe.

Points that an image observes are joined to triangles (Delaunay), each taken for flat.
A triangle is trusted only if it is small, if its corners are about as far away, and if
its plane and those of its neighbours foretell each other's corners: then the surface is
smooth there, and the error is of second order in the size of the triangle. Elsewhere
depth is unknown.
That both images of a pair see the same surface is left to the comparison of their
depths. Flow at the observed points alone would leave most queries of the loss without
an answer; flow between the matches themselves could not decide what hides what.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay, QhullError

from r2d2_kapture.coordinates import image_from_level
from r2d2_kapture.training.pairs import Points, pixel_grid

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RASTER_STEP = 4
"""Pixels of the picture to one of the raster."""
LARGEST_EDGE = 0.08
"""Of a triangle, in longer sides of the picture."""
LARGEST_DEPTH_RATIO = 1.15
"""Of the farthest corner of a triangle to the nearest."""
LARGEST_SURPRISE = 0.03
"""Of depth at the far corner of a neighbour, relative to what the plane foretells."""


def mesh_inverse_depth(
    pixels: Points, inverse_depths: DoubleArray, size: tuple[int, int]
) -> FloatArray:
    """Draw the inverse depth of a picture from that of scattered pixels.

    Args:
        pixels: (N, 2) where points are seen.
        inverse_depths: (N,) 1 / depth of the points, above 0.
        size: (W, H) of the picture.

    Returns:
        (h, w) float32 on a raster coarser by RASTER_STEP; NaN where unknown.
    """
    width, height = (max(2, round(side / RASTER_STEP)) for side in size)
    raster = np.full((height, width), np.nan, dtype=np.float32)
    try:
        mesh = Delaunay(pixels)
    except (QhullError, ValueError):
        # fewer than three points, or all on a line
        return raster
    safe = _safe_triangles(mesh, inverse_depths, LARGEST_EDGE * max(size))
    columns, rows = (
        image_from_level(np.arange(count, dtype=np.float64), count, side, "corrected")
        for count, side in zip((width, height), size)
    )
    grid = pixel_grid(columns, rows)
    triangles = mesh.find_simplex(grid)
    known = np.flatnonzero((triangles >= 0) & safe[triangles])
    raster.ravel()[known] = _on_planes(
        mesh, inverse_depths, triangles[known], grid[known]
    )
    return raster


def _safe_triangles(
    mesh: Delaunay, inverse_depths: DoubleArray, largest_edge: float
) -> Mask:
    corners = mesh.points[mesh.simplices]
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    values = inverse_depths[mesh.simplices]
    small = edges.max(axis=1) < largest_edge
    level = values.max(axis=1) < LARGEST_DEPTH_RATIO * values.min(axis=1)
    return np.asarray(small & level & _smooth(mesh, inverse_depths, small & level))


def _smooth(mesh: Delaunay, inverse_depths: DoubleArray, trusted: Mask) -> Mask:
    """Triangles that agree with every trusted neighbour, and have one.

    Two neighbours agree if the plane of each predicts the far corner of the other.
    """
    count = len(mesh.simplices)
    smooth = np.ones(count, dtype=bool)
    compared = np.zeros(count, dtype=int)
    for side in range(3):
        neighbours = mesh.neighbors[:, side]
        near = np.flatnonzero((neighbours >= 0) & trusted & trusted[neighbours])
        far = _far_corners(mesh, near, neighbours[near], side)
        foretold = _on_planes(mesh, inverse_depths, near, mesh.points[far])
        wrong = np.abs(foretold / inverse_depths[far] - 1) > LARGEST_SURPRISE
        # which of the two is wrong is unknown
        smooth[near[wrong]] = False
        smooth[neighbours[near[wrong]]] = False
        compared[near] += 1
    return smooth & (compared > 0)


def _far_corners(
    mesh: Delaunay,
    triangles: npt.NDArray[np.intp],
    neighbours: npt.NDArray[np.intp],
    side: int,
) -> npt.NDArray[np.intp]:
    """The corner of each neighbour that is not on the edge shared with the triangle."""
    shared = np.delete(mesh.simplices[triangles], side, axis=1)
    candidates = mesh.simplices[neighbours]
    on_edge = (candidates[:, :, None] == shared[:, None, :]).any(axis=2)
    return np.asarray(candidates[~on_edge].astype(np.intp))


def _on_planes(
    mesh: Delaunay,
    values: DoubleArray,
    triangles: npt.NDArray[np.intp],
    points: Points,
) -> DoubleArray:
    """The plane through each triangle's corners, at a point each."""
    transforms = mesh.transform[triangles]
    first_two = np.einsum("nij,nj->ni", transforms[:, :2], points - transforms[:, 2])
    weights = np.column_stack([first_two, 1 - first_two.sum(axis=1)])
    return np.asarray((weights * values[mesh.simplices[triangles]]).sum(axis=1))
