"""Keypoints and points of a COLMAP model as arrays.

pycolmap makes an object of each, which takes most of the time of a large model; so
binary files are read here, after ``check_binary_model``. Layout:
colmap.github.io/format.html.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

from r2d2_kapture.io.colmap.binary import (
    COUNT,
    ELEMENT_BYTES,
    IMAGE_BYTES,
    KEYPOINT_BYTES,
    POINT_BYTES,
    is_binary,
)
from r2d2_kapture.types import IndexArray

KEYPOINT = np.dtype([("x", "<f8"), ("y", "<f8"), ("point_id", "<i8")])
"""A keypoint, in pixels of COLMAP's origin, and the point that it sees; -1 for none."""
IMAGE_ID = struct.Struct("<I")
POINT = struct.Struct("<Qddd")
"""Id and position of a point."""

Keypoints = npt.NDArray[np.void]
Array = npt.NDArray[np.float64]


@contextmanager
def _opened(path: Path) -> Iterator[mmap.mmap]:
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        yield data


def keypoints_of(
    model: pycolmap.Reconstruction, folder: Path
) -> Mapping[int, Keypoints]:
    """The (N,) KEYPOINT rows of each image of a model that was read, by its id."""
    if is_binary(folder):
        return _read_keypoints(folder)
    return {image_id: _rows(image) for image_id, image in model.images.items()}


def points_of(model: pycolmap.Reconstruction, folder: Path) -> tuple[IndexArray, Array]:
    """(P,) ids, ascending, and (P, 3) positions of the points of the same."""
    if is_binary(folder):
        point_ids, points = _read_points(folder)
    else:
        point_ids = np.array([*model.points3D], np.uint64).astype(np.int64)
        points = np.array([point.xyz for point in model.points3D.values()])
    order = np.argsort(point_ids)
    return point_ids[order], points.reshape(-1, 3)[order]


def _rows(image: pycolmap.Image) -> Keypoints:
    rows = np.zeros(image.num_points2D(), KEYPOINT)
    rows["point_id"] = -1
    for row, point in zip(rows, image.points2D):
        row["x"], row["y"] = point.xy
        if point.has_point3D():
            row["point_id"] = point.point3D_id
    return rows


def _read_keypoints(folder: Path) -> dict[int, Keypoints]:
    found: dict[int, Keypoints] = {}
    with _opened(folder / "images.bin") as data:
        (records,) = COUNT.unpack_from(data)
        place = COUNT.size
        for _ in range(records):
            (image_id,) = IMAGE_ID.unpack_from(data, place)
            place = data.find(b"\0", place + IMAGE_BYTES) + 1
            (count,) = COUNT.unpack_from(data, place)
            end = place + COUNT.size + count * KEYPOINT_BYTES
            found[image_id] = np.frombuffer(data[place + COUNT.size : end], KEYPOINT)
            place = end
    return found


def _read_points(folder: Path) -> tuple[IndexArray, Array]:
    with _opened(folder / "points3D.bin") as data:
        (records,) = COUNT.unpack_from(data)
        ids, xyz = np.zeros(records, np.int64), np.zeros((records, 3))
        place = COUNT.size
        for row in range(records):
            ids[row], *xyz[row] = POINT.unpack_from(data, place)
            (elements,) = COUNT.unpack_from(data, place + POINT_BYTES)
            place += POINT_BYTES + COUNT.size + elements * ELEMENT_BYTES
    return ids, xyz
