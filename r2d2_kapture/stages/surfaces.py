"""The surface at each point of a map, and how a patch of it appears in a camera.

The frames of patches that a match alone gives are turned and scaled; the plane of the
surface adds the slant, as in the patches of Furukawa and Ponce (Accurate, Dense, and
Robust Multi-View Stereopsis, PAMI 2010).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pycolmap
from scipy.spatial import cKDTree

from r2d2_kapture.io.colmap.sparse_map import MapImage, SparseMap

DoubleArray = npt.NDArray[np.float64]

NEIGHBOURS = 10
"""Points that a plane is fitted to, the point itself among them."""
KEPT = 7
"""Of these, which lie nearest to a first plane: a few may be of another surface."""
MAX_THICKNESS = 0.15
"""Deviation from the plane in units of the smaller extent in it, of a planar place."""
MIN_WIDTH = 0.1
"""Smaller in units of the larger extent in the plane: less is a line."""
MIN_COSINE = 0.17
"""Of the angle between a normal and a ray; surfaces seen at more than 80 degrees are
taken for another surface."""
MIN_ASPECT = 0.1
"""Shorter in units of the longer axis of a frame that can still be compared."""
CHUNK = 50_000


def surface_normals(sparse_map: SparseMap) -> DoubleArray:
    """(P, 3) unit normal of the surface at each point, towards the cameras.

    The plane through the nearest points of the map. Where these are not planar, or an
    image that observes the point would see the plane from behind or grazing, it is NaN.
    """
    points = sparse_map.points
    towards = np.zeros_like(points)
    for image in sparse_map.images.values():
        np.add.at(towards, image.point_rows, _directions(image, points))
    normals = plane_normals(points)
    normals *= np.where((normals * towards).sum(axis=1) < 0, -1.0, 1.0)[:, None]
    worst = np.full(len(points), np.inf)
    for image in sparse_map.images.values():
        rows = image.point_rows
        cosines = (normals[rows] * _directions(image, points)).sum(axis=1)
        np.fmin.at(worst, rows, cosines)
    normals[~(worst >= MIN_COSINE)] = np.nan
    return normals


def plane_normals(points: DoubleArray) -> DoubleArray:
    """(P, 3) unit normal of the plane through the neighbours of each of (P, 3) points.

    NaN where they are not planar, or fewer than a plane needs; of either sign.
    """
    normals = np.full(points.shape, np.nan)
    if len(points) < NEIGHBOURS:
        return normals
    tree = cKDTree(points)
    for start in range(0, len(points), CHUNK):
        chunk = slice(start, start + CHUNK)
        _, near = tree.query(points[chunk], k=NEIGHBOURS)
        normals[chunk] = _fit(points[near], points[chunk])
    return normals


def patch_tangents(
    camera: pycolmap.Camera,
    cam_from_world: DoubleArray,
    points: DoubleArray,
    normals: DoubleArray,
    frames: DoubleArray,
) -> DoubleArray:
    """How a point moves on its surface with the samples of a patch of an image.

    Args:
        camera: of the image, in COLMAP's pixel origin.
        cam_from_world: (3, 4) its pose.
        points: (N, 3) that it observes.
        normals: (N, 3) of their surfaces; where NaN, or grazing here, the surface is
            taken to face the camera.
        frames: (N, 2, 2) step of a sample in pixels of the image; columns along x and
            y of the patch.

    Returns:
        (N, 3, 2) derivatives of the point, in units of the world a sample; NaN where
        the image does not see the point.
    """
    rotation = cam_from_world[:, :3]
    in_camera = seen_from(cam_from_world, points)
    rays = in_camera / np.linalg.norm(in_camera, axis=1, keepdims=True)
    facing = normals @ rotation.T
    seen = -(facing * rays).sum(axis=1) >= MIN_COSINE
    facing = np.where(seen[:, None], facing, -rays)
    offsets = (facing * in_camera).sum(axis=1, keepdims=True)
    centres = project(camera, in_camera)

    def on_surface(xy: DoubleArray) -> DoubleArray:
        rays: DoubleArray = np.reshape(camera.cam_ray_from_img(xy), (-1, 3))
        depths: DoubleArray = offsets / (facing * rays).sum(axis=1, keepdims=True)
        return rays * depths

    ahead = [on_surface(centres + frames[:, :, axis]) for axis in range(2)]
    behind = [on_surface(centres - frames[:, :, axis]) for axis in range(2)]
    tangents = np.stack([(a - b) / 2 for a, b in zip(ahead, behind)], axis=2)
    turned: DoubleArray = np.einsum("ji,njk->nik", rotation, tangents)
    return turned


def surface_frames(
    camera: pycolmap.Camera,
    cam_from_world: DoubleArray,
    points: DoubleArray,
    tangents: DoubleArray,
) -> DoubleArray:
    """The frames in which a camera sees patches of surfaces.

    Args:
        camera: in COLMAP's pixel origin; its distortion counts.
        cam_from_world: (3, 4) its pose.
        points: (N, 3) centres of the patches.
        tangents: (N, 3, 2) of the patches, see ``patch_tangents``.

    Returns:
        (N, 2, 2) step of a sample in pixels; columns along x and y of the patch. NaN
        where the point is behind the camera, or the patch is seen grazing, or from
        behind.
    """
    in_camera = seen_from(cam_from_world, points)
    steps = np.einsum("ij,njk->nik", cam_from_world[:, :3], tangents)
    ahead = [project(camera, in_camera + steps[:, :, axis]) for axis in range(2)]
    behind = [project(camera, in_camera - steps[:, :, axis]) for axis in range(2)]
    frames = np.stack([(a - b) / 2 for a, b in zip(ahead, behind)], axis=2)
    frames[~(_aspects(frames) >= MIN_ASPECT)] = np.nan
    return frames


def seen_from(cam_from_world: DoubleArray, points: DoubleArray) -> DoubleArray:
    """(N, 3) points in the camera of a (3, 4) pose."""
    in_camera: DoubleArray = points @ cam_from_world[:, :3].T + cam_from_world[:, 3]
    return in_camera


def project(camera: pycolmap.Camera, in_camera: DoubleArray) -> DoubleArray:
    """(N, 2) pixels, in COLMAP's origin, of (N, 3) points; NaN behind the camera."""
    pixels: DoubleArray = np.reshape(camera.img_from_cam(in_camera), (-1, 2))
    return pixels


