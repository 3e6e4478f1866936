"""The tracks of a map: its points say where the patches of references are.

A point is the mean of all keypoints that see it. The patch of its reference is cut
where it projects to, so that the keypoints are registered against the map, and the
plane of the surface gives the affinity of each view.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r2d2_kapture.coordinates import kapture_from_colmap
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.sparse_map import SparseMap, read_sparse_map
from r2d2_kapture.refinement.frames import scale_frames
from r2d2_kapture.stages.refine.tracks import DoubleArray, Numbering, Tracks
from r2d2_kapture.stages.surfaces import (
    patch_tangents,
    project,
    seen_from,
    surface_frames,
    surface_normals,
)
from r2d2_kapture.types import FloatArray, IndexArray

TOLERANCE = 1e-3
"""Pixels by which a keypoint may differ between a map and its database."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _View:
    """What an image of a map sees of it.

    Attributes:
        name: of the image.
        numbers: (K,) of the keypoints that see a point.
        points: (K,) row of the point that each sees.
    """

    name: str
    numbers: IndexArray
    points: IndexArray


def tracks_of_map(
    keypoints: Numbering,
    names: Sequence[str],
    sparse_map: SparseMap,
    left_out: Container[int],
) -> Tracks:
    """A track for each point of a map, with one reference.

    Args:
        keypoints: of all images.
        names: of the images, in order.
        sparse_map: made of these keypoints.
        left_out: images whose keypoints are registered nowhere.
    """
    views = list(_views(keypoints, names, sparse_map, left_out))
    references = _references(keypoints, views, sparse_map)
    count = len(keypoints)
    tracks = Tracks(
        references=np.full(count, -1, np.int32),
        affinities=np.tile(np.eye(2, dtype=np.float32), (count, 1, 1)),
        is_reference=np.zeros(count, np.bool_),
        offsets=np.zeros((count, 2), np.float32),
    )
    normals = surface_normals(sparse_map)
    tangents = np.full((len(sparse_map.points), 3, 2), np.nan)
    for view in views:
        tracks.references[view.numbers] = references[view.points]
        own = references[view.points] == view.numbers
        numbers, rows = view.numbers[own], view.points[own]
        tracks.is_reference[numbers] = True
        camera, pose = sparse_map.cameras[view.name], _pose(sparse_map, view)
        points = sparse_map.points[rows]
        tangents[rows] = patch_tangents(
            camera, pose, points, normals[rows], scale_frames(keypoints.sides[numbers])
        )
        places = kapture_from_colmap(project(camera, seen_from(pose, points)))
        tracks.offsets[numbers] = places - keypoints.xy[numbers]
    for view in views:
        camera, pose = sparse_map.cameras[view.name], _pose(sparse_map, view)
        frames = surface_frames(
            camera, pose, sparse_map.points[view.points], tangents[view.points]
        )
        sides = keypoints.sides[tracks.references[view.numbers]]
        tracks.affinities[view.numbers] = frames @ np.linalg.inv(scale_frames(sides))
    return tracks


def open_map(path: Path, read_xy: Callable[[str], FloatArray]) -> SparseMap:
    """Read a map that was made of given keypoints.

    Args:
        path: of the map.
        read_xy: gives the (N, 2) keypoints of an image, from the centre of the first
            pixel.

    Raises:
        DatasetError: there is no map, or it was made of other keypoints.
    """
    sparse_map = read_sparse_map(path)
    for name, image in sparse_map.images.items():
        xy = read_xy(name)
        same = not len(image.keypoints) or image.keypoints[-1] < len(xy)
        if same and image.xy is not None:
            there = kapture_from_colmap(image.xy)
            same = np.allclose(xy[image.keypoints], there, rtol=0, atol=TOLERANCE)
        if not same:
            raise DatasetError(
                f"{path}: the keypoints of '{name}' are not those of the database; "
                "give the map that was made of it"
            )
    return sparse_map


def _views(
    keypoints: Numbering,
    names: Sequence[str],
    sparse_map: SparseMap,
    left_out: Container[int],
) -> Iterator[_View]:
    for image, name in enumerate(names):
        if name in sparse_map.images and image not in left_out:
            seen = sparse_map.images[name]
            numbers = keypoints.of(image).start + seen.keypoints
            yield _View(name=name, numbers=numbers, points=seen.point_rows)


def _references(
    keypoints: Numbering, views: Sequence[_View], sparse_map: SparseMap
) -> IndexArray:
    """(P,) number of the keypoint of each point whose pixels are of median size on it;
    -1 where none sees the point."""
    sizes, numbers, points = [np.zeros(0)], [np.zeros(0, int)], [np.zeros(0, int)]
    for view in views:
        camera, pose = sparse_map.cameras[view.name], _pose(sparse_map, view)
        depths = seen_from(pose, sparse_map.points[view.points])[:, 2]
        sizes.append(
            keypoints.sides[view.numbers] * depths / camera.mean_focal_length()
        )
        numbers.append(view.numbers)
        points.append(view.points)
    number, point = np.concatenate(numbers), np.concatenate(points)
    order = np.lexsort((number, np.concatenate(sizes), point))
    first = np.flatnonzero(np.diff(point[order], prepend=-1))
    lengths = np.diff(first, append=len(order))
    middle = order[first + (lengths - 1) // 2]
    references = np.full(len(sparse_map.points), -1, np.int64)
    references[point[middle]] = number[middle]
    return references


def _pose(sparse_map: SparseMap, view: _View) -> DoubleArray:
    return sparse_map.images[view.name].cam_from_world
