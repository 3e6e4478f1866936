"""Surfaces of map points, and the frames in which cameras see their patches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pycolmap
import pytest

from r2d2_kapture.io.colmap.sparse_map import MapImage, SparseMap
from r2d2_kapture.stages.surfaces import (
    patch_tangents,
    plane_normals,
    surface_frames,
    surface_normals,
)

Array = npt.NDArray[np.float64]
PINHOLE = pycolmap.Camera(
    model="PINHOLE", width=640, height=480, params=[500, 510, 320, 240]
)
DISTORTED = pycolmap.Camera(
    model="OPENCV",
    width=640,
    height=480,
    params=[500, 510, 320, 240, 0.1, -0.05, 0.002, 0.001],
)
NORMAL = np.array([0.3, -0.2, -1.0]) / np.linalg.norm([0.3, -0.2, -1.0])
"""Of a slanted plane in front of a camera at the origin."""
DISTANCE = -4.0
FIRST = np.eye(3, 4)


def pose(axis: list[float], angle: float, translation: list[float]) -> Array:
    rotation = pycolmap.Rotation3d(angle * np.array(axis) / np.linalg.norm(axis))
    return np.column_stack([rotation.matrix(), translation])


SECOND = pose([0.2, 1, 0.3], 0.4, [-1.2, 0.1, 0.3])


def points_of_plane(camera: pycolmap.Camera, pixels: Array) -> Array:
    rays = camera.cam_ray_from_img(pixels)
    points: Array = rays * DISTANCE / (rays @ NORMAL)[:, None]
    return points


def grid() -> Array:
    return np.stack(np.meshgrid([100.5, 300, 520], [80, 260.5, 400]), -1).reshape(-1, 2)


def frames_between(first: pycolmap.Camera, second: pycolmap.Camera) -> Array:
    """Frames in the second camera of one pixel in the first, seen on the plane."""
    points = points_of_plane(first, grid())
    steps = np.broadcast_to(np.eye(2), (len(points), 2, 2))
    normals = np.broadcast_to(NORMAL, points.shape)
    tangents = patch_tangents(first, FIRST, points, normals, steps)
    return surface_frames(second, SECOND, points, tangents)


def test_a_plane_seen_by_two_cameras_gives_the_jacobian_of_its_homography() -> None:
    rotation, translation = SECOND[:, :3], SECOND[:, 3:]
    matrix = PINHOLE.calibration_matrix()
    homography = (
        matrix
        @ (rotation + translation @ NORMAL[None] / DISTANCE)
        @ np.linalg.inv(matrix)
    )
    for (x, y), found in zip(grid(), frames_between(PINHOLE, PINHOLE)):
        u, v, w = homography @ [x, y, 1]
        expected = (
            homography[:2, :2] - np.outer([u / w, v / w], homography[2, :2])
        ) / w
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_distortion_counts_on_both_sides() -> None:
    """The derivative by tiny steps through the plane, with neither camera's formula."""
    step = 1e-3
    for found, (x, y) in zip(frames_between(DISTORTED, DISTORTED), grid()):
        around = np.array([[x + step, y], [x - step, y], [x, y + step], [x, y - step]])
        in_second = points_of_plane(DISTORTED, around) @ SECOND[:, :3].T + SECOND[:, 3]
        right, left, down, up = DISTORTED.img_from_cam(in_second)
        expected = np.column_stack([right - left, down - up]) / (2 * step)
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_camera_that_a_patch_was_cut_in_sees_its_own_frame() -> None:
    points = points_of_plane(DISTORTED, grid())
    steps = np.random.default_rng(0).normal(0, 0.2, (len(points), 2, 2)) + np.eye(2)
    # also where the surface is not known
    normals = np.where(np.arange(len(points))[:, None] % 2, NORMAL, np.nan)
    tangents = patch_tangents(DISTORTED, FIRST, points, normals, steps)
    found = surface_frames(DISTORTED, FIRST, points, tangents)
    np.testing.assert_allclose(found, steps, atol=1e-4)
    facing = np.einsum("ni,nik->nk", points[::2], tangents[::2])
    np.testing.assert_allclose(facing, 0, atol=1e-4)
    np.testing.assert_allclose(
        np.einsum("i,nik->nk", NORMAL, tangents[1::2]), 0, atol=1e-12
    )