def _directions(image: MapImage, points: DoubleArray) -> DoubleArray:
    """(K, 3) unit vectors from the points that an image observes to its centre."""
    rotation, translation = np.split(image.cam_from_world, [3], axis=1)
    to_centre = -(rotation.T @ translation)[:, 0] - points[image.point_rows]
    lengths = np.linalg.norm(to_centre, axis=1, keepdims=True)
    unit: DoubleArray = to_centre / np.maximum(lengths, np.finfo(np.float64).tiny)
    return unit


def _fit(near: DoubleArray, points: DoubleArray) -> DoubleArray:
    """(N, 3) normals of the planes through (N, K, 3) neighbours of (N, 3) points."""
    _, axes = _principal_axes(near)
    away = np.abs(_heights(near, near.mean(axis=1), axes[:, :, 0]))
    nearest = np.argsort(away, axis=1, kind="stable")[:, :KEPT]
    kept = np.take_along_axis(near, nearest[:, :, None], axis=1)
    extents, axes = _principal_axes(kept)
    normals: DoubleArray = axes[:, :, 0].copy()
    height = _heights(points[:, None], kept.mean(axis=1), normals)[:, 0]
    planar = (extents[:, 0] < MAX_THICKNESS * extents[:, 1]) & (
        np.abs(height) < 3 * MAX_THICKNESS * extents[:, 1]
    )
    normals[~(planar & (extents[:, 1] > MIN_WIDTH * extents[:, 2]))] = np.nan
    return normals


def _principal_axes(near: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """(N, 3) extents, ascending, and (N, 3, 3) axes, as columns, of (N, K, 3)."""
    centred = near - near.mean(axis=1, keepdims=True)
    covariance = np.einsum("nki,nkj->nij", centred, centred) / near.shape[1]
    variances, axes = np.linalg.eigh(covariance)
    return np.sqrt(np.maximum(variances, 0)), axes


def _heights(
    near: DoubleArray, centres: DoubleArray, normals: DoubleArray
) -> DoubleArray:
    heights: DoubleArray = np.einsum("nki,ni->nk", near - centres[:, None], normals)
    return heights


def _aspects(frames: DoubleArray) -> DoubleArray:
    """(N,) shorter in units of the longer axis; negative where mirrored, NaN of NaN."""
    squares = (frames**2).sum(axis=(1, 2))
    (a, b), (c, d) = np.moveaxis(frames, 0, 2)
    areas = a * d - b * c
    root = np.sqrt(np.maximum(squares**2 - 4 * areas**2, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        aspects = np.sqrt((squares - root) / (squares + root))
    signed: DoubleArray = np.sign(areas) * aspects
    return signed