@pytest.mark.parametrize(
    "unseen",
    [
        pose([0, 1, 0], np.pi, [0, 0, 0]),  # looks the other way
        pose([0, 1, 0], np.pi, [0, 0, 12]),  # from behind the plane
        pose([0, 1, 0], np.pi / 2 - 0.03, [-4, 0, 3]),  # nearly in the plane
    ],
)
def test_views_that_cannot_show_a_patch_are_flagged(unseen: Array) -> None:
    points = np.array([[0, 0, 4.0], [0.1, 0.1, 4.0]])
    normals = np.tile([0, 0, -1.0], (2, 1))
    steps = np.tile(np.eye(2), (2, 1, 1))
    tangents = patch_tangents(PINHOLE, FIRST, points, normals, steps)
    assert np.isfinite(surface_frames(PINHOLE, FIRST, points, tangents)).all()
    assert np.isnan(surface_frames(PINHOLE, unseen, points, tangents)).all()


def test_no_points_have_no_frames() -> None:
    nothing = np.zeros((0, 3))
    tangents = patch_tangents(PINHOLE, FIRST, nothing, nothing, np.zeros((0, 2, 2)))
    assert tangents.shape == (0, 3, 2)
    assert surface_frames(PINHOLE, FIRST, nothing, tangents).shape == (0, 2, 2)
    assert plane_normals(nothing).shape == (0, 3)


def corner(rng: np.random.Generator) -> tuple[Array, Array]:
    """Points of two walls and a floor, 2 mm off, with some in the air; and normals."""
    u, v = rng.uniform(0, 3, (2, 300))
    off = rng.normal(0, 0.002, 300)
    walls = [np.stack(p, 1) for p in ((off, u, v), (u, off, v), (u, v, off))]
    air = rng.uniform(0.5, 3, (60, 3))
    return np.concatenate([*walls, air]), np.repeat(np.eye(3), 300, axis=0)


def test_planes_are_found_between_stray_points() -> None:
    points, true = corner(np.random.default_rng(1))
    found = plane_normals(points)
    known = np.isfinite(found[:900, 0])
    angles = np.degrees(np.arccos(np.abs((found[:900] * true).sum(axis=1))[known]))
    assert known.mean() > 0.7
    assert np.median(angles) < 2 and np.percentile(angles, 95) < 15
    # of those in the air few find a plane
    assert np.isnan(found[900:, 0]).mean() > 0.6


def test_points_on_a_line_have_no_plane() -> None:
    line = np.outer(np.linspace(0, 1, 30), [1, 2, 3])
    assert np.isnan(plane_normals(line)).all()
    assert np.isnan(plane_normals(np.zeros((20, 3)))).all()
    assert np.isnan(plane_normals(line[:4])).all()


def test_normals_face_the_cameras_that_observe_the_point() -> None:
    rng = np.random.default_rng(2)
    points = np.column_stack([rng.uniform(-2, 2, (200, 2)), np.full(200, 4.0)])
    behind = pose([0, 1, 0], np.pi, [0, 0, 8.0])
    rows = np.arange(200)

    def seen(cam_from_world: Array, rows: npt.NDArray[np.int64]) -> MapImage:
        return MapImage(
            cam_from_world=cam_from_world,
            keypoints=np.arange(len(rows)),
            point_rows=rows,
            keypoint_count=len(rows),
        )

    # points 150 and up from the other side, and points 140 to 149 from both
    images = {"a": seen(FIRST, rows[:150]), "b": seen(behind, rows[140:])}
    normals = surface_normals(
        SparseMap(
            points=points,
            point_ids=rows,
            images=images,
            cameras={name: PINHOLE for name in images},
        )
    )
    np.testing.assert_allclose(
        normals[:140], np.tile([0, 0, -1.0], (140, 1)), atol=1e-9
    )
    assert np.isnan(normals[140:150]).all()
    np.testing.assert_allclose(normals[150:], np.tile([0, 0, 1.0], (50, 1)), atol=1e-9)
